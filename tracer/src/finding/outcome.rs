//! Words that select flows by their outcome: a fate, `failed`, a cause, or a family of causes.

use std::{fmt, str::FromStr};

use crate::{
    diagnose::{self, cause::Cause},
    flow::fate::Fate,
};

/// The word for every failure, whatever its fate.
const FAILED: &str = "failed";
/// How similar a word must be to be suggested, from 0 to 1.
const SIMILAR: f64 = 0.7;

/// The words of an option, for its errors and for completion.
pub trait Words: FromStr<Err = String> {
    /// Every word.
    fn words() -> Vec<&'static str>;
}

/// Flows with a fate, or all failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FateTerm {
    /// Flows with this fate.
    Fate(Fate),
    /// Flows that failed, were delayed or were misdirected.
    Failed,
}

/// Flows with a cause, or with any cause of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseTerm {
    /// Flows with this cause.
    Cause(Cause),
    /// Flows with a cause of this family, for example `ipvs`.
    Family(&'static str),
}

/// Flows with a fate or a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By their fate.
    Fate(FateTerm),
    /// By their cause.
    Cause(CauseTerm),
}

impl FateTerm {
    /// Whether a flow with this fate and cause is meant.
    #[must_use]
    pub fn matches(self, fate: Fate, cause: Option<Cause>) -> bool {
        match self {
            Self::Fate(wanted) => wanted == fate,
            Self::Failed => diagnose::is_failure(fate, cause),
        }
    }
}

impl CauseTerm {
    /// Whether a flow with this cause is meant.
    #[must_use]
    pub fn matches(self, cause: Option<Cause>) -> bool {
        cause.is_some_and(|cause| match self {
            Self::Cause(wanted) => wanted == cause,
            Self::Family(family) => cause.family() == Some(family),
        })
    }

    /// The causes that are meant, in the order of the documentation.
    pub fn causes(self) -> impl Iterator<Item = Cause> {
        Cause::ALL
            .iter()
            .copied()
            .filter(move |&cause| self.matches(Some(cause)))
    }
}

impl Outcome {
    /// Whether a flow with this fate and cause is meant.
    #[must_use]
    pub fn matches(self, fate: Fate, cause: Option<Cause>) -> bool {
        match self {
            Self::Fate(term) => term.matches(fate, cause),
            Self::Cause(term) => term.matches(cause),
        }
    }
}

impl Words for FateTerm {
    fn words() -> Vec<&'static str> {
        let fates = Fate::ALL.iter().map(|fate| fate.name());
        fates.chain([FAILED]).collect()
    }
}

impl Words for CauseTerm {
    fn words() -> Vec<&'static str> {
        let mut words: Vec<&'static str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        for family in Cause::ALL.iter().filter_map(|cause| cause.family()) {
            if !words.contains(&family) {
                words.push(family);
            }
        }
        words
    }
}

impl Words for Outcome {
    fn words() -> Vec<&'static str> {
        [FateTerm::words(), CauseTerm::words()].concat()
    }
}

impl FromStr for FateTerm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == FAILED {
            return Ok(Self::Failed);
        }
        let fate = Fate::ALL.iter().find(|fate| fate.name() == text);
        let list = || format!("give {}", Self::words().join(", "));
        fate.map(|fate| Self::Fate(*fate))
            .ok_or_else(|| format!("not a fate; {}", meant::<Self>(text).unwrap_or_else(list)))
    }
}

impl FromStr for CauseTerm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(cause) = Cause::ALL.iter().find(|cause| cause.name() == text) {
            return Ok(Self::Cause(*cause));
        }
        let family = text.strip_suffix('.').unwrap_or(text);
        let mut families = Cause::ALL.iter().filter_map(|cause| cause.family());
        let list = || "`tracer causes` lists them".to_owned();
        families
            .find(|known| *known == family)
            .map(Self::Family)
            .ok_or_else(|| format!("not a cause; {}", meant::<Self>(text).unwrap_or_else(list)))
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(term) = text.parse() {
            return Ok(Self::Fate(term));
        }
        let list = || "give a fate such as stalled, a cause such as ipvs.reuse-dropped, or failed".to_owned();
        text.parse().map(Self::Cause).map_err(|_| {
            format!(
                "neither a fate nor a cause; {}",
                meant::<Self>(text).unwrap_or_else(list)
            )
        })
    }
}

/// The question whether the nearest word was meant; `None` if no word is near.
fn meant<T: Words>(text: &str) -> Option<String> {
    let word = nearest(text, &T::words())?;
    Some(format!("did you mean `{word}`?"))
}

/// The most similar word; `None` if none is similar.
#[must_use]
pub fn nearest(text: &str, words: &[&'static str]) -> Option<&'static str> {
    let text = text.to_lowercase();
    let near = words
        .iter()
        .map(|word| (strsim::jaro_winkler(&text, word), *word));
    let (_, word) = near
        .filter(|(similar, _)| *similar > SIMILAR)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    Some(word)
}

impl fmt::Display for FateTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fate(fate) => fate.fmt(f),
            Self::Failed => f.write_str(FAILED),
        }
    }
}

impl fmt::Display for CauseTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cause(cause) => cause.fmt(f),
            Self::Family(family) => f.write_str(family),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fate(term) => term.fmt(f),
            Self::Cause(term) => term.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_and_printed_unchanged() {
        for word in Outcome::words() {
            let outcome: Outcome = word.parse().expect(word);
            assert_eq!(outcome.to_string(), word);
        }
        assert_eq!("ipvs.".parse(), Ok(CauseTerm::Family("ipvs")));
    }

    #[test]
    fn a_family_is_all_its_causes_and_no_others() {
        let family: CauseTerm = "tcp".parse().expect("a family");
        assert!(family.matches(Some(Cause::TcpNoListener)));
        assert!(!family.matches(Some(Cause::IpvsReuseDropped)) && !family.matches(None));
        assert!(family.causes().count() > 3);
    }

    #[test]
    fn failed_includes_established_flows_that_were_misdirected() {
        let failed: FateTerm = "failed".parse().expect("a word");
        assert!(failed.matches(Fate::Stalled, None));
        assert!(failed.matches(Fate::Established, Some(Cause::ConntrackPinned)));
        assert!(!failed.matches(Fate::Established, None) && !failed.matches(Fate::Pending, None));
    }

    #[test]
    fn an_unknown_word_is_an_error_with_the_nearest_word() {
        let error = |text: &str| text.parse::<Outcome>().expect_err(text);
        assert_eq!(
            error("stalld"),
            "neither a fate nor a cause; did you mean `stalled`?"
        );
        assert!(
            "ipvs.reuse-droped"
                .parse::<CauseTerm>()
                .is_err_and(|error| { error == "not a cause; did you mean `ipvs.reuse-dropped`?" })
        );
        assert!(
            error("xyzzy").contains("give a fate such as"),
            "{}",
            error("xyzzy")
        );
        assert!(
            "lost"
                .parse::<FateTerm>()
                .is_err_and(|error| error.starts_with("not a fate; "))
        );
    }
}
