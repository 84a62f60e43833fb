//! The destinations to which the rules of a network namespace translate.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use super::{iptables, max_age::MAX_AGE, netns, nft};
use crate::facts::{
    iptables::{Outcome, Packet, Table, outcomes},
    nat_rule::NatRule,
    nft::ruleset::Ruleset,
    translation::Translation,
};

/// The rules of a network namespace that translate, and when they were read.
#[derive(Debug)]
pub(super) struct Destinations {
    at: Instant,
    /// The same as monotonic nanoseconds.
    pub(super) at_ns: u64,
    /// How long reading took.
    cost: Duration,
    nft: Option<Loaded>,
    tables: Vec<Table>,
}

/// The rules of nf_tables, and their generation.
#[derive(Debug)]
struct Loaded {
    generation: u32,
    rules: Ruleset,
}

/// How often reading rules is retried if they change meanwhile, and how often maps are added for one packet: a packet meets
/// a few maps, one after the other.
const RETRIES: usize = 4;
const MAX_ROUNDS: usize = 16;
/// The hooks at which a packet's destination is translated (`NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT`).
const TRANSLATING: [u32; 2] = [0, 3];

impl Destinations {
    /// Reading rules takes at most this part of the time: 1/20.
    const SHARE: u32 = 20;

    /// Whether it is time to read them again.
    pub(super) fn is_due(&self) -> bool {
        self.at.elapsed() > MAX_AGE.max(self.cost * Self::SHARE)
    }

    /// Reads the rules of a network namespace, or confirms that those of `before` are still loaded. `None` if they cannot be
    /// read.
    pub(super) fn read(netns: u32, before: Option<Self>) -> Option<Self> {
        netns::inside(netns, || Self::read_here(before)).ok()?.ok()
    }

    fn read_here(before: Option<Self>) -> io::Result<Self> {
        let at = Instant::now();
        let at_ns = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from)?;
        let before = before.and_then(|before| before.nft);
        let nft = if nft::is_there() {
            Some(load(before)?)
        } else {
            None
        };
        let tables = iptables::tables(&["nat"])?;
        Ok(Self {
            at,
            at_ns: u64::try_from(at_ns.as_nanos()).map_err(io::Error::other)?,
            cost: at.elapsed(),
            nft,
            tables,
        })
    }

    /// The rules that can translate this packet to `backend`; `None` if unknown. May read the rules again.
    pub(super) fn rules_to(
        &mut self,
        netns: u32,
        packet: &Packet<'_>,
        backend: SocketAddr,
    ) -> Option<Vec<NatRule>> {
        let from = SocketAddr::new(packet.destination, packet.inner.dport);
        let found = netns::inside(netns, || self.translations(packet)).ok()?.ok()?;
        let mut rules = Vec::new();
        for (rule, translation) in found {
            if translation.can_lead(from, backend) && !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        Some(rules)
    }

    /// Every translation that this packet may get, with its rule. Reads the maps that the rules use.
    fn translations(&mut self, packet: &Packet<'_>) -> io::Result<Vec<(NatRule, Translation)>> {
        let mut out: Vec<(NatRule, Translation)> = self
            .tables
            .iter()
            .filter(|table| table.is_v6 == packet.source.is_ipv6())
            .flat_map(|table| of_table(table, packet))
            .collect();
        for _ in 0..MAX_ROUNDS {
            let Some(loaded) = &mut self.nft else {
                return Ok(out);
            };
            let missing = match loaded.rules.translations(packet) {
                Ok(reached) => {
                    let rules = reached.into_iter();
                    out.extend(rules.map(|reached| (reached.rule.into(), reached.translation)));
                    return Ok(out);
                }
                Err(missing) => missing,
            };
            nft::add_maps(&mut loaded.rules, missing)?;
            // The name may belong to another map by now.
            if nft::generation()? != loaded.generation {
                let cost = self.cost;
                *self = Self::read_here(None)?;
                self.cost += cost;
            }
        }
        Err(io::Error::other("the rules keep changing"))
    }
}

/// Every translation that a packet may get from the rules of the calling thread's network namespace, with its rule.
pub fn of_packet(packet: &Packet<'_>) -> io::Result<Vec<(NatRule, Translation)>> {
    Destinations::read_here(None)?.translations(packet)
}

/// Reads the rules unless they are still those of `before`.
fn load(before: Option<Loaded>) -> io::Result<Loaded> {
    let mut generation = nft::generation()?;
    if let Some(before) = before.filter(|before| before.generation == generation) {
        return Ok(before);
    }
    for _ in 0..RETRIES {
        let rules = nft::ruleset()?;
        let after = nft::generation()?;
        if after == generation {
            return Ok(Loaded { generation, rules });
        }
        generation = after;
    }
    Err(io::Error::other("the rules keep changing"))
}

/// The translations of a legacy table that a packet may get, with their rules.
fn of_table(table: &Table, packet: &Packet<'_>) -> Vec<(NatRule, Translation)> {
    let reached = TRANSLATING.iter().flat_map(|&hook| outcomes(table, hook, packet));
    let translating = reached.filter_map(|outcome| {
        let Outcome::Extension { chain, number, .. } = outcome else {
            return None;
        };
        let rule = chain.rules.get(number.checked_sub(1)?)?;
        let named = NatRule {
            table: table.name.clone(),
            chain: chain.name.clone(),
            number,
            handle: None,
            comment: rule.comment(),
        };
        Some((named, rule.translation.clone()?))
    });
    translating.collect()
}
