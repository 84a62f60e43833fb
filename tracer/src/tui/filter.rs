//! The filter of the list: terms named like the options of the command line (`port:30080 fate:dropped`), and plain words.

use std::{net::IpAddr, ops::RangeInclusive};

use super::{names::Names, row::Row};
use crate::finding::outcome::{CauseTerm, FateTerm, Words, nearest};

/// A parsed filter. A flow must match all terms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    terms: Vec<Term>,
    /// Whether only failures are listed.
    pub only_failures: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    is_not: bool,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Port(Vec<RangeInclusive<u16>>),
    Network(IpAddr, u8),
    Client(String),
    Service(Vec<String>),
    Fate(Vec<String>),
    Cause(Vec<String>),
    Drop(String),
    Word(String),
}

impl Filter {
    /// Parses a filter while it is typed: the beginning of a name matches every name that starts with it.
    #[must_use]
    pub fn parse(text: &str, only_failures: bool) -> Self {
        let terms = text.split_whitespace().filter_map(term).collect();
        Self { terms, only_failures }
    }

    /// Whether every flow matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty() && !self.only_failures
    }

    /// Whether the row matches.
    #[must_use]
    pub fn matches(&self, row: &Row, names: &Names) -> bool {
        (!self.only_failures || row.is_failure())
            && self
                .terms
                .iter()
                .all(|term| term.what.matches(row, names) != term.is_not)
    }
}

fn term(text: &str) -> Option<Term> {
    let (is_not, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let lower = text.to_lowercase();
    let (name, value) = lower.split_once([':', '=']).unwrap_or(("", &lower));
    let list = || {
        let words: Vec<String> = value
            .split(',')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        (!words.is_empty()).then_some(words)
    };
    let what = match name {
        "port" => What::Port(ports(value)),
        "client" => match network(value) {
            Some((ip, length)) => What::Network(ip, length),
            None if value.is_empty() => return None,
            None => What::Client(value.to_owned()),
        },
        "service" => What::Service(list()?),
        "fate" => What::Fate(list()?),
        "cause" => What::Cause(list()?),
        "drop" if value.is_empty() => return None,
        "drop" => What::Drop(value.to_owned()),
        _ if lower.is_empty() => return None,
        _ => What::Word(lower),
    };
    if what == What::Port(Vec::new()) {
        return None;
    }
    Some(Term { is_not, what })
}

/// The first word of a filter that no fate or cause begins with, with the nearest one; `None` if there is none.
#[must_use]
pub fn unknown(text: &str) -> Option<String> {
    let filter = Filter::parse(text, false);
    filter.terms.iter().find_map(|term| {
        let (what, words, known) = match &term.what {
            What::Fate(words) => ("fate", words, FateTerm::words()),
            What::Cause(words) => ("cause", words, CauseTerm::words()),
            _ => return None,
        };
        let is_known = |word: &str| {
            let mut known = known.iter();
            known.any(|known| known.starts_with(word) || what == "cause" && known.ends_with(word))
        };
        let word = words.iter().find(|word| !is_known(word))?;
        let meant = nearest(word, &known).map(|near| format!("; did you mean {near}?"));
        Some(format!("no {what} {word}{}", meant.unwrap_or_default()))
    })
}

fn ports(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first: u16 = first.parse().ok()?;
        Some(first..=last.parse().unwrap_or(first))
    };
    text.split(',').filter_map(range).collect()
}

/// An address, or a prefix with its length.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = text
        .split_once('/')
        .map_or((text, None), |(ip, length)| (ip, Some(length)));
    let ip: IpAddr = ip.parse().ok()?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(longest), |length| length.parse().ok())?;
    (length <= longest).then_some((ip, length))
}

fn contains(network: IpAddr, length: u8, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 4),
        IpAddr::V6(v6) => (v6.to_bits(), 6),
    };
    let ((network, family), (address, of)) = (bits(network), bits(address));
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or_default();
    family == of && network & mask == address & mask
}

impl What {
    fn matches(&self, row: &Row, names: &Names) -> bool {
        let begins = |words: &[String], name: &str| words.iter().any(|word| name.starts_with(word.as_str()));
        match self {
            Self::Port(ports) => ports.iter().any(|ports| ports.contains(&row.node_port)),
            Self::Network(ip, length) => contains(*ip, *length, row.client.ip()),
            Self::Client(text) => row.client().to_string().starts_with(text.as_str()),
            Self::Service(words) => {
                let service = names.text(row.service).to_lowercase();
                words.iter().any(|word| service.contains(word.as_str()))
            }
            Self::Fate(words) => {
                begins(words, row.fate.name())
                    || row.is_failure() && begins(words, &FateTerm::Failed.to_string())
            }
            Self::Cause(words) => row.cause.is_some_and(|cause| {
                words.iter().any(|word| {
                    cause.name().starts_with(word.as_str()) || cause.name().ends_with(word.as_str())
                })
            }),
            Self::Drop(text) => {
                !row.drop_site.is_none() && site(names.text(row.drop_site)).starts_with(text.as_str())
            }
            Self::Word(word) => has_word(row, names, word),
        }
    }
}

/// A drop site as a filter term: function, reason and rule, without spaces. A final dot marks the end, so that a site
/// without a rule can be selected.
#[must_use]
pub fn site(name: &str) -> String {
    let mut out = name.replace('\t', "/").replace(' ', "_").to_lowercase();
    out.push('.');
    out
}

fn has_word(row: &Row, names: &Names, word: &str) -> bool {
    let in_name = |name| contains_lower(names.text(name), word);
    row.fate.name().contains(word)
        || row.cause.is_some_and(|cause| cause.name().contains(word))
        || in_name(row.service)
        || in_name(row.node)
        || in_name(row.backend)
        || row.client().to_string().contains(word)
}

fn contains_lower(text: &str, word: &str) -> bool {
    text.contains(word)
        || text.bytes().any(|byte| byte.is_ascii_uppercase()) && text.to_lowercase().contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_nothing_begins_with_is_reported_with_the_nearest() {
        for known in [
            "",
            "web",
            "fate:failed",
            "fate:dr",
            "cause:ipvs",
            "cause:reuse-dropped",
            "port:x",
        ] {
            assert_eq!(unknown(known), None, "{known}");
        }
        assert_eq!(
            unknown("fate:stalld").as_deref(),
            Some("no fate stalld; did you mean stalled?")
        );
        assert_eq!(
            unknown("!cause:ipvs,ipsv").as_deref(),
            Some("no cause ipsv; did you mean ipvs?")
        );
        assert_eq!(unknown("cause:0").as_deref(), Some("no cause 0"));
    }
}
