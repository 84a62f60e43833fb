//! Small parts of sentences.

/// A number of things, singular or plural: `1 real server`, `2 real servers`. For nouns whose plural ends in `s`.
#[must_use]
pub fn count(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

/// The sentence with a capital at its beginning.
pub(super) fn capitalized(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_right_in_singular_and_plural() {
        assert_eq!(count(0_u32, "real server"), "0 real servers");
        assert_eq!(count(1_u32, "real server"), "1 real server");
        assert_eq!(count(2_u32, "real server"), "2 real servers");
    }

    #[test]
    fn a_sentence_begins_with_a_capital() {
        assert_eq!(capitalized("the pod"), "The pod");
        assert_eq!(capitalized(""), "");
    }
}
