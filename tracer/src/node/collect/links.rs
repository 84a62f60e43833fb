//! When the network devices of a flow's network namespaces are read.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Instant,
};

use super::routes::drops_on_input;
use crate::{
    decode::event::Payload,
    diagnose::bpf,
    facts::{Facts, NetnsFacts, changed_facts::ChangedFacts},
    flow::model::{Flow, Step},
    node::{cgroup, link, max_age::MAX_AGE, netns},
};

/// The most network namespaces whose devices are read within [`MAX_AGE`], so that a flood of failing flows does not keep
/// tracer busy.
const MOST_NETNS: usize = 32;

/// Reads devices at most every [`MAX_AGE`] in each network namespace.
#[derive(Debug, Default)]
pub(super) struct LinkReader {
    /// When they were read, by network namespace.
    read: HashMap<u32, Instant>,
}

impl LinkReader {
    /// Forgets a network namespace that is gone.
    pub(super) fn forget(&mut self, netns: u32) {
        self.read.remove(&netns);
    }

    /// Reads the devices wherever the flow was seen.
    pub(super) fn read_for(&mut self, flow: &Flow, facts: &mut Facts, changed: &mut ChangedFacts) {
        let seen: BTreeSet<u32> = flow.steps.iter().map(|step| step.event.netns).collect();
        self.read.retain(|netns, at| {
            let is_current = at.elapsed() < MAX_AGE;
            if !is_current && !seen.contains(netns) {
                forget(*netns, facts, changed);
            }
            is_current
        });
        self.read_neighbours(flow, facts, changed);
        for netns in seen {
            if netns == 0 || self.read.contains_key(&netns) || self.read.len() >= MOST_NETNS {
                continue;
            }
            self.read.insert(netns, Instant::now());
            changed.netns.insert(netns);
            // Where a packet was dropped, or last seen.
            let last = flow.steps.last();
            let drops = flow
                .steps
                .iter()
                .filter(|step| matches!(step.event.payload, Payload::Drop(_)))
                .chain(last);
            let devices: BTreeSet<u32> = drops
                .filter(|step| step.event.netns == netns)
                .map(|step| step.event.ifindex)
                .collect();
            match netns::inside(netns, || link::all(&devices)) {
                Ok(Ok(links)) => facts.netns.entry(netns).or_default().links = links,
                _ => forget(netns, facts, changed),
            }
            let by_cgroup = |step: &Step| step.netns == netns && bpf::may_be_by_cgroup(&step.event, facts);
            if flow.steps.iter().any(by_cgroup) {
                let programs = cgroup::programs(netns).unwrap_or_default();
                facts.netns.entry(netns).or_default().cgroup_programs = programs;
            }
        }
    }

    /// Reads which MAC address the node has for the destination of a packet that another namespace dropped on input.
    fn read_neighbours(&self, flow: &Flow, facts: &mut Facts, changed: &mut ChangedFacts) {
        let wanted: BTreeSet<IpAddr> = flow
            .steps
            .iter()
            .filter(|step| step.event.netns != flow.netns && is_dropped_on_input(step, facts))
            .map(|step| step.event.tuple.daddr.ip())
            .collect();
        if wanted.is_empty() || flow.netns == 0 || self.read.contains_key(&flow.netns) {
            return;
        }
        if let Ok(Ok(neighbours)) = netns::inside(flow.netns, || link::neighbours(&wanted)) {
            facts.netns.entry(flow.netns).or_default().neighbours = neighbours;
            changed.netns.insert(flow.netns);
        }
    }
}

/// Whether the packet was freed where IP first looks at it.
fn is_dropped_on_input(step: &Step, facts: &Facts) -> bool {
    match &step.event.payload {
        Payload::Drop(drop) => facts.symbol(drop.location).is_some_and(drops_on_input),
        _ => false,
    }
}

fn forget(netns: u32, facts: &mut Facts, changed: &mut ChangedFacts) {
    let Some(known) = facts.netns.get_mut(&netns) else {
        return;
    };
    known.links = Vec::new();
    known.cgroup_programs = Vec::new();
    if *known == NetnsFacts::default() {
        facts.netns.remove(&netns);
    }
    changed.netns.insert(netns);
}
