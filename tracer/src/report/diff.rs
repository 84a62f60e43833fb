//! The difference between two recordings, before and after a change. Pure.

mod chance;
mod html;
mod side;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use self::{
    html::page,
    side::{Recorded, Side},
    text::text,
};

/// Below this probability, a difference is not put down to chance.
const SIGNIFICANT: f64 = 0.05;
/// The quantiles of the connect time, in percent.
const QUANTILES: [u8; 4] = [50, 90, 99, 100];

/// Two recordings compared.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// The recordings: before and after.
    pub sides: [Recorded; 2],
    /// All failures.
    pub failures: Change,
    /// Each fate that either side has.
    pub fates: Vec<Change>,
    /// Each cause that either side has, the largest change of its share first.
    pub causes: Vec<Change>,
    /// Time to connect of connections that were established, milliseconds.
    pub connect: Connect,
    /// Time lost, milliseconds.
    pub lost_ms: [f64; 2],
    /// Time lost per 1000 connections, milliseconds.
    pub lost_ms_per_1000: [f64; 2],
    /// How the probabilities were computed.
    pub test: &'static str,
    /// What weakens the comparison.
    pub doubts: Vec<String>,
}

/// How often an outcome occurred, before and after.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The fate, the cause, or `failed`.
    pub name: &'static str,
    /// Connections with it.
    pub flows: [u64; 2],
    /// Their share of all connections, percent.
    pub percent: [f64; 2],
    /// The probability of such a difference if the change had no effect.
    pub p: f64,
    /// Whether the difference is hardly chance.
    pub is_significant: bool,
    /// Whether it is `new`, `gone`, `more`, `less` or `same`.
    pub verdict: Verdict,
    /// The side on which the cause could not have been detected, as its hooks were not attached: 0 before, 1 after.
    pub undetectable: Vec<usize>,
}

/// How an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Only after.
    New,
    /// Only before.
    Gone,
    /// A larger share after.
    More,
    /// A smaller share after.
    Less,
    /// The same share.
    Same,
}

impl Verdict {
    /// The word on screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Gone => "gone",
            Self::More => "more",
            Self::Less => "less",
            Self::Same => "same",
        }
    }
}

/// The time to connect, before and after.
#[derive(Clone, Debug, Serialize)]
pub struct Connect {
    /// Quantiles: percent, and milliseconds before and after.
    pub quantiles: Vec<Quantile>,
    /// The probability of such a difference if the change had no effect; `null` with few connections.
    pub p: Option<f64>,
    /// Whether the difference is hardly chance.
    pub is_significant: bool,
}

/// A quantile of the time to connect.
#[derive(Clone, Debug, Serialize)]
pub struct Quantile {
    /// This percentage of connections took at most as long.
    pub percent: u8,
    /// Milliseconds before and after; `null` without connections.
    pub ms: [Option<f64>; 2],
}

impl Difference {
    /// Compares two recordings.
    #[must_use]
    pub fn of(before: &Side, after: &Side) -> Self {
        let sides = [before, after];
        let all = sides.map(Side::flows);
        let failures = change("failed", sides.map(Side::failures), all);
        let fates = sides.iter().flat_map(|side| side.fates().into_keys());
        let fates: Vec<Change> = fates
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|fate| change(fate.name(), sides.map(|side| count(&side.fates(), &fate)), all))
            .collect();
        let causes = sides.iter().flat_map(|side| side.causes().into_keys());
        let causes: Vec<Change> = causes
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|cause| {
                let mut change = change(cause.name(), sides.map(|side| count(&side.causes(), &cause)), all);
                let blind = (0..2).filter(|&at| sides[at].undetectable().contains(&cause));
                change.undetectable = blind.collect();
                change
            })
            .collect();
        let [mut one, mut other] = sides.map(Side::connect_ns);
        one.sort_unstable();
        other.sort_unstable();
        let p = chance::mann_whitney(&one, &other);
        let mut difference = Self {
            sides: sides.map(Side::recorded),
            failures,
            fates,
            causes,
            connect: Connect {
                quantiles: QUANTILES
                    .iter()
                    .map(|&percent| Quantile {
                        percent,
                        ms: [quantile(&one, percent), quantile(&other, percent)],
                    })
                    .collect(),
                p,
                is_significant: p.is_some_and(|p| p < SIGNIFICANT),
            },
            lost_ms: sides.map(Side::lost_ms),
            lost_ms_per_1000: sides.map(|side| per_1000(side.lost_ms(), side.flows())),
            test: "Fisher's exact test for each share (two-sided, Holm's correction for the number of rows in a table), \
                   Mann-Whitney for the time to connect. Both take connections as independent: of failures that come in \
                   bursts, they see more certainty than there is",
            doubts: doubts(before, after),
        };
        correct(&mut difference.fates);
        correct(&mut difference.causes);
        difference
            .causes
            .sort_by(|one, other| moved(other).total_cmp(&moved(one)));
        difference
    }

    /// The answer in one sentence.
    #[must_use]
    pub fn answer(&self) -> String {
        let Change {
            flows, percent, p, ..
        } = &self.failures;
        let [before, after] = [0, 1].map(|at| {
            let all = self.sides[at].flows;
            format!("{} of {all} ({:.1} %)", flows[at], percent[at])
        });
        let verdict = match self.failures.verdict {
            _ if self.sides.iter().any(|side| side.flows == 0) => "nothing to compare",
            Verdict::Same => "no difference",
            _ if !self.failures.is_significant => "the difference can be chance",
            Verdict::New | Verdict::More => "more, hardly by chance",
            Verdict::Gone | Verdict::Less => "less, hardly by chance",
        };
        format!(
            "Failed or delayed: {before} before, {after} after: {verdict} ({}).",
            probability(*p)
        )
    }
}

/// A probability as text.
fn probability(p: f64) -> String {
    if p < 0.001 {
        "p < 0.001".to_owned()
    } else {
        format!("p = {p:.3}")
    }
}

fn count<K: Ord>(counts: &BTreeMap<K, u64>, key: &K) -> u64 {
    counts.get(key).copied().unwrap_or_default()
}

fn change(name: &'static str, flows: [u64; 2], all: [u64; 2]) -> Change {
    let percent = [0, 1].map(|at| per_1000(as_f64(flows[at]), all[at]) / 10.0);
    let p = chance::fisher(flows, all);
    let verdict = match flows {
        [0, 0] => Verdict::Same,
        [0, _] => Verdict::New,
        [_, 0] => Verdict::Gone,
        _ if percent[1] > percent[0] => Verdict::More,
        _ if percent[1] < percent[0] => Verdict::Less,
        _ => Verdict::Same,
    };
    Change {
        name,
        flows,
        percent,
        p,
        is_significant: p < SIGNIFICANT,
        verdict,
        undetectable: Vec::new(),
    }
}

/// Corrects the probabilities of a table for its number of rows.
fn correct(changes: &mut [Change]) {
    let found: Vec<f64> = changes.iter().map(|change| change.p).collect();
    for (change, p) in changes.iter_mut().zip(chance::holm(&found)) {
        change.p = p;
        change.is_significant = p < SIGNIFICANT;
    }
}

/// By how much a share moved, percentage points.
fn moved(change: &Change) -> f64 {
    (change.percent[1] - change.percent[0]).abs()
}

/// The value that this percentage of sorted values does not exceed, milliseconds.
fn quantile(sorted_ns: &[u64], percent: u8) -> Option<f64> {
    let rank = (sorted_ns.len() * usize::from(percent)).div_ceil(100);
    let value = sorted_ns.get(rank.saturating_sub(1))?;
    Some(crate::finding::clock::milliseconds(*value))
}

fn per_1000(sum: f64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { sum * 1000.0 / as_f64(all) }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of flows are far below 2^53")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// What weakens the comparison.
fn doubts(before: &Side, after: &Side) -> Vec<String> {
    let mut out = Vec::new();
    let [one, other] = [before, after].map(Side::recorded);
    if one.host != other.host {
        out.push(format!("Different hosts: {} and {}.", one.host, other.host));
    }
    if one.kernel != other.kernel {
        out.push(format!("Different kernels: {} and {}.", one.kernel, other.kernel));
    }
    if before.ports() != after.ports() {
        out.push("Different ports were traced.".to_owned());
    }
    for (side, when) in [(before, "before"), (after, "after")] {
        let lost = side.recorded().lost;
        if lost != 0 {
            out.push(format!(
                "{} lost {when}: fates may be wrong.",
                crate::diagnose::words::count(lost, "record")
            ));
        }
        if side.evicted() != 0 {
            out.push(format!(
                "{} evicted {when}.",
                crate::diagnose::words::count(side.evicted(), "flow")
            ));
        }
        out.extend(side.damage().iter().map(|what| format!("Incomplete: {what}.")));
    }
    out
}

#[cfg(test)]
mod tests;
