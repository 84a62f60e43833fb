//! When the network devices of a flow's network namespaces are read.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use crate::{
    facts::{Facts, NetnsFacts, changed_facts::ChangedFacts},
    flow::model::Flow,
    node::{link, max_age::MAX_AGE, netns},
};

/// In how many network namespaces devices are read within [`MAX_AGE`], so that a flood of failing flows does not keep tracer
/// busy.
const MOST_NETNS: usize = 32;

/// Reads devices at most every [`MAX_AGE`] in each network namespace.
#[derive(Debug, Default)]
pub(super) struct LinkReader {
    /// When they were read, by network namespace.
    read: HashMap<u32, Instant>,
}

impl LinkReader {
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
        for netns in seen {
            if netns == 0 || self.read.contains_key(&netns) || self.read.len() >= MOST_NETNS {
                continue;
            }
            self.read.insert(netns, Instant::now());
            changed.netns.insert(netns);
            match netns::inside(netns, link::all) {
                Ok(Ok(links)) => facts.netns.entry(netns).or_default().links = links,
                _ => forget(netns, facts, changed),
            }
        }
    }
}

fn forget(netns: u32, facts: &mut Facts, changed: &mut ChangedFacts) {
    let Some(known) = facts.netns.get_mut(&netns) else {
        return;
    };
    known.links = Vec::new();
    if *known == NetnsFacts::default() {
        facts.netns.remove(&netns);
    }
    changed.netns.insert(netns);
}
