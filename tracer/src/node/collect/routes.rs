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
        route::{self, Question},
    },
};

/// How many routes are looked up per second, so that a flood of unroutable packets does not keep tracer busy.
const MOST_PER_SECOND: usize = 32;
/// The same question is asked again for a later packet, but not more often than this.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long an answer is kept for the flows that need it: longer than any flow is undecided.
const KEPT: Duration = Duration::from_mins(3);
/// The most answers that are kept.
const MOST_ANSWERS: usize = 512;

/// What is asked in which network namespace (inode number) about which address.
type Key = (u32, IpAddr);

/// Looks up routes, and remembers what was asked.
#[derive(Debug, Default)]
pub(super) struct RouteReader {
    asked: HashMap<Key, (Question, Instant)>,
    /// Questions about the packets seen since the last reading.
    wanted: BTreeMap<Key, Question>,
    /// When routes were last looked up, for the limit per second.
    second: Option<(Instant, usize)>,
}

impl RouteReader {
    /// Notes what the kernel has just asked about a packet.
    pub(super) fn observe(&mut self, event: &Event, symbols: &Symbols) {
        let Some(question) = question(event, |address| {
            symbols.locate(address).map(|found| found.symbol.to_owned())
        }) else {
            return;
        };
        if event.netns != 0 && self.wanted.len() < MOST_PER_SECOND {
            self.wanted.insert((event.netns, question.to), question);
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
        let wanted: BTreeMap<Key, Question> = flow
            .steps
            .iter()
            .filter(|step| step.netns != 0)
            .filter_map(|step| {
                let symbol = |address| facts.symbol(address).map(str::to_owned);
                let mut question = question(&step.event, symbol).or_else(|| {
                    // The call and its return are one step.
                    let is_refused = matches!(step.event.payload, Payload::Listener(_))
                        && step.verdict.is_some_and(|drops| drops != 0);
                    is_refused.then(|| answer_of_listener(&step.event))
                })?;
                question.input = question.input.filter(|_| step.event.netns != 0);
                Some(((step.netns, question.to), question))
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
        wanted: BTreeMap<Key, Question>,
        max_age: Duration,
        facts: &mut Facts,
        changed: &mut ChangedFacts,
    ) {
        let asked = &mut self.asked;
        asked.retain(|_, (_, at)| at.elapsed() < KEPT);
        if wanted.is_empty() {
            return;
        }
        let before = facts.routes.len();
        facts.routes.retain(|key, _| asked.contains_key(key));
        changed.routes |= facts.routes.len() != before;
        let (begun, count) = self.second.get_or_insert_with(|| (Instant::now(), 0));
        if begun.elapsed() > Duration::from_secs(1) {
            (*begun, *count) = (Instant::now(), 0);
        }
        let mut by_netns: BTreeMap<u32, Vec<Question>> = BTreeMap::new();
        for (key, question) in wanted {
            let known = asked.get(&key);
            if known.is_some_and(|(known, at)| *known == question && at.elapsed() < max_age) {
                continue;
            }
            if *count >= MOST_PER_SECOND || (known.is_none() && asked.len() >= MOST_ANSWERS) {
                break;
            }
            *count += 1;
            asked.insert(key, (question, Instant::now()));
            by_netns.entry(key.0).or_default().push(question);
        }
        for (netns, questions) in by_netns {
            let look_up = || -> Vec<_> {
                let answers = questions
                    .iter()
                    .map(|question| (question.to, route::ask(question)));
                answers.collect()
            };
            for (address, answer) in netns::inside(netns, look_up).unwrap_or_default() {
                changed.routes = true;
                match answer {
                    Ok(Some(route)) => drop(facts.routes.insert((netns, address), route)),
                    // An older answer was to another question, or no longer holds.
                    Ok(None) | Err(_) => drop(facts.routes.remove(&(netns, address))),
                }
            }
        }
    }
}

/// What the kernel asked about this packet, if routing rejected it.
fn question(event: &Event, symbol: impl Fn(u64) -> Option<String>) -> Option<Question> {
    let (source, destination) = (event.tuple.saddr.ip(), event.tuple.daddr.ip());
    match (event.hook, &event.payload) {
        (Hook::RouteMartian, _) => Some(Question {
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
        (hook, Payload::IpvsConn(conn)) if hook.is_ipvs_xmit() && source.is_loopback() => Some(Question {
            to: conn.daddr.ip(),
            from: None,
            input: None,
            is_reverse: false,
        }),
        _ => None,
    }
}

/// The route of a packet that came in.
fn ahead(event: &Event) -> Question {
    Question {
        to: event.tuple.daddr.ip(),
        from: Some(event.tuple.saddr.ip()),
        input: Some(event.ifindex).filter(|&index| index != 0),
        is_reverse: false,
    }
}

/// The route from the address that a SYN was sent to back to its sender.
fn answer_of_listener(event: &Event) -> Question {
    Question {
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
