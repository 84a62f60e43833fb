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

/// A place in an order: `first`, `third`, `12th`.
pub(super) fn ordinal(number: usize) -> String {
    const FIRST: [&str; 7] = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh"];
    let name = number.checked_sub(1).and_then(|index| FIRST.get(index));
    name.map_or_else(
        || {
            let suffix = match (number % 100, number % 10) {
                (11..=13, _) => "th",
                (_, 1) => "st",
                (_, 2) => "nd",
                (_, 3) => "rd",
                _ => "th",
            };
            format!("{number}{suffix}")
        },
        |name| (*name).to_owned(),
    )
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

    #[test]
    fn places_in_an_order_are_words_or_numbers() {
        let all = [1, 7, 8, 11, 21, 22, 113, 103].map(ordinal);
        assert_eq!(
            all,
            [
                "first", "seventh", "8th", "11th", "21st", "22nd", "113th", "103rd"
            ]
        );
    }
}
