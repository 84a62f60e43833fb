//! Counts in words.

/// A count with its noun: `1 flow`, `2 flows`. The plural ends with an `s`.
#[must_use]
pub fn plural(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

/// The same for a count of 64 bits.
#[must_use]
pub fn plural_u64(count: u64, noun: &str) -> String {
    plural(usize::try_from(count).unwrap_or(usize::MAX), noun)
}
