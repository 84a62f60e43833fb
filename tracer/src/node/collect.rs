//! Fills in [`Facts`] while tracing, as far as flows ask for them.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tracer_common::hook::Hook;

use super::{
    facts::{Facts, NetnsFacts},
    ipvs,
    kallsyms::Symbols,
    netns, nft, route,
    sysctl::Sysctls,
};
use crate::flow::{event::What, model::Flow};

/// Tables and settings are read again when they are older than this.
const FRESH: Duration = Duration::from_secs(1);

/// So many ways are asked for within [`FRESH`]: a flood of packets without a way must not keep tracer busy.
const MOST_WAYS: usize = 32;

/// The facts so far, and what they are read from.
#[derive(Debug)]
pub struct Collector {
    facts: Facts,
    symbols: Arc<Symbols>,
    read: HashMap<u32, Instant>,
    ways: HashMap<(u32, IpAddr), Instant>,
}

impl Collector {
    /// `drop_reasons` are names and values of this kernel's `enum skb_drop_reason`.
    #[must_use]
    pub fn new(symbols: Arc<Symbols>, drop_reasons: &[(String, i64)]) -> Self {
        let named = drop_reasons.iter().filter_map(|(name, value)| {
            let name = name
                .strip_prefix("SKB_DROP_REASON_")
                .or(name.strip_prefix("SKB_"))
                .unwrap_or(name);
            Some((u32::try_from(*value).ok()?, name.to_owned()))
        });
        let facts = Facts {
            drop_reasons: named.collect(),
            ..Facts::default()
        };
        Self {
            facts,
            symbols,
            read: HashMap::new(),
            ways: HashMap::new(),
        }
    }

    /// What is known.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The kernel's functions as they are known now.
    #[must_use]
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Takes over the kernel's functions after modules came or went. A module that went may have left its addresses to
    /// another.
    pub fn set_symbols(&mut self, symbols: Arc<Symbols>) {
        self.symbols = symbols;
        let symbols = &self.symbols;
        self.facts.symbols.retain(|&address, name| {
            symbols
                .locate(address)
                .is_none_or(|location| location.to_string() == *name)
        });
    }

    /// Takes note that records were lost up to now.
    pub fn lost(&mut self, now_ns: u64) {
        self.facts.lost_ns = Some(now_ns);
    }

    /// Reads what the diagnosis of a flow that went wrong may need. What cannot be read stays unknown.
    pub fn look(&mut self, flow: &Flow) {
        for step in &flow.steps {
            if let What::Drop(drop) = &step.event.what
                && let Some(location) = self.symbols.locate(drop.location)
            {
                self.facts
                    .symbols
                    .entry(drop.location)
                    .or_insert_with(|| location.to_string());
            }
        }
        self.look_for_ways(flow);
        let fresh = self
            .read
            .get(&flow.netns)
            .is_some_and(|read| read.elapsed() < FRESH);
        if flow.netns == 0 || fresh {
            return;
        }
        self.read.insert(flow.netns, Instant::now());
        match netns::inside(flow.netns, read_netns) {
            Ok(read) => {
                self.facts.netns.insert(flow.netns, read);
            }
            Err(_) => {
                self.facts.netns.remove(&flow.netns);
            }
        }
    }

    /// Asks for the way to each address that the routing layer did not like.
    fn look_for_ways(&mut self, flow: &Flow) {
        let Self { facts, ways, .. } = self;
        ways.retain(|_, read| read.elapsed() < FRESH);
        facts.routes.retain(|key, _| ways.contains_key(key));
        let mut wanted: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        for step in &flow.steps {
            let event = &step.event;
            let address = match (event.hook, &event.what) {
                (Hook::RouteMartian, _) => event.tuple.saddr.ip(),
                (Hook::RouteError, _) => event.tuple.daddr.ip(),
                (_, What::Drop(drop)) if facts.symbol(drop.location).is_some_and(has_no_way) => {
                    event.tuple.daddr.ip()
                }
                _ => continue,
            };
            let key = (event.netns, address);
            if event.netns != 0 && ways.len() < MOST_WAYS && !ways.contains_key(&key) {
                ways.insert(key, Instant::now());
                wanted.entry(event.netns).or_default().push(address);
            }
        }
        for (netns, addresses) in wanted {
            let look = || -> Vec<_> {
                let found = addresses.into_iter().map(|address| (address, route::to(address)));
                found.collect()
            };
            for (address, way) in netns::inside(netns, look).unwrap_or_default() {
                if let Ok(way) = way {
                    facts.routes.insert((netns, address), way);
                }
            }
        }
    }
}

/// Is this a place where the kernel discards what has no way, without a hook of its own?
fn has_no_way(place: &str) -> bool {
    place.starts_with("ip6_pkt_") || place.starts_with("dst_discard")
}

/// Reads the calling thread's network namespace.
fn read_netns() -> NetnsFacts {
    NetnsFacts {
        services: ipvs::services().unwrap_or_default(),
        sysctls: Sysctls::read().unwrap_or_default(),
        chains: nft::chains().unwrap_or_default(),
    }
}
