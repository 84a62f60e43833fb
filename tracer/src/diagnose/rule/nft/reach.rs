//! What a packet can meet on its way through a base chain of nf_tables.

use std::collections::{BTreeSet, HashMap};

use super::is_in_table_of;
use crate::facts::{
    NetnsFacts,
    nft::{
        Chain,
        rule::{Decides, Rule, Verdict},
    },
};

/// What can be met on the way through a base chain and all that it jumps to.
#[derive(Default)]
pub(in super::super) struct Reach<'a> {
    /// Rules with the verdict to drop.
    pub(in super::super) drops: Vec<&'a Rule>,
    /// Rules that look their verdict up.
    pub(in super::super) asks_maps: Vec<&'a Rule>,
    /// Rules with expressions that may drop for reasons of their own.
    pub(in super::super) others: Vec<&'a Rule>,
    /// Names of the chains.
    chains: BTreeSet<&'a str>,
}

/// Extensions of iptables that never drop; REJECT is seen by itself.
const NEVER_DROP: [&str; 12] = [
    "CLASSIFY", "CONNMARK", "CT", "DSCP", "LOG", "MARK", "NFLOG", "REJECT", "SET", "TCPMSS", "TOS", "TTL",
];

impl<'a> Reach<'a> {
    /// Of a base chain, or of any other.
    pub(in super::super) fn from(netns: &'a NetnsFacts, base: &'a Chain) -> Self {
        Self::of(netns, base, |_| true)
    }

    /// The same for a packet that fits only these rules.
    pub(in super::super) fn of(netns: &'a NetnsFacts, base: &'a Chain, fits: impl Fn(&Rule) -> bool) -> Self {
        let rules = netns.rules.iter();
        let in_table: Vec<&Rule> = rules
            .filter(|rule| is_in_table_of(rule, base) && fits(rule))
            .collect();
        // There can be tens of thousands of both.
        let mut of_chain: HashMap<&str, Vec<&Rule>> = HashMap::new();
        for rule in &in_table {
            of_chain.entry(&rule.chain).or_default().push(rule);
        }
        let mut reach = Self::default();
        let mut open = vec![base.name.as_str()];
        let mut any = false;
        while let Some(name) = open.pop() {
            if !reach.chains.insert(name) {
                continue;
            }
            let mut asks = false;
            for rule in of_chain.get(name).into_iter().flatten() {
                reach.add(rule);
                asks |= matches!(rule.decides, Decides::Map(_));
                open.extend(match &rule.decides {
                    Decides::Verdict(verdict) => verdict.chain(),
                    _ => None,
                });
            }
            // Where a map leads to is not followed: any chain of the table may be behind it.
            if asks && !any {
                any = true;
                open.extend(in_table.iter().map(|rule| rule.chain.as_str()));
            }
        }
        reach
    }

    fn add(&mut self, rule: &'a Rule) {
        match &rule.decides {
            Decides::Verdict(Verdict::Drop) => self.drops.push(rule),
            Decides::Map(_) => self.asks_maps.push(rule),
            Decides::Extension(name) if !NEVER_DROP.contains(&name.as_str()) => self.others.push(rule),
            Decides::Other(_) => self.others.push(rule),
            Decides::Nothing | Decides::Reject | Decides::Extension(_) | Decides::Verdict(_) => {}
        }
    }

    /// Can the packet come into this chain?
    pub(super) fn has(&self, chain: &str) -> bool {
        self.chains.contains(chain)
    }
}
