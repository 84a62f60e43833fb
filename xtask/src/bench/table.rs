//! The tables of BENCHMARKS.md.

use tracer_lab::protocol::Measurement;

use super::results::median;

/// A measurement in one line, while it runs.
pub(super) fn line(measurement: &Measurement) -> String {
    let Measurement { row, beside, samples } = measurement;
    let median = median(samples).unwrap_or_default();
    format!("{row}, beside {beside:?}: {}", number(median))
}

/// A whole number with separators between thousands.
pub(super) fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits
        .strip_prefix('-')
        .map_or(("", &*digits), |rest| ("-", rest));
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators() {
        assert_eq!(number(0.4), "0");
        assert_eq!(number(999.0), "999");
        assert_eq!(number(1_234_567.0), "1 234 567");
        assert_eq!(number(-1000.0), "-1 000");
    }
}
