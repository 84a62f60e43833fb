//! The rules of a network namespace, as they were when a packet met them.
//!
//! kube-proxy and others write their rules anew all the time, and each gets another handle or number then. So rules
//! are read as soon as one was seen to decide, not only when the flow is told of seconds later; and one that is taken
//! away between is kept.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use tracer_common::record::{NftRule, chain};

use super::FRESH;
use crate::{
    decode::event::{Event, Payload},
    facts::{
        NetnsFacts,
        nft::{
            map::Map,
            rule::{Decides, Rule},
        },
    },
    node::{iptables, netns, nft},
};

/// Reading rules again, to see whether they are still the same, takes no more than this part of the time, however many
/// packets meet them.
const SHARE: u32 = 10;
/// So many rules are kept after they were taken away, and so many handles are remembered.
const MOST_FORMER: usize = 256;
const MOST_MET: usize = 4096;

/// What was seen of rules since they were last looked at.
#[derive(Debug, Default, Clone)]
pub(super) struct Wanted {
    /// When a rule of nf_tables last decided; monotonic nanoseconds.
    nft_ns: Option<u64>,
    /// When a legacy table last did.
    tables_ns: Option<u64>,
    /// The rules of nf_tables that did, as far as they are known.
    asked: Vec<NftRule>,
    /// Those of them that looked their verdict up in a map.
    in_maps: Vec<u64>,
}

impl Wanted {
    /// Takes note of an event; of no use if it tells of no rule. A packet that was freed must have been by a chain of
    /// nf_tables.
    pub(super) fn add(&mut self, event: &Event) {
        match &event.payload {
            Payload::Chain(chain) => {
                self.add_nft(event.time_ns, chain.rule);
                if chain.seen & chain::BY_LOOKUP != 0 && !self.in_maps.contains(&chain.rule.handle) {
                    self.in_maps.push(chain.rule.handle);
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

    /// Takes note of a packet that any rule may have dropped.
    pub(super) fn add_any(&mut self, event: &Event) {
        self.nft_ns = self.nft_ns.max(Some(event.time_ns));
        self.tables_ns = self.tables_ns.max(Some(event.time_ns));
    }

    fn add_nft(&mut self, time_ns: u64, rule: NftRule) {
        self.nft_ns = self.nft_ns.max(Some(time_ns));
        if !self.asked.contains(&rule) {
            self.asked.push(rule);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nft_ns.is_none() && self.tables_ns.is_none()
    }
}

/// When something was last read, and how long that took.
#[derive(Debug, Clone, Copy)]
struct Read {
    begun_ns: u64,
    begun: Instant,
    cost: Duration,
}

impl Read {
    /// Has the last reading begun after this moment, or must there be no new one yet?
    fn will_do(self, since_ns: u64, at_least: Duration) -> bool {
        self.begun_ns > since_ns || self.begun.elapsed() < at_least
    }

    /// How long what was read is taken for what is loaded.
    fn fresh(self) -> Duration {
        FRESH.max(self.cost * SHARE)
    }
}

/// What was read of one network namespace's rules, and when.
#[derive(Debug, Default)]
pub(super) struct Rules {
    nft: Option<Read>,
    tables: Option<Read>,
    /// Of nf_tables, when its rules were read.
    generation: Option<u32>,
    /// Handles of rules that packets have met.
    met: BTreeSet<u64>,
}

impl Rules {
    /// Reads what is wanted of this network namespace and not known yet. `false` if it cannot be entered.
    pub(super) fn refresh(&mut self, inum: u32, known: &mut NetnsFacts, wanted: &Wanted) -> bool {
        if self.met.len() > MOST_MET {
            self.met.clear();
        }
        let handles = wanted.asked.iter().flat_map(|rule| [rule.handle, rule.next]);
        self.met.extend(handles.filter(|&handle| handle != 0));
        let nft = wanted
            .nft_ns
            .is_some_and(|since| !self.knows(since, known, wanted));
        let tables = wanted
            .tables_ns
            .is_some_and(|since| self.tables.is_none_or(|last| !last.will_do(since, last.fresh())));
        if !nft && !tables {
            return true;
        }
        let look = || {
            if nft {
                self.nft = timed(|| self.generation = read_nft(known, self.generation, &self.met, wanted));
            }
            if tables {
                self.tables = timed(|| known.tables = iptables::tables(&TABLES).unwrap_or_default());
            }
        };
        netns::inside(inum, look).is_ok()
    }

    /// Is all known of nf_tables that these packets make one ask for?
    fn knows(&self, since_ns: u64, known: &NetnsFacts, wanted: &Wanted) -> bool {
        let is_known = |handle: u64| {
            let mut rules = known.rules.iter().filter(|rule| rule.handle == handle);
            let has_maps = |rule: &Rule| !wanted.in_maps.contains(&handle) || has_map(known, rule);
            handle == 0 || rules.next().is_some_and(has_maps) && rules.all(has_maps)
        };
        let all_known = wanted
            .asked
            .iter()
            .all(|rule| is_known(if rule.handle == 0 { rule.next } else { rule.handle }));
        // Whoever asks for a rule that is not known cannot wait: the flow may be told of at once.
        self.nft.is_some_and(|last| {
            let at_least = if all_known { last.fresh() } else { Duration::ZERO };
            last.will_do(since_ns, at_least)
        })
    }
}

fn timed(read: impl FnOnce()) -> Option<Read> {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?);
    let begun = Instant::now();
    read();
    Some(Read {
        begun_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        begun,
        cost: begun.elapsed(),
    })
}

/// Reads the rules of nf_tables, if they are others than before, and the maps that those ask that were seen to;
/// answers with their generation.
fn read_nft(
    known: &mut NetnsFacts,
    before: Option<u32>,
    met: &BTreeSet<u64>,
    wanted: &Wanted,
) -> Option<u32> {
    if !nft::is_there() {
        return before;
    }
    let generation = nft::generation().ok();
    if generation.is_none() || generation != before {
        known.chains = nft::chains().unwrap_or_default();
        let rules = nft::rules(None, None).unwrap_or_default();
        keep_former(known, rules, met);
        known.maps.clear();
    }
    for &handle in &wanted.in_maps {
        read_maps(known, handle);
    }
    // Whoever changes rules while they are read makes them be read again.
    generation.filter(|_| nft::generation().ok() == generation)
}

/// Takes these rules for the loaded ones, and keeps those that a packet has met and that are not among them.
fn keep_former(known: &mut NetnsFacts, rules: Vec<Rule>, met: &BTreeSet<u64>) {
    let before = std::mem::replace(&mut known.rules, rules);
    let now = &known.rules;
    let gone = before
        .into_iter()
        .filter(|rule| met.contains(&rule.handle) && !now.iter().any(|now| is_same(now, rule)));
    let former: &mut VecDeque<Rule> = &mut known.former;
    former.extend(gone);
    while former.len() > MOST_FORMER {
        former.pop_front();
    }
}

/// Is it the same rule, wherever in its chain it stands now? A table that is made anew counts handles anew.
fn is_same(now: &Rule, before: &Rule) -> bool {
    now.handle == before.handle
        && *now
            == Rule {
                number: now.number,
                ..before.clone()
            }
}

/// Reads the maps that the rules of this handle ask, in whatever table they are.
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

/// Is the map that the rule asks known, if it asks one?
fn has_map(known: &NetnsFacts, rule: &Rule) -> bool {
    let Decides::Map(name) = &rule.decides else {
        return true;
    };
    known
        .maps
        .iter()
        .any(|map| (map.family, &map.table, &map.name) == (rule.family, &rule.table, name))
}

/// The tables that iptables can have.
const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::nft::{
        Family,
        rule::{Verdict, asks::Asks},
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
            asks_invalid: false,
            translation: None,
            asks: Asks::default(),
        }
    }

    #[test]
    fn a_rule_that_a_packet_met_is_kept_when_it_is_taken_away() {
        let mut known = NetnsFacts {
            rules: vec![rule(3, 1), rule(4, 2), rule(5, 3)],
            ..NetnsFacts::default()
        };
        let met = BTreeSet::from([4, 5]);
        // 4 is gone, and 5 has moved up.
        keep_former(&mut known, vec![rule(5, 1)], &met);
        assert_eq!(known.former, [rule(4, 2)]);
        // A table that was made anew counts from where the last one did, and what is told by a handle is not certain.
        let other = Rule {
            comment: Some("another".to_owned()),
            ..rule(5, 1)
        };
        keep_former(&mut known, vec![other], &met);
        assert_eq!(known.former, [rule(4, 2), rule(5, 1)]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut known = NetnsFacts::default();
        let met: BTreeSet<u64> = (0..1000).collect();
        for handle in 0..1000 {
            keep_former(&mut known, vec![rule(handle, 1)], &met);
        }
        assert_eq!(known.former.len(), MOST_FORMER);
    }

    #[test]
    fn what_was_read_after_the_packet_will_do() {
        let read = Read {
            begun_ns: 100,
            begun: Instant::now(),
            cost: Duration::ZERO,
        };
        assert!(read.will_do(99, Duration::ZERO));
        assert!(read.will_do(101, FRESH) && !read.will_do(101, Duration::ZERO));
    }
}
