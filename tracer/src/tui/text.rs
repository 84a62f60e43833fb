//! Text for the screen: safe for the terminal, and cut or wrapped to fit.

use ratatui::text::Span;

pub use crate::report::escape::clean;

/// The width of a text in columns of the screen.
#[must_use]
pub fn width(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        Span::raw(text).width()
    }
}

/// The text, or as much of its start as fits, with a mark at the cut.
#[must_use]
pub fn fit(text: &str, most: usize, more: &str) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut left = most.saturating_sub(width(more));
    for c in text.chars() {
        let wide = width(c.encode_utf8(&mut [0; 4]));
        if wide > left {
            break;
        }
        left -= wide;
        out.push(c);
    }
    if most >= width(more) {
        out.push_str(more);
    }
    out
}

/// The text, or as much of its end as fits: the port of an address matters most.
#[must_use]
pub fn fit_end(text: &str, most: usize, more: &str) -> String {
    let all = text.chars().count();
    if width(text) <= most {
        return text.to_owned();
    }
    let Some(kept) = most.checked_sub(width(more)) else {
        return String::new();
    };
    let end: String = text.chars().skip(all.saturating_sub(kept)).collect();
    format!("{more}{end}")
}

/// Wraps a text at spaces; a word that is too long is broken anywhere.
#[must_use]
pub fn wrap(text: &str, most: usize) -> Vec<String> {
    let most = most.max(8);
    let mut out = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word = word.to_owned();
        if !line.is_empty() && width(&line) + 1 + width(&word) > most {
            out.push(std::mem::take(&mut line));
        }
        while width(&word) > most {
            let head = fit(&word, most, "");
            if head.is_empty() {
                break;
            }
            word.drain(..head.len());
            out.push(head);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() || out.is_empty() {
        out.push(line);
    }
    out
}

/// A number with thousands separated by spaces.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A number and its noun in the right form: `1 flow`, `2 flows`.
#[must_use]
pub fn quantity(number: u64, one: &str, many: &str) -> String {
    let noun = if number == 1 { one } else { many };
    format!("{} {noun}", count(number))
}

/// A time in microseconds as milliseconds, for a table.
#[must_use]
pub fn milliseconds(micros: u64) -> String {
    match micros {
        0..9_950 => {
            let tenths = (micros + 50) / 100;
            format!("{}.{} ms", tenths / 10, tenths % 10)
        }
        _ => format!("{} ms", (micros + 500) / 1_000),
    }
}

/// A time in microseconds, in the unit that suits it.
#[must_use]
pub fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..9_950 => {
            let tenths = (micros + 50) / 100;
            format!("{}.{} ms", tenths / 10, tenths % 10)
        }
        9_950..10_000_000 => format!("{} ms", (micros + 500) / 1_000),
        10_000_000..600_000_000 => format!("{} s", micros / 1_000_000),
        600_000_000..36_000_000_000 => format!("{} min", micros / 60_000_000),
        _ => format!("{} h", micros / 3_600_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_text_is_marked() {
        assert_eq!(fit("10.0.0.1:80", 20, "…"), "10.0.0.1:80");
        assert_eq!(fit("10.0.0.1:80", 5, "…"), "10.0…");
        assert_eq!(fit_end("[fd00::1]:30080", 8, "…"), "…]:30080");
        assert_eq!(fit("日本語", 5, "…"), "日本…");
        assert_eq!(fit("abc", 0, "…"), "");
    }

    #[test]
    fn text_wraps_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghijk", 8), ["abcdefgh", "ijk"]);
        assert_eq!(wrap("", 8), [""]);
        assert_eq!(wrap("日本語日本語日本語", 8).concat(), "日本語日本語日本語");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(quantity(1, "flow", "flows"), "1 flow");
        assert_eq!(quantity(0, "flow", "flows"), "0 flows");
        assert_eq!(quantity(2_000, "flow", "flows"), "2 000 flows");
        assert_eq!(milliseconds(950), "1.0 ms");
        assert_eq!(milliseconds(65_000_400), "65000 ms");
        assert_eq!(duration(950), "950 us");
        assert_eq!(duration(1_046_000), "1046 ms");
        assert_eq!(duration(65_000_000), "65 s");
    }
}
