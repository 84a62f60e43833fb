//! Collects the flows of recordings and sums them up.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Host, Summary,
    brief::Brief,
    cause::{CauseSummary, Example},
    flows::{Flows, description},
    over_time::OverTime,
    places::Places,
    several::{Connection, Connections, Several},
};
use crate::{
    diagnose::cause::Cause,
    finding::{
        Finding,
        clock::{milliseconds, rfc3339},
        run::End,
        selection::Candidate,
    },
    flow::rank::Evicted,
    report::joined::Key,
};

/// The most lines of damage kept: there may be hundreds of damaged files.
const MOST_DAMAGE: usize = 100;

/// Collects flows. The last report of a flow counts.
#[derive(Debug, Default)]
pub struct Collection {
    flows: Flows,
    /// Name and kernel of each host.
    hosts: BTreeSet<(String, String)>,
    records: u64,
    lost: u64,
    evicted: Evicted,
    damage: Vec<String>,
}

impl Collection {
    /// A collection for several runs: a connection that more than one of them saw is counted once.
    #[must_use]
    pub fn of_several() -> Self {
        Self {
            flows: Flows::of_several(),
            ..Self::default()
        }
    }

    /// Starts the next run.
    pub fn begin(&mut self, host: &str, kernel: &str) {
        self.flows.hosts.push(host.to_owned());
        self.hosts.insert((host.to_owned(), kernel.to_owned()));
    }

    /// The recording is damaged or truncated.
    pub fn damage(&mut self, what: &str) {
        if self.damage.len() < MOST_DAMAGE {
            self.damage.push(what.to_owned());
        }
    }

    /// A flow's fate is known, or has changed.
    pub fn add(&mut self, finding: &Finding<'_>) {
        self.flows.add(finding);
    }

    /// Ends a run with its counters.
    pub fn end(&mut self, end: &End) {
        self.records = self.records.saturating_add(end.events);
        self.lost = self.lost.saturating_add(end.lost);
        self.evicted.add(&end.evicted);
    }

    /// Sums up all flows.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary_of(&|_| true)
    }

    /// The number of connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        let connections = Connections::of(&self.flows, &|_| true);
        let view = View {
            flows: &self.flows,
            connections: &connections,
            selects: &|_| true,
        };
        view.in_order().len()
    }

    /// Sums up the selected connections.
    #[must_use]
    pub fn summary_of(&self, selects: &dyn Fn(&Candidate<'_>) -> bool) -> Summary {
        let connections = Connections::of(&self.flows, selects);
        let view = View {
            flows: &self.flows,
            connections: &connections,
            selects,
        };
        let in_order = view.in_order();
        let mut by_fate = BTreeMap::new();
        for (_, brief) in &in_order {
            *by_fate.entry(brief.fate).or_default() += 1;
        }
        let causes = view.causes(&in_order);
        let mut by_clients: Vec<&CauseSummary> = causes.iter().collect();
        by_clients.sort_by_key(|summary| std::cmp::Reverse((summary.clients, summary.lost_ns)));
        let briefs = || in_order.iter().map(|(_, brief)| *brief);
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
            failures: count(briefs().filter(|brief| brief.is_failure())),
            clients: briefs()
                .map(|brief| brief.client.ip())
                .collect::<BTreeSet<_>>()
                .len(),
            records: self.records,
            lost: self.lost,
            evicted: self.evicted.clone(),
            by_fate,
            by_clients: by_clients.iter().map(|summary| summary.cause).collect(),
            causes,
            over_time: OverTime::of(briefs()),
            places: Places::of(briefs()),
            damage: self.damage.clone(),
            only: None,
            all_flows: None,
            options: String::new(),
            probes_skipped: count(briefs().filter(|brief| brief.probes_skipped)),
            several: Several::of(&self.flows, connections),
        }
    }
}

fn count(of: impl Iterator) -> u64 {
    u64::try_from(of.count()).unwrap_or(u64::MAX)
}

/// The subject of a summary.
struct View<'a> {
    flows: &'a Flows,
    connections: &'a Connections,
    selects: &'a dyn Fn(&Candidate<'_>) -> bool,
}

impl<'a> View<'a> {
    /// The selected flows by their start; of each connection the one on the node that the client contacted.
    fn in_order(&self) -> Vec<(Key, &'a Brief)> {
        let briefs = self.flows.briefs.iter();
        let mut in_order: Vec<(Key, &Brief)> = briefs
            .map(|(key, brief)| (*key, brief))
            .filter(|(key, brief)| self.has(*key, brief))
            .collect();
        in_order.sort_by_key(|(_, brief)| brief.start);
        in_order
    }

    fn has(&self, key: Key, brief: &Brief) -> bool {
        match self.connections.of_flow(key) {
            Some(connection) => connection.is_selected && connection.first() == key,
            None => (self.selects)(&brief.candidate(brief.cause)),
        }
    }

    /// The causes by the time they cost.
    fn causes(&self, in_order: &[(Key, &Brief)]) -> Vec<CauseSummary> {
        let mut causes: BTreeMap<Cause, CauseSummary> = BTreeMap::new();
        let mut clients = BTreeMap::<Cause, BTreeSet<IpAddr>>::new();
        let mut losses = BTreeMap::<Cause, Vec<u64>>::new();
        for (key, brief) in in_order {
            let connection = self.connections.of_flow(*key);
            let cause = connection.map_or(brief.cause, |connection| connection.verdict.cause);
            let Some(cause) = cause else { continue };
            let mut own = brief.own_lost_ns();
            for (other, lost) in brief.others() {
                // On another node this may be the cause of the whole connection.
                if other == cause {
                    own = own.saturating_add(lost);
                    continue;
                }
                let summary = causes
                    .entry(other)
                    .or_insert_with(|| CauseSummary::new(other, brief, self.example(other, (*key, brief))));
                summary.add_part(brief, lost);
                clients.entry(other).or_default().insert(brief.client.ip());
                losses.entry(other).or_default().push(lost);
            }
            let summary = causes
                .entry(cause)
                .or_insert_with(|| CauseSummary::new(cause, brief, self.example(cause, (*key, brief))));
            summary.add(brief, own);
            if self.flows.is_several() {
                let decisive = connection.map_or(*key, Connection::decisive);
                summary.found_on(self.flows.host(decisive));
            }
            clients.entry(cause).or_default().insert(brief.client.ip());
            losses.entry(cause).or_default().push(own);
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
        causes
    }

    /// The first flow with this cause whose explanation is kept. If there is none, `first` with the cause's description.
    fn example(&self, cause: Cause, first: (Key, &Brief)) -> Example {
        let mut kept = self.flows.examples(cause).filter_map(|(key, brief, kept)| {
            let advice = kept.advice.as_deref().map(str::to_owned);
            let Some(connection) = self.connections.of_flow(key) else {
                let is_selected = (self.selects)(&brief.candidate(brief.cause));
                return is_selected.then(|| (key, brief, kept.explanation.to_string(), advice));
            };
            let is_this = connection.is_selected
                && connection.decisive() == key
                && connection.verdict.cause == Some(cause);
            let explanation = is_this.then(|| connection.explanation(self.flows))?;
            let first = connection.first();
            Some((first, self.flows.briefs.get(&first)?, explanation, advice))
        });
        let ((_, flow), brief, explanation, advice) = kept.next().unwrap_or_else(|| {
            let (key, brief) = first;
            let explanation = match self.connections.of_flow(key) {
                Some(connection) => connection.explanation(self.flows),
                None => description(cause),
            };
            (key, brief, explanation, None)
        });
        Example {
            // Each of several runs has its own numbers.
            flow: (!self.flows.is_several()).then_some(flow),
            client: brief.client.to_string(),
            node: brief.to.node.to_string(),
            explanation,
            advice,
        }
    }
}
