//! The flows of all runs, as the summary keeps them. The last report of a flow counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::brief::{Brief, Destination};
use crate::{
    diagnose::{Diagnosis, catalogue, cause::Cause},
    finding::Finding,
    report::joined::{Fingerprint, Key},
};

/// The most flows of each cause whose explanation is kept: the last report of the first flow may have another cause.
const MOST_EXAMPLES: usize = 16;

/// The flows of all runs.
#[derive(Debug, Default)]
pub(super) struct Flows {
    pub(super) briefs: BTreeMap<Key, Brief>,
    destinations: BTreeSet<Arc<Destination>>,
    /// The first flows of each cause.
    examples: BTreeMap<Cause, BTreeMap<(Timestamp, Key), Kept>>,
    /// The host of each run, from run 1 on.
    pub(super) hosts: Vec<String>,
    /// With several runs, what identifies flows of the same connection.
    pub(super) fingerprints: Option<BTreeMap<Key, Fingerprint>>,
}

impl Flows {
    /// Flows of several runs.
    pub(super) fn of_several() -> Self {
        Self {
            fingerprints: Some(BTreeMap::new()),
            ..Self::default()
        }
    }

    /// Whether there are several runs.
    pub(super) fn is_several(&self) -> bool {
        self.fingerprints.is_some()
    }

    /// Adds a flow, in place of its last report.
    pub(super) fn add(&mut self, finding: &Finding<'_>) {
        let flow = finding.flow;
        let key = (self.hosts.len(), flow.id);
        let brief = Brief {
            start: finding.clock.at(flow.start_ns()),
            fate: finding.fate,
            cause: finding.diagnosis.cause,
            lost_ns: finding.lost_ns(),
            others: others(finding.diagnosis),
            client: flow.client(),
            to: self.shared(Destination {
                node: flow.node(),
                service: finding.service().map(str::to_owned),
                backend: flow.backend(),
            }),
            probes_skipped: flow.steps.iter().any(|step| step.probes_skipped),
        };
        if let Some(before) = self.briefs.get(&key)
            && before.cause != brief.cause
            && let Some(examples) = before.cause.and_then(|cause| self.examples.get_mut(&cause))
        {
            examples.remove(&(before.start, key));
        }
        if let Some(cause) = brief.cause {
            let examples = self.examples.entry(cause).or_default();
            let kept = Kept {
                explanation: finding.diagnosis.explanation.as_str().into(),
                advice: finding.diagnosis.advice.as_deref().map(Into::into),
            };
            examples.insert((brief.start, key), kept);
            if examples.len() > MOST_EXAMPLES {
                examples.pop_last();
            }
        }
        if let Some(fingerprints) = &mut self.fingerprints {
            fingerprints.insert(key, Fingerprint::of(finding));
        }
        self.briefs.insert(key, brief);
    }

    fn shared(&mut self, to: Destination) -> Arc<Destination> {
        if let Some(known) = self.destinations.get(&to) {
            return Arc::clone(known);
        }
        let to = Arc::new(to);
        self.destinations.insert(Arc::clone(&to));
        to
    }

    /// The host of a flow.
    pub(super) fn host(&self, (run, _): Key) -> &str {
        let name = run.checked_sub(1).and_then(|run| self.hosts.get(run));
        name.map_or("", String::as_str)
    }

    /// The first flows of a cause, of which explanation and advice are kept.
    pub(super) fn examples(&self, cause: Cause) -> impl Iterator<Item = (Key, &Brief, &Kept)> {
        let kept = self.examples.get(&cause).into_iter().flatten();
        kept.filter_map(|((_, key), kept)| Some((*key, self.briefs.get(key)?, kept)))
    }

    /// The explanation of a flow with this cause if it is kept, or else the description of the cause.
    pub(super) fn explanation(&self, key: Key, cause: Option<Cause>) -> String {
        let Some(cause) = cause else {
            return "The handshake finished at the first attempt.".to_owned();
        };
        let kept = self.briefs.get(&key).and_then(|brief| {
            let examples = self.examples.get(&cause)?;
            examples.get(&(brief.start, key))
        });
        kept.map_or_else(|| description(cause), |kept| kept.explanation.to_string())
    }
}

/// What is kept of a flow beside its [`Brief`].
#[derive(Debug)]
pub(super) struct Kept {
    /// What happened to it, and why.
    pub(super) explanation: Box<str>,
    /// What to do.
    pub(super) advice: Option<Box<str>>,
}

/// The time lost to other causes than the flow's own.
fn others(diagnosis: &Diagnosis) -> Option<Box<[(Cause, u64)]>> {
    let lost = diagnosis.lost_by_cause().into_iter();
    let others: Box<[(Cause, u64)]> = lost
        .filter(|(cause, lost)| Some(*cause) != diagnosis.cause && *lost > 0)
        .collect();
    (!others.is_empty()).then_some(others)
}

/// The catalogue's entry for a cause.
pub(super) fn description(cause: Cause) -> String {
    catalogue::row(cause).map_or("", |row| row.summary).to_owned()
}
