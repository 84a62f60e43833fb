//! When routes are looked up: as soon as a packet was seen that they decide about.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use tracer_common::{hook::Hook, record::Phase, tcp::Part};

use crate::{
    decode::event::{Event, Payload},
    facts::{Facts, changed_facts::ChangedFacts, kallsyms::Symbols, route_lookup::RouteLookup},
    flow::model::Flow,
    node::{max_age::MAX_AGE, netns, route},
};

/// The most routes that are looked up per second, so that a flood of unroutable packets does not keep tracer busy.
const MOST_PER_SECOND: usize = 32;
/// The shortest time between two lookups of the same route, for different packets.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long a route is kept for the flows that need it: longer than any flow is undecided.
const KEPT: Duration = Duration::from_mins(3);
/// The most routes that are kept.
const MOST_LOOKUPS: usize = 512;
/// The most marks that are kept between two readings.
const MOST_MARKS: usize = 1024;

/// Looks up routes, and remembers the lookups.
#[derive(Debug, Default)]
pub(super) struct RouteReader {
    /// The time of each lookup.
    looked_up: HashMap<RouteLookup, Instant>,
    /// Lookups for the packets seen since the last reading.
    wanted: BTreeSet<RouteLookup>,
    /// The marks of those packets, by hook and buffer: their records come first.
    marks: HashMap<(Hook, u64), u32>,
    /// When routes were last looked up, for the limit per second.
    second: Option<(Instant, usize)>,
}

impl RouteReader {
    /// Forgets a network namespace that is gone.
    pub(super) fn forget(&mut self, netns: u32) {
        self.looked_up.retain(|lookup, _| lookup.netns != netns);
        self.wanted.retain(|lookup| lookup.netns != netns);
    }

    /// Notes what the kernel has just looked up for a packet.
    pub(super) fn observe(&mut self, event: &Event, symbols: &Symbols) {
        if let Payload::Mark(mark) = &event.payload {
            if self.marks.len() < MOST_MARKS {
                self.marks.insert((event.hook, event.skb), mark.mark);
            }
            return;
        }
        let symbol = |address| symbols.locate(address).map(|found| found.symbol.to_owned());
        let mark = || self.marks.get(&(event.hook, event.skb)).copied();
        if event.netns != 0
            && self.wanted.len() < MOST_PER_SECOND
            && let Some(lookup) = lookup(event.netns, event, mark, symbol)
        {
            self.wanted.insert(lookup);
        }
    }

    /// Looks up the routes of the packets seen since the last call.
    pub(super) fn read(&mut self, facts: &mut Facts, changed: &mut ChangedFacts) {
        self.marks.clear();
        let wanted = std::mem::take(&mut self.wanted);
        self.look_up(wanted, INTERVAL, facts, changed);
    }

    /// Looks up the routes for a flow that were not looked up yet: the namespace of a packet is known only once it is in a
    /// flow.
    pub(super) fn read_for(&mut self, flow: &Flow, facts: &mut Facts, changed: &mut ChangedFacts) {
        let symbol = |address| facts.symbol(address).map(str::to_owned);
        let wanted = wanted_for(flow, symbol);
        self.look_up(wanted, KEPT, facts, changed);
        self.look_up(arrivals_of(flow), MAX_AGE, facts, changed);
    }

    /// Looks up routes that were not looked up within `max_age`.
    fn look_up(
        &mut self,
        wanted: BTreeSet<RouteLookup>,
        max_age: Duration,
        facts: &mut Facts,
        changed: &mut ChangedFacts,
    ) {
        let looked_up = &mut self.looked_up;
        looked_up.retain(|_, at| at.elapsed() < KEPT);
        if wanted.is_empty() {
            return;
        }
        let before = facts.looked_up.len();
        facts.looked_up.retain(|key, _| looked_up.contains_key(key));
        changed.routes |= facts.looked_up.len() != before;
        let (begun, count) = self.second.get_or_insert_with(|| (Instant::now(), 0));
        if begun.elapsed() > Duration::from_secs(1) {
            (*begun, *count) = (Instant::now(), 0);
        }
        let mut by_netns: BTreeMap<u32, Vec<RouteLookup>> = BTreeMap::new();
        for lookup in wanted {
            let known = looked_up.get(&lookup);
            if known.is_some_and(|at| at.elapsed() < max_age) {
                continue;
            }
            if *count >= MOST_PER_SECOND || (known.is_none() && looked_up.len() >= MOST_LOOKUPS) {
                break;
            }
            *count += 1;
            looked_up.insert(lookup, Instant::now());
            by_netns.entry(lookup.netns).or_default().push(lookup);
        }
        for (netns, lookups) in by_netns {
            let look_up = || -> Vec<_> {
                let lookups = lookups.iter();
                let routes = lookups.map(|&wanted| (wanted, route::look_up(wanted)));
                routes.collect()
            };
            for (wanted, route) in netns::inside(netns, look_up).unwrap_or_default() {
                changed.routes = true;
                // An older route may no longer hold.
                facts.looked_up.remove(&wanted);
                if let Ok((made, route)) = route {
                    looked_up.insert(made, Instant::now());
                    facts.looked_up.insert(made, route);
                }
            }
        }
    }
}

/// The lookups of the kernel for the packets of a flow that routing refused.
fn wanted_for(flow: &Flow, symbol: impl Fn(u64) -> Option<String>) -> BTreeSet<RouteLookup> {
    let steps = flow.steps.iter().filter(|step| step.netns != 0);
    steps
        .filter_map(|step| {
            let event = &step.event;
            let mark = || flow.mark(event);
            lookup(step.netns, event, mark, &symbol).or_else(|| {
                // The call and its return are one step.
                let is_refused = matches!(event.payload, Payload::Listener(_))
                    && step.verdict.is_some_and(|drops| drops != 0);
                is_refused.then(|| RouteLookup::of_answer(step.netns, event, mark()))
            })
        })
        .collect()
}

/// The lookups that show whether the destination of a SYN is an address of the namespace that it came into.
fn arrivals_of(flow: &Flow) -> BTreeSet<RouteLookup> {
    let steps = flow.steps.iter().filter(|step| {
        let event = &step.event;
        event.hook == Hook::NetifReceive
            && event.part == Part::Syn
            && event.netns != 0
            && !flow.is_on_node(event)
    });
    // Rules may mark the packet after it came in.
    steps
        .map(|step| RouteLookup::ahead(step.netns, &step.event, None))
        .collect()
}

/// The lookup of the kernel for this packet, if routing refused it.
fn lookup(
    netns: u32,
    event: &Event,
    mark: impl Fn() -> Option<u32>,
    symbol: impl Fn(u64) -> Option<String>,
) -> Option<RouteLookup> {
    match (event.hook, &event.payload) {
        (Hook::RouteMartian, _) => Some(RouteLookup::of_source(netns, event, mark())),
        (Hook::RouteError, _) => Some(RouteLookup::ahead(netns, event, mark())),
        // A listener drops a SYN if it has no route for the answer.
        (Hook::TcpConnRequest, _) if event.phase == Phase::Return && event.verdict != 0 => {
            Some(RouteLookup::of_answer(netns, event, mark()))
        }
        (_, Payload::Drop(drop)) => {
            let place = symbol(drop.location)?;
            if drops_unroutable(&place) {
                return Some(RouteLookup::ahead(netns, event, mark()));
            }
            // IP drops it before a rule can mark it.
            drops_on_input(&place).then(|| RouteLookup::ahead(netns, event, None))
        }
        // IPVS refuses a loopback source for a real server that is not on the node.
        (hook, Payload::IpvsConn(conn)) if hook.is_ipvs_xmit() && event.tuple.saddr.ip().is_loopback() => {
            Some(RouteLookup::of_ipvs(netns, conn.daddr.ip()))
        }
        _ => None,
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tracer_common::{
        record::{self, Header},
        tuple::{Addr, Tuple},
    };

    use super::*;

    const IN_DISCARD: u64 = 1;
    const IN_INPUT: u64 = 2;

    fn symbol(address: u64) -> Option<String> {
        let names = [(IN_DISCARD, "ip6_pkt_discard"), (IN_INPUT, "ip_rcv_core")];
        let known = names.iter().find(|&&(place, _)| place == address);
        known.map(|&(_, name)| name.to_owned())
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// A SYN from 10.0.0.2 to 10.0.0.1 that came in through device 4.
    fn event(hook: Hook, payload: Payload) -> Event {
        let header = Header {
            skb: 9,
            hook: hook as u16,
            netns: 7,
            ifindex: 4,
            tuple: Tuple {
                saddr: Addr::from(address(2)),
                daddr: Addr::from(address(1)),
                sport: 41000,
                dport: 30080,
            },
            tcp_flags: 2,
            ..Header::default()
        };
        Event::new(&header, payload).expect("a hook")
    }

    fn drop_at(location: u64) -> Payload {
        Payload::Drop(record::Drop {
            location,
            reason: u32::MAX,
            reserved: 0,
        })
    }

    fn of(event: &Event, mark: Option<u32>) -> Option<RouteLookup> {
        lookup(event.netns, event, || mark, symbol)
    }

    fn ahead(mark: Option<u32>) -> RouteLookup {
        RouteLookup {
            netns: 7,
            to: address(1),
            from: Some(address(2)),
            input: Some(4),
            mark,
            is_reverse: false,
        }
    }

    #[test]
    fn a_lookup_is_the_one_that_the_kernel_makes_there() {
        let route = || Payload::Route(record::Route::default());
        let no_route = event(Hook::RouteError, route());
        assert_eq!(of(&no_route, Some(5)), Some(ahead(Some(5))));
        let refused = event(Hook::RouteMartian, route());
        let of_source = RouteLookup {
            to: address(2),
            from: Some(address(1)),
            is_reverse: true,
            ..ahead(Some(5))
        };
        assert_eq!(of(&refused, Some(5)), Some(of_source));
        let discarded = event(Hook::KfreeSkb, drop_at(IN_DISCARD));
        assert_eq!(of(&discarded, Some(5)), Some(ahead(Some(5))));
        // No rule has marked the packet yet.
        let at_input = event(Hook::KfreeSkb, drop_at(IN_INPUT));
        assert_eq!(of(&at_input, Some(5)), Some(ahead(None)));
        assert_eq!(of(&event(Hook::KfreeSkb, drop_at(3)), Some(5)), None);
    }

    #[test]
    fn a_listener_looks_up_its_answer_if_it_drops_the_syn() {
        let mut returned = event(Hook::TcpConnRequest, Payload::Packet);
        returned.phase = Phase::Return;
        assert_eq!(of(&returned, Some(5)), None);
        returned.verdict = 1;
        let answer = RouteLookup {
            to: address(2),
            from: Some(address(1)),
            input: None,
            ..ahead(Some(5))
        };
        assert_eq!(of(&returned, Some(5)), Some(answer));
    }

    #[test]
    fn the_mark_comes_before_the_record_that_needs_it() {
        let mut reader = RouteReader::default();
        let symbols = Symbols::default();
        let mark = |mark| Payload::Mark(record::Mark { mark, reserved: 0 });
        reader.observe(&event(Hook::KfreeSkb, mark(1)), &symbols);
        reader.observe(&event(Hook::RouteError, mark(5)), &symbols);
        let route = Payload::Route(record::Route::default());
        reader.observe(&event(Hook::RouteError, route.clone()), &symbols);
        // A packet in another buffer.
        let mut other = event(Hook::RouteError, route);
        other.skb = 10;
        reader.observe(&other, &symbols);
        assert_eq!(Vec::from_iter(&reader.wanted), [&ahead(None), &ahead(Some(5))]);
    }

    #[test]
    fn a_lookup_with_another_source_device_or_mark_has_its_own_route() {
        let known = ahead(Some(5));
        let others = [
            RouteLookup {
                from: Some(address(3)),
                ..known
            },
            RouteLookup {
                input: Some(5),
                ..known
            },
            ahead(Some(6)),
            ahead(None),
        ];
        let mut facts = Facts::default();
        facts
            .looked_up
            .insert(known, Some(crate::facts::route::Route::None(101)));
        assert!(facts.route(&known).is_some());
        for other in &others {
            assert_eq!(facts.route(other), None);
        }
    }
}
