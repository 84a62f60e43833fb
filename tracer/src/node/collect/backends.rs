//! Reads which rules lead to the backend of a flow, if any do.

use tracer_common::{hook::Hook, record::table, tcp::SYN};

use super::Collector;
use crate::{
    diagnose::Dataplane,
    facts::{iptables::Packet, nat_rule::NatRules, xt},
    flow::model::Flow,
    node::{destinations::Destinations, netns},
};

/// The most backends for which the rules that lead to them, or their absence, are remembered, and the most times of absence
/// for each.
const MAX_BACKENDS: usize = 1024;
const MAX_TIMES: usize = 16;

impl Collector {
    /// Checks whether a rule still translates to the backend that an old conntrack entry sent this flow's SYN to. Rules that
    /// were read within the last second count as current.
    pub fn check_backend_of_old_entry(&mut self, flow: &Flow) {
        let newest = flow.attempts.len().saturating_sub(1);
        let Some(backend) = flow.backend_by_old_entry(newest) else {
            return;
        };
        let Some(destinations) = self.destinations_of(flow.netns) else {
            return;
        };
        let rules = destinations.rules_to(flow.netns, &syn_of(flow), backend);
        let at_ns = destinations.at_ns;
        let key = (flow.netns, backend);
        self.changed.unreachable = true;
        let known = &mut self.facts.unreachable_by_rule;
        // An unknown translation may lead there.
        if rules.is_none_or(|rules| !rules.is_empty()) {
            known.remove(&key);
            return;
        }
        if known.len() >= MAX_BACKENDS && !known.contains_key(&key) {
            known.clear();
        }
        let times = known.entry(key).or_default();
        if times.back() != Some(&at_ns) {
            times.push_back(at_ns);
            if times.len() > MAX_TIMES {
                times.pop_front();
            }
        }
    }

    /// Reads which rules lead to the backend of a flow that a rule translated.
    pub(super) fn read_nat_rules(&mut self, flow: &Flow) {
        let by_rule = matches!(
            Dataplane::of(flow),
            Some(Dataplane::Iptables | Dataplane::Nftables)
        );
        let Some(backend) = flow.backend().filter(|_| by_rule && flow.netns != 0) else {
            return;
        };
        let Some(destinations) = self.destinations_of(flow.netns) else {
            return;
        };
        let Some(rules) = destinations.rules_to(flow.netns, &syn_of(flow), backend) else {
            return;
        };
        let at_ns = destinations.at_ns;
        let known = &mut self.facts.nat_rules;
        let key = (flow.netns, flow.node(), backend);
        if known.len() >= MAX_BACKENDS && !known.contains_key(&key) {
            known.clear();
        }
        // The first reading is the one next to the SYN that they translated.
        if known.get(&key).is_none_or(|before| before.rules != rules) {
            known.insert(key, NatRules { rules, at_ns });
            self.changed.nat_rules = true;
        }
    }

    /// Finds a process in each network namespace that the flow reached, so that the user can enter it.
    pub(super) fn find_processes(&mut self, flow: &Flow) {
        let mut seen: Vec<u32> = flow.steps.iter().map(|step| step.event.netns).collect();
        seen.sort_unstable();
        seen.dedup();
        for netns in seen {
            if netns == 0 || netns == flow.netns {
                continue;
            }
            let pids = &mut self.facts.pids;
            let before = pids.get(&netns).copied();
            let now = netns::process(netns, before);
            if pids.len() >= MAX_BACKENDS {
                pids.clear();
            }
            match now {
                Some(pid) => pids.insert(netns, pid),
                None => pids.remove(&netns),
            };
            self.changed.pids |= now != before;
        }
    }

    /// The rules of a network namespace, read again if they are too old.
    fn destinations_of(&mut self, netns: u32) -> Option<&mut Destinations> {
        let known = &mut self.destinations;
        if known.get(&netns).is_none_or(Destinations::is_due) {
            let before = known.remove(&netns);
            known.insert(netns, Destinations::read(netns, before)?);
        }
        known.get_mut(&netns)
    }
}

/// The SYN of a flow as it enters the rules.
fn syn_of(flow: &Flow) -> Packet<'static> {
    let tuple = &flow.original;
    Packet {
        source: tuple.saddr.ip(),
        destination: tuple.daddr.ip(),
        input: None,
        output: None,
        inner: xt::Packet {
            sport: tuple.sport,
            dport: tuple.dport,
            tcp_flags: Some(SYN),
            mark: None,
            ctinfo: Some(table::NEW),
            // A SYN of the node itself is first seen at its socket.
            from_node: flow
                .steps
                .first()
                .filter(|first| first.event.hook == Hook::NetifReceive)
                .map(|_| false),
        },
    }
}
