//! When routes are looked up: as soon as a packet was seen that they decide about.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use tracer_common::{hook::Hook, record::Phase, tcp::Part};

use crate::{
    decode::event::{Event, Payload},
    facts::{Facts, changed_facts::ChangedFacts, kallsyms::Symbols},
    flow::model::Flow,
    node::{
        max_age::MAX_AGE,
        netns,
        route::{self, Lookup},
    },
};

/// How many routes are looked up per second, so that a flood of unroutable packets does not keep tracer busy.
const MOST_PER_SECOND: usize = 32;
/// The same lookup is repeated for a later packet, but not more often than this.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long a result is kept for the flows that need it: longer than any flow is undecided.
const KEPT: Duration = Duration::from_mins(3);
/// The most results that are kept.
const MOST_RESULTS: usize = 512;

/// The network namespace (inode number) of a lookup, and its address.
type Key = (u32, IpAddr);

/// Looks up routes, and remembers the lookups.
#[derive(Debug, Default)]
pub(super) struct RouteReader {
    looked_up: HashMap<Key, (Lookup, Instant)>,
    /// Lookups for the packets seen since the last reading.
    wanted: BTreeMap<Key, Lookup>,
    /// When routes were last looked up, for the limit per second.
    second: Option<(Instant, usize)>,
}

impl RouteReader {
    /// Notes what the kernel has just looked up for a packet.
    pub(super) fn observe(&mut self, event: &Event, symbols: &Symbols) {
        let Some(lookup) = lookup(event, |address| {
            symbols.locate(address).map(|found| found.symbol.to_owned())
        }) else {
            return;
        };
        if event.netns != 0 && self.wanted.len() < MOST_PER_SECOND {
            self.wanted.insert((event.netns, lookup.to), lookup);
        }
    }

    /// Looks up the routes of the packets seen since the last call.
    pub(super) fn read(&mut self, facts: &mut Facts, changed: &mut ChangedFacts) {
        let wanted = std::mem::take(&mut self.wanted);
        self.look_up(wanted, INTERVAL, facts, changed);
    }

    /// Looks up the routes for a flow that were not looked up yet: the namespace of a packet is known only once it is in a
    /// flow.
    pub(super) fn read_for(&mut self, flow: &Flow, facts: &mut Facts, changed: &mut ChangedFacts) {
        let wanted: BTreeMap<Key, Lookup> = flow
            .steps
            .iter()
            .filter(|step| step.netns != 0)
            .filter_map(|step| {
                let symbol = |address| facts.symbol(address).map(str::to_owned);
                let mut lookup = lookup(&step.event, symbol).or_else(|| {
                    // The call and its return are one step.
                    let is_refused = matches!(step.event.payload, Payload::Listener(_))
                        && step.verdict.is_some_and(|drops| drops != 0);
                    is_refused.then(|| answer_of_listener(&step.event))
                })?;
                lookup.input = lookup.input.filter(|_| step.event.netns != 0);
                Some(((step.netns, lookup.to), lookup))
            })
            .collect();
        self.look_up(wanted, KEPT, facts, changed);
        // Whether the destination of a SYN is an address of the namespace that it came into.
        let arrivals = flow.steps.iter().filter(|step| {
            let event = &step.event;
            event.hook == Hook::NetifReceive
                && event.part == Part::Syn
                && event.netns != 0
                && !flow.is_on_node(event)
        });
        let arrived = arrivals
            .map(|step| ((step.netns, step.event.tuple.daddr.ip()), ahead(&step.event)))
            .collect();
        self.look_up(arrived, MAX_AGE, facts, changed);
    }

    /// Looks up routes that were not looked up within `max_age`.
    fn look_up(
        &mut self,
        wanted: BTreeMap<Key, Lookup>,
        max_age: Duration,
        facts: &mut Facts,
        changed: &mut ChangedFacts,
    ) {
        let looked_up = &mut self.looked_up;
        looked_up.retain(|_, (_, at)| at.elapsed() < KEPT);
        if wanted.is_empty() {
            return;
        }
        let before = facts.routes.len();
        facts.routes.retain(|key, _| looked_up.contains_key(key));
        changed.routes |= facts.routes.len() != before;
        let (begun, count) = self.second.get_or_insert_with(|| (Instant::now(), 0));
        if begun.elapsed() > Duration::from_secs(1) {
            (*begun, *count) = (Instant::now(), 0);
        }
        let mut by_netns: BTreeMap<u32, Vec<Lookup>> = BTreeMap::new();
        for (key, lookup) in wanted {
            let known = looked_up.get(&key);
            if known.is_some_and(|(known, at)| *known == lookup && at.elapsed() < max_age) {
                continue;
            }
            if *count >= MOST_PER_SECOND || (known.is_none() && looked_up.len() >= MOST_RESULTS) {
                break;
            }
            *count += 1;
            looked_up.insert(key, (lookup, Instant::now()));
            by_netns.entry(key.0).or_default().push(lookup);
        }
        for (netns, lookups) in by_netns {
            let look_up = || -> Vec<_> {
                let results = lookups.iter().map(|lookup| (lookup.to, route::look_up(lookup)));
                results.collect()
            };
            for (address, result) in netns::inside(netns, look_up).unwrap_or_default() {
                changed.routes = true;
                match result {
                    Ok(Some(route)) => drop(facts.routes.insert((netns, address), route)),
                    // An older result is that of another lookup, or no longer holds.
                    Ok(None) | Err(_) => drop(facts.routes.remove(&(netns, address))),
                }
            }
        }
    }
}

/// What the kernel looked up for this packet, if routing rejected it.
fn lookup(event: &Event, symbol: impl Fn(u64) -> Option<String>) -> Option<Lookup> {
    let (source, destination) = (event.tuple.saddr.ip(), event.tuple.daddr.ip());
    match (event.hook, &event.payload) {
        (Hook::RouteMartian, _) => Some(Lookup {
            to: source,
            from: Some(destination),
            input: None,
            is_reverse: true,
        }),
        (Hook::RouteError, _) => Some(ahead(event)),
        // A listener drops a SYN if it has no route for the answer.
        (Hook::TcpConnRequest, _) if event.phase == Phase::Return && event.verdict != 0 => {
            Some(answer_of_listener(event))
        }
        (_, Payload::Drop(drop)) => {
            let place = symbol(drop.location)?;
            (drops_unroutable(&place) || drops_on_input(&place)).then(|| ahead(event))
        }
        // IPVS refuses a loopback source for a real server that is not on the node.
        (hook, Payload::IpvsConn(conn)) if hook.is_ipvs_xmit() && source.is_loopback() => Some(Lookup {
            to: conn.daddr.ip(),
            from: None,
            input: None,
            is_reverse: false,
        }),
        _ => None,
    }
}

/// The route of a packet that came in.
fn ahead(event: &Event) -> Lookup {
    Lookup {
        to: event.tuple.daddr.ip(),
        from: Some(event.tuple.saddr.ip()),
        input: Some(event.ifindex).filter(|&index| index != 0),
        is_reverse: false,
    }
}

/// The route from the address that a SYN was sent to back to its sender.
fn answer_of_listener(event: &Event) -> Lookup {
    Lookup {
        to: event.tuple.saddr.ip(),
        from: Some(event.tuple.daddr.ip()),
        input: None,
        is_reverse: false,
    }
}

/// Whether the kernel drops unroutable packets in this function, which has no hook of its own.
fn drops_unroutable(place: &str) -> bool {
    place.starts_with("ip6_pkt_") || place.starts_with("dst_discard")
}

/// Whether IP first looks at a packet in this function, and drops it there for example because its frame was for another MAC
/// address (`ip_rcv_core`, `ip6_rcv_core`).
pub(super) fn drops_on_input(place: &str) -> bool {
    place.starts_with("ip_rcv") || place.starts_with("ip6_rcv")
}
