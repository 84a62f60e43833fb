//! The edge to the reader: names and texts from outside (rule comments, chains, hosts, devices, recordings) cannot control
//! the terminal, forge a line or change the direction of text.
//!
//! Everything that is printed passes through one of these: [`Text`] and [`clean`] for terminals, [`html`] for the page,
//! [`json`] for JSON, [`note`] for stderr. A lint forbids every other print.

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
    io::{self, Write},
};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Whether a terminal or a browser acts on this character instead of showing it: C0 and C1 controls, and invisible
/// characters that change the direction of text or hide it.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Escapes one line of text for a terminal. Control characters, among them line ends, and characters that change the direction of
/// text are shown as `\x1b` or `\u{202e}`.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    escape(text, is_harmful)
}

/// Escapes a whole page of HTML: what [`clean`] escapes, except the line ends of the page. `maud` has escaped markup before.
#[must_use]
pub fn html(page: String) -> String {
    match escape(&page, |c| c != '\n' && is_harmful(c)) {
        Cow::Borrowed(_) => page,
        Cow::Owned(escaped) => escaped,
    }
}

/// Whether all characters are printable ASCII, as nearly all text is. Much faster than asking for each character.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if is_plain(text) || !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if !is_escaped(c) {
            out.push(c);
        } else if u32::from(c) < 0x100 {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        } else {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    }
    Cow::Owned(out)
}

/// Several lines of text for a terminal. A name with a line end in it stays on its line.
#[derive(Clone, Debug, Default)]
pub struct Text(String);

impl Text {
    /// Adds one line.
    pub fn line(&mut self, line: impl Display) {
        self.0.push_str(&clean(&line.to_string()));
        self.0.push('\n');
    }

    /// Adds an empty line.
    pub fn gap(&mut self) {
        self.0.push('\n');
    }

    /// Adds lines that are clean already.
    pub fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    /// The lines, each with its line end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The lines, each with its line end.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Prints one line on stderr. If nobody can read it, nothing is left to do.
pub fn note(message: impl Display) {
    let _ = writeln!(io::stderr(), "tracer: {}", clean(&message.to_string()));
}

/// JSON on one line. Harmful characters are written as `\u001b`: every JSON reader gets the unmodified text.
///
/// # Errors
/// The value has a map whose keys are not strings.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut out = Vec::with_capacity(4096);
    value.serialize(&mut Serializer::with_formatter(
        &mut out,
        Escaping(CompactFormatter),
    ))?;
    Ok(String::from_utf8(out).unwrap_or_default())
}

/// JSON on several lines, escaped like [`json`].
///
/// # Errors
/// The output cannot be written.
pub fn json_pretty(out: impl Write, value: &impl Serialize) -> io::Result<()> {
    let formatter = Escaping(PrettyFormatter::new());
    Ok(value.serialize(&mut Serializer::with_formatter(out, formatter))?)
}

/// Escapes more than JSON requires, which is only characters below U+0020, `"` and `\`.
struct Escaping<F>(F);

impl<F: Formatter> Formatter for Escaping<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        if is_plain(rest) {
            return out.write_all(rest.as_bytes());
        }
        while let Some((at, harmful)) = rest.char_indices().find(|&(_, c)| is_harmful(c)) {
            out.write_all(&rest.as_bytes()[..at])?;
            for unit in harmful.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = &rest[at + harmful.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(clean("shop/web"), "shop/web");
        assert_eq!(clean("a\x1b[2Jb\n\u{202e}c"), "a\\x1b[2Jb\\x0a\\u{202e}c");
        assert_eq!(clean("\u{9b}31m\x07\x7f"), "\\x9b31m\\x07\\x7f");
    }

    #[test]
    fn a_name_with_a_line_end_stays_on_its_line() {
        let mut text = Text::default();
        text.line("a\nb\r\n");
        text.gap();
        assert_eq!(text.as_str(), "a\\x0ab\\x0d\\x0a\n\n");
    }

    #[test]
    fn a_page_keeps_its_line_ends() {
        assert_eq!(html("<p>\na\x1b\u{2066}".to_owned()), "<p>\na\\x1b\\u{2066}");
    }

    #[test]
    fn json_is_escaped_and_reads_back_unmodified() {
        let text = "q\" \x1b[2J \u{9b} \u{202e} \u{e0041} \x7f ö 日本";
        let json = json(&[text]).expect("JSON");
        assert_eq!(
            json,
            r#"["q\" \u001b[2J \u009b \u202e \udb40\udc41 \u007f ö 日本"]"#
        );
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).expect("JSON"), [text]);
        let value = serde_json::json!({"a": [1, {"b": []}], "c\u{202e}": {}});
        let mut pretty = Vec::new();
        json_pretty(&mut pretty, &value).expect("memory has room");
        let expected = serde_json::to_string_pretty(&value)
            .expect("JSON")
            .replace('\u{202e}', "\\u202e");
        assert_eq!(String::from_utf8(pretty).expect("text"), expected);
    }
}
