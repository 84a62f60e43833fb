//! Phrases that are banned from all tracked text files: `xtask/phrases.toml` lists them, and what to say instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::workspace;

/// The list, relative to the workspace.
const LIST: &str = "xtask/phrases.toml";

/// The contents of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// Each phrase, and what to say instead.
    phrases: BTreeMap<String, String>,
    /// Where a phrase is allowed.
    #[serde(default)]
    allowed: Vec<Allowed>,
}

/// A phrase that is allowed in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    file: String,
    phrase: String,
    /// The reason, for the reader of the list.
    #[serde(rename = "reason")]
    _reason: String,
}

/// A phrase in a file.
#[derive(Debug, PartialEq, Eq)]
struct Finding<'a> {
    /// The line on which it starts, from 1.
    line: usize,
    phrase: &'a str,
}

/// Finds the phrases in all tracked text files, one line each: `FILE:LINE: "PHRASE": say "OTHER"`. An exception that is
/// no longer needed is a finding too.
pub(super) fn find() -> Result<Vec<String>> {
    let path = workspace::root().join(LIST);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let list: List = toml::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    let search = Search::new(&list);
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    for file in workspace::tracked_files()? {
        if file == Path::new(LIST) {
            continue;
        }
        let path = workspace::root().join(&file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // Binary files have no text for readers.
        let Some(text) = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')) else {
            continue;
        };
        let file = file.display().to_string();
        for Finding { line, phrase } in search.find(&text) {
            let allowed = |entry: &Allowed| entry.file == file && entry.phrase == phrase;
            if let Some(index) = list.allowed.iter().position(allowed) {
                used.insert(index);
                continue;
            }
            findings.push(format!(
                "{file}:{line}: \"{phrase}\": say \"{}\"",
                list.phrases[phrase]
            ));
        }
    }
    let unused = list.allowed.iter().enumerate();
    findings.extend(
        unused
            .filter(|(index, _)| !used.contains(index))
            .map(|(_, entry)| {
                format!(
                    "{LIST}: the exception for \"{}\" in {} matches nothing",
                    entry.phrase, entry.file
                )
            }),
    );
    Ok(findings)
}

/// The phrases as words, by their first word.
struct Search<'a> {
    by_first: BTreeMap<String, Vec<(Vec<String>, &'a str)>>,
}

impl<'a> Search<'a> {
    fn new(list: &'a List) -> Self {
        let mut by_first: BTreeMap<String, Vec<(Vec<String>, &'a str)>> = BTreeMap::new();
        for phrase in list.phrases.keys() {
            let words: Vec<String> = words(phrase).into_iter().map(|word| word.text).collect();
            if let Some(first) = words.first() {
                by_first.entry(first.clone()).or_default().push((words, phrase));
            }
        }
        Self { by_first }
    }

    fn find(&self, text: &str) -> Vec<Finding<'a>> {
        let text = words(text);
        let mut findings = Vec::new();
        for (index, word) in text.iter().enumerate() {
            for (phrase, name) in self.by_first.get(&word.text).into_iter().flatten() {
                let Some(found) = text.get(index..index + phrase.len()) else {
                    continue;
                };
                let is_joined = found.iter().skip(1).all(|word| word.follows);
                if is_joined && found.iter().map(|word| &word.text).eq(phrase) {
                    findings.push(Finding {
                        line: word.line,
                        phrase: name,
                    });
                }
            }
        }
        findings
    }
}

/// A word of a text.
#[derive(Debug)]
struct Word {
    /// In lower case.
    text: String,
    /// Its line, from 1.
    line: usize,
    /// Whether it follows the word before it in the same phrase.
    follows: bool,
}

/// The words of a text. An underscore separates words, because names of tests are sentences. Words on two lines follow each
/// other if only comment markers or the backslash of a string literal are between them.
fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut line = 1;
    let mut rest = text;
    loop {
        let start = rest.find(is_word).unwrap_or(rest.len());
        let (gap, after) = rest.split_at(start);
        line += gap.matches('\n').count();
        if after.is_empty() {
            return words;
        }
        let end = after.find(|char| !is_word(char)).unwrap_or(after.len());
        let (word, after) = after.split_at(end);
        words.push(Word {
            text: word.to_lowercase(),
            line,
            follows: joins(gap),
        });
        rest = after;
    }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '\''
}

/// Whether the text between two words keeps them in one phrase.
fn joins(gap: &str) -> bool {
    let is_broken = gap.contains('\n');
    gap.chars()
        .all(|char| char.is_whitespace() || char == '_' || (is_broken && "/!#*\\>".contains(char)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(phrases: &[&str], text: &str) -> Vec<(usize, String)> {
        let list = List {
            phrases: phrases
                .iter()
                .map(|phrase| ((*phrase).to_owned(), String::new()))
                .collect(),
            allowed: Vec::new(),
        };
        let findings = Search::new(&list).find(text);
        let mut findings: Vec<_> = findings
            .into_iter()
            .map(|finding| (finding.line, finding.phrase.to_owned()))
            .collect();
        findings.sort();
        findings
    }

    fn one(line: usize, phrase: &str) -> Vec<(usize, String)> {
        vec![(line, phrase.to_owned())]
    }

    #[test]
    fn whole_words_match_in_any_case() {
        assert_eq!(find(&["a b"], "x\nA  b."), one(2, "a b"));
        assert_eq!(find(&["a b"], "a bc, ca b, a. B, a-b, a, b"), []);
    }

    #[test]
    fn names_of_tests_match() {
        assert_eq!(find(&["a b"], "fn x_a_b_is_found()"), one(1, "a b"));
    }

    #[test]
    fn a_phrase_over_a_line_break_matches() {
        for text in [
            "a\nb",
            "/// a\n    /// b",
            "//! a\n//! b",
            "# a\n# b",
            "\"x a \\\n   b\"",
            "> a\n> b",
        ] {
            assert_eq!(find(&["a b"], text), one(1, "a b"), "{text}");
        }
        assert_eq!(find(&["a b"], "a.\nb\n\"a\",\n\"b\""), []);
    }

    #[test]
    fn the_list_is_valid_and_each_phrase_finds_itself() {
        let text = fs::read_to_string(workspace::root().join(LIST)).unwrap();
        let list: List = toml::from_str(&text).unwrap();
        let search = Search::new(&list);
        for phrase in list.phrases.keys() {
            assert!(
                search.find(phrase).iter().any(|finding| finding.phrase == phrase),
                "{phrase}"
            );
        }
        for entry in &list.allowed {
            assert!(list.phrases.contains_key(&entry.phrase), "{}", entry.phrase);
        }
    }
}
