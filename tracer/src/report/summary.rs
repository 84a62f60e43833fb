//! What happened, over many flows: fates, causes by what they cost, and whom they hit. Pure.

mod cause;
mod over_time;
mod places;
pub(in crate::report) mod several;
pub(in crate::report) mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use jiff::Timestamp;
use serde::Serialize;

use self::several::Together;
use super::joined::{Key, Sight};
use crate::{
    diagnose::{Diagnosis, catalogue, cause::Cause},
    facts::Facts,
    finding::{
        clock::{Clock, milliseconds, rfc3339},
        selection::Candidate,
    },
    flow::{fate::Fate, model::Flow},
};

pub use cause::{CauseSummary, Example, Names};
pub use over_time::{Bin, OverTime};
pub use places::{Place, Places, Ranking};
pub use several::{Otherwise, SaidOn, SeenOn, Several};
pub use text::{sentences, text};

/// So many flows of each cause are kept to tell of: what is told of the first one may change.
const MOST_EXAMPLES: usize = 16;

/// What is kept of one flow: little, for there may be millions.
#[derive(Clone, Debug)]
struct Brief {
    start: Timestamp,
    fate: Fate,
    cause: Option<Cause>,
    lost_ns: u64,
    client: SocketAddr,
    to: Arc<To>,
    probes_skipped: bool,
}

/// Where flows went. Many went to the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct To {
    node: SocketAddr,
    service: Option<String>,
    backend: Option<SocketAddr>,
}

/// Collects flows. What is said last about a flow stands.
#[derive(Debug, Default)]
pub struct Collection {
    flows: BTreeMap<Key, Brief>,
    /// Where they went.
    to: BTreeSet<Arc<To>>,
    /// What happened to the first flows of each cause.
    examples: BTreeMap<Cause, BTreeMap<(Timestamp, Key), Box<str>>>,
    run: usize,
    /// The host of each run, from run 1 on.
    runs: Vec<String>,
    /// What joins flows of several runs, if there are several.
    sights: Option<BTreeMap<Key, Sight>>,
    hosts: BTreeSet<(String, String)>,
    patience_ns: u64,
    records: u64,
    lost: u64,
    damage: Vec<String>,
}

/// So much damage is told of: hundreds of files may each have some.
const MOST_DAMAGE: usize = 100;

impl Collection {
    /// Of several runs, which may have seen the same connections: those are counted once.
    #[must_use]
    pub fn of_several() -> Self {
        Self {
            sights: Some(BTreeMap::new()),
            ..Self::default()
        }
    }

    /// What follows is of another run of the tracer.
    pub fn begin(&mut self, host: &str, kernel: &str, patience_ns: u64) {
        self.run += 1;
        self.runs.push(host.to_owned());
        self.hosts.insert((host.to_owned(), kernel.to_owned()));
        self.patience_ns = patience_ns;
    }

    /// Something is wrong with a recording.
    pub fn damage(&mut self, what: &str) {
        if self.damage.len() < MOST_DAMAGE {
            self.damage.push(what.to_owned());
        }
    }

    /// A flow's fate is known, or has changed.
    pub fn add(&mut self, flow: &Flow, fate: Fate, diagnosis: &Diagnosis, facts: &Facts, clock: &Clock) {
        let key = (self.run, flow.id);
        let brief = Brief {
            start: clock.at(flow.start_ns()),
            fate,
            cause: diagnosis.cause,
            lost_ns: lost_ns(flow, fate, self.patience_ns),
            client: flow.client(),
            to: self.to(To {
                node: flow.node(),
                service: facts.service(flow.netns, flow.node()).map(str::to_owned),
                backend: flow.backend(),
            }),
            probes_skipped: flow.steps.iter().any(|step| step.probes_skipped),
        };
        if let Some(before) = self.flows.get(&key)
            && before.cause != brief.cause
            && let Some(examples) = before.cause.and_then(|cause| self.examples.get_mut(&cause))
        {
            examples.remove(&(before.start, key));
        }
        if let Some(cause) = brief.cause {
            let examples = self.examples.entry(cause).or_default();
            examples.insert((brief.start, key), diagnosis.explanation.as_str().into());
            if examples.len() > MOST_EXAMPLES {
                examples.pop_last();
            }
        }
        if let Some(sights) = &mut self.sights {
            sights.insert(key, Sight::of(flow, clock));
        }
        self.flows.insert(key, brief);
    }

    fn to(&mut self, to: To) -> Arc<To> {
        if let Some(known) = self.to.get(&to) {
            return Arc::clone(known);
        }
        let to = Arc::new(to);
        self.to.insert(Arc::clone(&to));
        to
    }

    /// What happened to the first flow with this cause of which that is kept; if it is of none, to this one, as far as that
    /// can be said of any.
    fn example(&self, cause: Cause, first: (Key, &Brief), view: &Shown<'_>) -> Example {
        let kept = self.examples.get(&cause).into_iter().flatten();
        let mut kept = kept.filter_map(|((_, key), said)| {
            let brief = self.flows.get(key)?;
            let Some(connection) = view.together.connection(*key) else {
                let is_wanted = (view.wanted)(&candidate(brief, brief.cause));
                return is_wanted.then(|| (*key, brief, said.to_string()));
            };
            let is_this = connection.is_wanted
                && connection.telling() == *key
                && connection.verdict.cause == Some(cause);
            let words = is_this.then(|| self.explanation(view.together, connection))?;
            let first = connection.first();
            Some((first, self.flows.get(&first)?, words))
        });
        let ((_, flow), brief, explanation) = kept.next().unwrap_or_else(|| {
            let (key, brief) = first;
            let words = match view.together.connection(key) {
                Some(connection) => self.explanation(view.together, connection),
                None => catalogue::row(cause).map_or("", |row| row.summary).to_owned(),
            };
            (key, brief, words)
        });
        Example {
            // Of several runs each has its own numbers.
            flow: self.sights.is_none().then_some(flow),
            client: brief.client.to_string(),
            node: brief.to.node.to_string(),
            explanation,
        }
    }

    /// A run has ended.
    pub fn end(&mut self, records: u64, lost: u64) {
        self.records = self.records.saturating_add(records);
        self.lost = self.lost.saturating_add(lost);
    }

    /// What happened.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary_of(&|_| true)
    }

    /// What happened to those connections that are wanted.
    #[must_use]
    pub fn summary_of(&self, wanted: &dyn Fn(&Candidate<'_>) -> bool) -> Summary {
        let together = Together::of(self, wanted);
        let view = Shown {
            wanted,
            together: &together,
        };
        let mut fates = BTreeMap::new();
        let mut causes: BTreeMap<Cause, CauseSummary> = BTreeMap::new();
        let mut clients = BTreeMap::<Cause, BTreeSet<IpAddr>>::new();
        let mut losses = BTreeMap::<Cause, Vec<u64>>::new();
        let mut in_order: Vec<(Key, &Brief)> = self.flows.iter().map(|(key, brief)| (*key, brief)).collect();
        in_order.retain(|(key, brief)| view.has(*key, brief));
        in_order.sort_by_key(|(_, brief)| brief.start);
        for (key, brief) in &in_order {
            *fates.entry(brief.fate).or_default() += 1;
            let connection = together.connection(*key);
            let cause = connection.map_or(brief.cause, |connection| connection.verdict.cause);
            let Some(cause) = cause else { continue };
            let summary = causes.entry(cause).or_insert_with(|| {
                CauseSummary::new(cause, brief, self.example(cause, (*key, brief), &view))
            });
            summary.add(brief);
            if self.sights.is_some() {
                let telling = connection.map_or(*key, several::Connection::telling);
                summary.found_on(self.host(telling));
            }
            clients.entry(cause).or_default().insert(brief.client.ip());
            losses.entry(cause).or_default().push(brief.lost_ns);
        }
        let mut causes: Vec<CauseSummary> = causes.into_values().collect();
        for summary in &mut causes {
            summary.clients = clients.get(&summary.cause).map_or(0, BTreeSet::len);
            if let Some(losses) = losses.get_mut(&summary.cause) {
                losses.sort_unstable();
                summary.median_lost_ms = losses
                    .get(losses.len() / 2)
                    .map_or(0.0, |&lost| milliseconds(lost));
            }
        }
        causes.sort_by_key(|summary| std::cmp::Reverse((summary.lost_ns, summary.clients, summary.flows)));
        let mut by_clients: Vec<&CauseSummary> = causes.iter().collect();
        by_clients.sort_by_key(|summary| std::cmp::Reverse((summary.clients, summary.lost_ns)));
        Summary {
            hosts: self
                .hosts
                .iter()
                .map(|(host, kernel)| Host {
                    host: host.clone(),
                    kernel: kernel.clone(),
                })
                .collect(),
            first: in_order.first().map(|(_, brief)| rfc3339(brief.start)),
            last: in_order.last().map(|(_, brief)| rfc3339(brief.start)),
            flows: in_order.len(),
            clients: in_order
                .iter()
                .map(|(_, brief)| brief.client.ip())
                .collect::<BTreeSet<_>>()
                .len(),
            records: self.records,
            lost: self.lost,
            by_fate: fates,
            by_clients: by_clients.iter().map(|summary| summary.cause).collect(),
            causes,
            over_time: OverTime::of(in_order.iter().map(|(_, brief)| (brief.start, brief.fate))),
            places: Places::of(in_order.iter().map(|(_, brief)| *brief)),
            damage: self.damage.clone(),
            only: None,
            probes_skipped: count(in_order.iter().filter(|(_, brief)| brief.probes_skipped)),
            several: Several::of(self, together),
        }
    }

    /// The host of a flow.
    fn host(&self, (run, _): Key) -> &str {
        let name = run.checked_sub(1).and_then(|run| self.runs.get(run));
        name.map_or("", String::as_str)
    }
}

/// Which flows a summary is about.
struct Shown<'a> {
    wanted: &'a dyn Fn(&Candidate<'_>) -> bool,
    together: &'a Together,
}

impl Shown<'_> {
    /// Is this flow one of them, and the one of its connection that counts?
    fn has(&self, key: Key, brief: &Brief) -> bool {
        match self.together.connection(key) {
            Some(connection) => connection.is_wanted && connection.first() == key,
            None => (self.wanted)(&candidate(brief, brief.cause)),
        }
    }
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Where it was recorded.
    pub hosts: Vec<Host>,
    /// Start of the first flow.
    pub first: Option<String>,
    /// Start of the last flow.
    pub last: Option<String>,
    /// How many flows there were.
    pub flows: usize,
    /// How many clients.
    pub clients: usize,
    /// Records of the kernel's.
    pub records: u64,
    /// Records that were lost.
    pub lost: u64,
    /// Flows by fate.
    pub by_fate: BTreeMap<Fate, u64>,
    /// Causes, by the time that they cost.
    pub causes: Vec<CauseSummary>,
    /// Causes, by the clients that they hit.
    pub by_clients: Vec<Cause>,
    /// Flows by the time of their start.
    pub over_time: OverTime,
    /// Flows by service, NodePort, backend, client and source port.
    pub places: Places,
    /// Flows on whose way the kernel skipped probes.
    pub probes_skipped: u64,
    /// What was asked for, in the words of a filter, if not everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// What is wrong with the recordings, each with the file's name: what is said may not be all.
    pub damage: Vec<String>,
    /// Of several runs: the connections that more than one saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub several: Option<Several>,
}

impl Summary {
    /// The hosts, each once.
    #[must_use]
    pub fn host_names(&self) -> String {
        let mut names: Vec<&str> = self.hosts.iter().map(|host| host.host.as_str()).collect();
        names.dedup();
        names.join(", ")
    }

    /// What is said where no cause is told. Of no flow at all nothing can be said: it may have been filtered out, or be in a
    /// part of the recording that is damaged.
    #[must_use]
    pub fn without_cause(&self) -> String {
        match (self.flows, &self.only) {
            (0, None) => "There is no flow in it: whether something went wrong cannot be said.".to_owned(),
            (0, Some(only)) => format!("No flow in it is as asked for ({only})."),
            (_, None) => "Nothing went wrong.".to_owned(),
            (_, Some(only)) => format!("Nothing went wrong in the flows that were asked for ({only})."),
        }
    }

    /// Flows that did not go well.
    #[must_use]
    pub fn not_well(&self) -> u64 {
        not_well(&self.by_fate)
    }
}

/// So many flows of these did not go well.
fn not_well(by_fate: &BTreeMap<Fate, u64>) -> u64 {
    by_fate
        .iter()
        .filter(|(fate, _)| fate.is_bad())
        .map(|(_, count)| count)
        .sum()
}

fn count(of: impl Iterator) -> u64 {
    u64::try_from(of.count()).unwrap_or(u64::MAX)
}

/// A host and its kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// Its name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
}

/// What a flow that did not go well cost its client, at least: a stall what had to be sent again, a refusal the time
/// until it came, all else the time for which nothing came, up to the end of tracer's patience. Nanoseconds.
#[must_use]
pub fn lost_ns(flow: &Flow, fate: Fate, patience_ns: u64) -> u64 {
    match fate {
        Fate::Established | Fate::Pending => 0,
        Fate::Stalled => flow.stall_ns().unwrap_or(0),
        Fate::Refused => flow.refused_ns.unwrap_or(0).saturating_sub(flow.start_ns()),
        Fate::Dropped | Fate::Unanswered => flow
            .last_syn_ns()
            .saturating_sub(flow.start_ns())
            .saturating_add(patience_ns),
    }
}

/// What a selection looks at in a connection.
fn candidate(brief: &Brief, cause: Option<Cause>) -> Candidate<'_> {
    Candidate {
        client: brief.client,
        node: brief.to.node,
        service: brief.to.service.as_deref(),
        fate: brief.fate,
        cause,
    }
}
