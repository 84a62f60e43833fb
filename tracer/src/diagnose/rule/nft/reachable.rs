//! The chains and rules that a packet can meet on its path through an nf_tables base chain.

use std::collections::{BTreeSet, HashMap};

use crate::facts::{
    NetnsFacts,
    nft::{
        Chain,
        rule::{Decides, Rule, Verdict},
    },
};

/// The chains and rules that a packet can meet in a base chain and all chains that it jumps to.
#[derive(Default)]
pub(in super::super) struct Reachable<'a> {
    /// Rules with the verdict to drop.
    pub(in super::super) drops: Vec<&'a Rule>,
    /// Rules that look up their verdict in a map.
    pub(in super::super) lookups: Vec<&'a Rule>,
    /// Rules that send the packet to another chain.
    pub(in super::super) jumps: Vec<&'a Rule>,
    /// Rules with expressions that may drop for reasons of their own.
    pub(in super::super) others: Vec<&'a Rule>,
    /// Names of the chains.
    chains: BTreeSet<&'a str>,
}

/// The iptables extensions that never drop; REJECT has a hook of its own.
const NEVER_DROP: [&str; 12] = [
    "CLASSIFY", "CONNMARK", "CT", "DSCP", "LOG", "MARK", "NFLOG", "REJECT", "SET", "TCPMSS", "TOS", "TTL",
];

/// Whether the rule is in the table of this chain.
pub(super) fn is_in_table_of(rule: &Rule, chain: &Chain) -> bool {
    (rule.family, &rule.table) == (chain.family, &chain.table)
}

impl<'a> Reachable<'a> {
    /// The chains and rules that any packet can meet from this chain on.
    pub(in super::super) fn from(netns: &'a NetnsFacts, base: &'a Chain) -> Self {
        Self::for_packet(netns, base, |_| true)
    }

    /// The same for a packet that matches only these rules.
    pub(in super::super) fn for_packet(
        netns: &'a NetnsFacts,
        base: &'a Chain,
        can_match: impl Fn(&Rule) -> bool,
    ) -> Self {
        let rules = netns.rules.iter();
        let in_table: Vec<&Rule> = rules
            .filter(|rule| is_in_table_of(rule, base) && can_match(rule))
            .collect();
        // Indexed by chain, because there can be tens of thousands of chains and rules.
        let mut of_chain: HashMap<&str, Vec<&Rule>> = HashMap::new();
        for rule in &in_table {
            of_chain.entry(&rule.chain).or_default().push(rule);
        }
        let mut reachable = Self::default();
        let mut open = vec![base.name.as_str()];
        let mut has_map = false;
        while let Some(name) = open.pop() {
            if !reachable.chains.insert(name) {
                continue;
            }
            let mut looks_up = false;
            for rule in of_chain.get(name).into_iter().flatten() {
                reachable.add(rule);
                looks_up |= matches!(rule.decides, Decides::Map(_));
                open.extend(match &rule.decides {
                    Decides::Verdict(verdict) => verdict.chain(),
                    _ => None,
                });
            }
            // The elements of a map are not followed: any chain of the table may be behind them.
            if looks_up && !has_map {
                has_map = true;
                open.extend(in_table.iter().map(|rule| rule.chain.as_str()));
            }
        }
        reachable
    }

    fn add(&mut self, rule: &'a Rule) {
        match &rule.decides {
            Decides::Verdict(Verdict::Drop) => self.drops.push(rule),
            Decides::Verdict(verdict) if verdict.chain().is_some() => self.jumps.push(rule),
            Decides::Map(_) => self.lookups.push(rule),
            Decides::Extension(name) if !NEVER_DROP.contains(&name.as_str()) => self.others.push(rule),
            Decides::Other(_) => self.others.push(rule),
            Decides::Nothing | Decides::Reject | Decides::Extension(_) | Decides::Verdict(_) => {}
        }
    }

    /// Whether the packet can enter this chain.
    pub(super) fn has(&self, chain: &str) -> bool {
        self.chains.contains(chain)
    }
}
