//! Reads the rules of a network namespace as they were when a packet hit them.
//!
//! kube-proxy and others rewrite their rules all the time, with new handles and numbers. So rules are read as soon as one
//! was seen to decide, not when the flow is reported seconds later. A rule that was removed in between is kept.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use tracer_common::record::{NftRule, chain};

use crate::{
    decode::event::{Event, Payload},
    facts::{
        NetnsFacts,
        nft::{
            map::Map,
            rule::{Decides, Rule},
        },
    },
    node::{iptables, max_age::MAX_AGE, netns, nft},
};

/// Reading rules again takes at most this part of the time (1/10), however many packets hit them.
const SHARE: u32 = 10;
/// The most removed rules that are kept, and the most handles of rules that packets hit.
const MAX_REMOVED: usize = 256;
const MAX_HANDLES: usize = 4096;

/// The rules that decided since the last reading.
#[derive(Debug, Default, Clone)]
pub(super) struct RuleHits {
    /// When a rule of nf_tables last decided, monotonic nanoseconds.
    nft_ns: Option<u64>,
    /// When a legacy table last decided.
    tables_ns: Option<u64>,
    /// The rules of nf_tables that decided, as far as they are known.
    nft_rules: Vec<NftRule>,
    /// Handles of those that looked their verdict up in a map.
    by_map: Vec<u64>,
}

impl RuleHits {
    /// Adds an event; events without a rule are ignored. A [`What::Drop`] must be one in a chain of nf_tables.
    pub(super) fn add(&mut self, event: &Event) {
        match &event.payload {
            Payload::Chain(chain) => {
                self.add_nft(event.time_ns, chain.rule);
                if chain.seen & chain::BY_LOOKUP != 0 && !self.by_map.contains(&chain.rule.handle) {
                    self.by_map.push(chain.rule.handle);
                }
            }
            Payload::Reject(reject) if reject.table[0] == 0 => self.add_nft(event.time_ns, reject.rule),
            Payload::Reject(_) | Payload::Table(_) => {
                self.tables_ns = self.tables_ns.max(Some(event.time_ns));
            }
            Payload::Drop(_) => self.nft_ns = self.nft_ns.max(Some(event.time_ns)),
            _ => {}
        }
    }

    /// Adds a packet that any rule may have dropped.
    pub(super) fn add_any(&mut self, event: &Event) {
        self.nft_ns = self.nft_ns.max(Some(event.time_ns));
        self.tables_ns = self.tables_ns.max(Some(event.time_ns));
    }

    fn add_nft(&mut self, time_ns: u64, rule: NftRule) {
        self.nft_ns = self.nft_ns.max(Some(time_ns));
        if !self.nft_rules.contains(&rule) {
            self.nft_rules.push(rule);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nft_ns.is_none() && self.tables_ns.is_none()
    }
}

/// When something was read, and how long that took.
#[derive(Debug, Clone, Copy)]
struct Reading {
    begun_ns: u64,
    begun: Instant,
    cost: Duration,
}

impl Reading {
    /// Whether no new reading is needed: this one began after that time (monotonic nanoseconds), or less than `max_age` ago.
    fn suffices(self, since_ns: u64, max_age: Duration) -> bool {
        self.begun_ns > since_ns || self.begun.elapsed() < max_age
    }

    /// How long this reading counts as current.
    fn max_age(self) -> Duration {
        MAX_AGE.max(self.cost * SHARE)
    }
}

/// Reads the rules of one network namespace when needed.
#[derive(Debug, Default)]
pub(super) struct RuleReader {
    nft: Option<Reading>,
    tables: Option<Reading>,
    /// The generation of nf_tables at the last reading.
    generation: Option<u32>,
    /// Handles of rules that packets have hit.
    handles: BTreeSet<u64>,
}

impl RuleReader {
    /// Reads the rules that decided and are not known yet. Returns `false` if the network namespace cannot be entered.
    pub(super) fn refresh(&mut self, inum: u32, known: &mut NetnsFacts, hits: &RuleHits) -> bool {
        if self.handles.len() > MAX_HANDLES {
            self.handles.clear();
        }
        let handles = hits.nft_rules.iter().flat_map(|rule| [rule.handle, rule.next]);
        self.handles.extend(handles.filter(|&handle| handle != 0));
        let nft = hits.nft_ns.is_some_and(|since| !self.knows(since, known, hits));
        let tables = hits.tables_ns.is_some_and(|since| {
            self.tables
                .is_none_or(|last| !last.suffices(since, last.max_age()))
        });
        if !nft && !tables {
            return true;
        }
        let read = || {
            if nft {
                self.nft = timed(|| self.generation = read_nft(known, self.generation, &self.handles, hits));
            }
            if tables {
                self.tables = timed(|| known.tables = iptables::tables(&TABLES).unwrap_or_default());
            }
        };
        netns::inside(inum, read).is_ok()
    }

    /// Whether all rules of nf_tables that decided are known, or must not be read again yet.
    fn knows(&self, since_ns: u64, known: &NetnsFacts, hits: &RuleHits) -> bool {
        let is_known = |handle: u64| {
            let mut rules = known.rules.iter().filter(|rule| rule.handle == handle);
            let has_maps = |rule: &Rule| !hits.by_map.contains(&handle) || has_map(known, rule);
            handle == 0 || rules.next().is_some_and(has_maps) && rules.all(has_maps)
        };
        let all_known = hits
            .nft_rules
            .iter()
            .all(|rule| is_known(if rule.handle == 0 { rule.next } else { rule.handle }));
        // An unknown rule is read without delay: the flow may be reported at once.
        self.nft.is_some_and(|last| {
            let max_age = if all_known { last.max_age() } else { Duration::ZERO };
            last.suffices(since_ns, max_age)
        })
    }
}

fn timed(read: impl FnOnce()) -> Option<Reading> {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?);
    let begun = Instant::now();
    read();
    Some(Reading {
        begun_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        begun,
        cost: begun.elapsed(),
    })
}

/// Reads the rules of nf_tables if they have changed, and the maps used by the rules that decided. Returns the generation
/// of the rules; `None` if they changed meanwhile.
fn read_nft(
    known: &mut NetnsFacts,
    before: Option<u32>,
    handles: &BTreeSet<u64>,
    hits: &RuleHits,
) -> Option<u32> {
    if !nft::is_there() {
        return before;
    }
    let generation = nft::generation().ok();
    if generation.is_none() || generation != before {
        known.chains = nft::chains().unwrap_or_default();
        let rules = nft::rules(None, None).unwrap_or_default();
        keep_removed(known, rules, handles);
        known.maps.clear();
    }
    for &handle in &hits.by_map {
        read_maps(known, handle);
    }
    // Rules that changed while they were read are read again next time.
    generation.filter(|_| nft::generation().ok() == generation)
}

/// Replaces the loaded rules, and keeps those that a packet has hit and that are no longer loaded.
fn keep_removed(known: &mut NetnsFacts, rules: Vec<Rule>, handles: &BTreeSet<u64>) {
    let before = std::mem::replace(&mut known.rules, rules);
    let now = &known.rules;
    let gone = before
        .into_iter()
        .filter(|rule| handles.contains(&rule.handle) && !now.iter().any(|now| is_same(now, rule)));
    let removed: &mut VecDeque<Rule> = &mut known.removed_rules;
    removed.extend(gone);
    while removed.len() > MAX_REMOVED {
        removed.pop_front();
    }
}

/// Whether it is the same rule, possibly with another number in its chain. The handle is not enough: a recreated table
/// starts with the same handles again.
fn is_same(now: &Rule, before: &Rule) -> bool {
    now.handle == before.handle
        && *now
            == Rule {
                number: now.number,
                ..before.clone()
            }
}

/// Reads the maps used by the rules with this handle, in any table.
fn read_maps(known: &mut NetnsFacts, handle: u64) {
    let missing = known
        .rules
        .iter()
        .filter(|rule| rule.handle == handle && !has_map(known, rule));
    let maps = missing.filter_map(|rule| match &rule.decides {
        Decides::Map(name) => nft::map(rule.family, &rule.table, name).ok(),
        _ => None,
    });
    let maps: Vec<Map> = maps.collect();
    known.maps.extend(maps);
}

/// Whether the map that the rule uses is known, or it uses none.
fn has_map(known: &NetnsFacts, rule: &Rule) -> bool {
    let Decides::Map(name) = &rule.decides else {
        return true;
    };
    known
        .maps
        .iter()
        .any(|map| (map.family, &map.table, &map.name) == (rule.family, &rule.table, name))
}

/// The tables of iptables.
const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::nft::{
        Family,
        rule::{Verdict, conditions::Conditions},
    };

    fn rule(handle: u64, number: usize) -> Rule {
        Rule {
            family: Family::Ip,
            table: "filter".to_owned(),
            chain: "FORWARD".to_owned(),
            handle,
            number,
            comment: None,
            decides: Decides::Verdict(Verdict::Drop),
            dport: None,
            has_destination: false,
            dports: None,
            untracks: false,
            matches_invalid: false,
            translation: None,
            key: None,
            conditions: Conditions::default(),
        }
    }

    #[test]
    fn a_removed_rule_that_a_packet_hit_is_kept() {
        let mut known = NetnsFacts {
            rules: vec![rule(3, 1), rule(4, 2), rule(5, 3)],
            ..NetnsFacts::default()
        };
        let handles = BTreeSet::from([4, 5]);
        // 4 is gone, and 5 has moved up.
        keep_removed(&mut known, vec![rule(5, 1)], &handles);
        assert_eq!(known.removed_rules, [rule(4, 2)]);
        // A recreated table uses the same handles again, so a handle alone does not identify a rule.
        let other = Rule {
            comment: Some("another".to_owned()),
            ..rule(5, 1)
        };
        keep_removed(&mut known, vec![other], &handles);
        assert_eq!(known.removed_rules, [rule(4, 2), rule(5, 1)]);
    }

    #[test]
    fn few_removed_rules_are_kept() {
        let mut known = NetnsFacts::default();
        let handles: BTreeSet<u64> = (0..1000).collect();
        for handle in 0..1000 {
            keep_removed(&mut known, vec![rule(handle, 1)], &handles);
        }
        assert_eq!(known.removed_rules.len(), MAX_REMOVED);
    }

    #[test]
    fn a_reading_after_the_packet_suffices() {
        let reading = Reading {
            begun_ns: 100,
            begun: Instant::now(),
            cost: Duration::ZERO,
        };
        assert!(reading.suffices(99, Duration::ZERO));
        assert!(reading.suffices(101, MAX_AGE) && !reading.suffices(101, Duration::ZERO));
    }
}
