//! Joins events to flows and says when a flow's fate is known.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
};

use tracer_common::{
    hook::Hook,
    record::{Phase, time_wait},
    tcp::Part,
    tuple::Tuple,
};

use super::{
    event::{Event, What},
    fate::Fate,
    judge,
    model::{AGAIN_NS, Attempt, Earlier, Flow, MOST_ATTEMPTS, Place, Step},
};

/// Once the fate is known, other CPUs' records of the same moment may still be under way.
const SETTLE_NS: u64 = 50_000_000;
/// For so long after its fate was known a flow is listened to with all its steps: a backend that did not get the ACK
/// sends its SYN-ACK again after one second.
const LINGER_NS: u64 = 1_500_000_000;
/// A decided flow is kept for what may still change it (the client's last retransmissions come minutes apart).
const KEEP_NS: u64 = 130_000_000_000;
/// The most flows that are remembered, and the most steps of all of them; the oldest flows go first. A step takes
/// some 300 bytes.
pub(crate) const MOST_FLOWS: usize = 200_000;
const MOST_STEPS: usize = 400_000;
/// So many flows are handed out at once by [`Engine::take_unasked`].
const MOST_UNASKED: usize = 64;
/// ICMP destination unreachable (RFC 792), and that of ICMPv6 (RFC 4443).
const ICMP_UNREACHABLE: u32 = 3;
/// Its code for a packet that is too big and must not be fragmented.
const ICMP_FRAG_NEEDED: u32 = 4;
const ICMPV6_UNREACHABLE: u32 = 1;

/// A flow and when to look at it again.
#[derive(Debug)]
struct Tracked {
    flow: Flow,
    /// Monotonic nanoseconds at which its fate is due.
    due_ns: u64,
    /// What was last said about it.
    said: Option<Fate>,
    /// How many SYNs it had when that was said.
    said_syns: usize,
    /// Its backend when that was said.
    backend: Option<SocketAddr>,
    /// Nothing that comes changes what was said: its steps are gone.
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    patience_ns: u64,
    next_id: u64,
    flows: HashMap<u64, Tracked>,
    /// When to look at which flow: due time, then the kernel's number.
    due: BTreeSet<(u64, u64)>,
    /// The kernel's number of the last flow of a client's tuple.
    by_tuple: HashMap<Tuple, u64>,
    /// Flows in the order in which they began.
    order: VecDeque<u64>,
    /// Steps of all flows together.
    steps: usize,
    /// Events of flows whose beginning was not seen.
    orphans: u64,
    /// Flows of which a SYN has just gone to a backend without a rule being asked.
    unasked: BTreeSet<u64>,
}

impl Engine {
    /// `patience_ns`: without progress for this long after its last SYN, a flow is reported as it stands.
    #[must_use]
    pub fn new(patience_ns: u64) -> Self {
        Self {
            patience_ns,
            next_id: 1,
            flows: HashMap::new(),
            due: BTreeSet::new(),
            by_tuple: HashMap::new(),
            order: VecDeque::new(),
            steps: 0,
            orphans: 0,
            unasked: BTreeSet::new(),
        }
    }

    /// Events that belonged to no flow whose first SYN was seen.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    /// The number that the next flow gets that begins.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Goes on counting from this number: flows that began before it were not seen.
    pub fn count_from(&mut self, next_id: u64) {
        self.next_id = self.next_id.max(next_id);
    }

    /// Is there a flow to look at by `now_ns`?
    #[must_use]
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.due.first().is_some_and(|&(due, _)| due <= now_ns)
    }

    /// Takes in one event.
    pub fn push(&mut self, event: Event) {
        if !self.flows.contains_key(&event.flow) && !self.begin(&event) {
            self.orphans += 1;
            return;
        }
        let number = event.flow;
        let Some(tracked) = self.flows.get_mut(&number) else {
            return;
        };
        if tracked.closed {
            return;
        }
        let now = event.time_ns;
        let before = tracked.flow.steps.len();
        let leaves = event.part == Part::Syn
            && event.hook == Hook::DevStartXmit
            && event.tuple.destination() != tracked.flow.node();
        add(&mut tracked.flow, event);
        let newest = tracked.flow.attempts.len().saturating_sub(1);
        if leaves && self.unasked.len() < MOST_UNASKED && tracked.flow.backend_by_old_entry(newest).is_some()
        {
            self.unasked.insert(number);
        }
        self.steps += tracked.flow.steps.len() - before;
        let due = due_ns(&tracked.flow, self.patience_ns).max(now);
        if due != tracked.due_ns {
            self.due.remove(&(tracked.due_ns, number));
            tracked.due_ns = due;
            self.due.insert((due, number));
        }
        // A recording can lack the moments at which flows are asked for, and forgotten.
        if self.order.len() > 2 * MOST_FLOWS || self.steps > 2 * MOST_STEPS {
            self.forget(0);
        }
    }

    /// The flows whose fate is known by `now_ns` and was not said yet, or has changed since. Each is handed to `say`.
    pub fn poll(&mut self, now_ns: u64, mut say: impl FnMut(&Flow, Fate)) {
        while let Some(&(due, number)) = self.due.first() {
            if due > now_ns {
                break;
            }
            self.due.pop_first();
            let Some(tracked) = self.flows.get_mut(&number) else {
                continue;
            };
            let fate = judge::of(&tracked.flow);
            if tracked.said != Some(fate) || tracked.said_syns != tracked.flow.attempts.len() {
                tracked.said = Some(fate);
                tracked.said_syns = tracked.flow.attempts.len();
                tracked.backend = tracked.flow.backend();
                say(&tracked.flow, fate);
            }
            let Some(decided) = decided_ns(&tracked.flow) else {
                continue;
            };
            tracked.due_ns = decided.saturating_add(LINGER_NS);
            if tracked.due_ns <= now_ns || self.steps > MOST_STEPS / 2 {
                self.steps -= tracked.flow.steps.len();
                tracked.flow.steps = Vec::new();
                tracked.closed = true;
            } else {
                self.due.insert((tracked.due_ns, number));
            }
        }
        self.forget(now_ns);
    }

    /// Hands out what is left when tracing ends: flows whose fate is not known yet are [`Fate::Pending`].
    pub fn finish(&mut self, now_ns: u64, mut say: impl FnMut(&Flow, Fate)) {
        self.poll(now_ns, &mut say);
        for number in &self.order {
            let Some(tracked) = self.flows.get_mut(number) else {
                continue;
            };
            if tracked.closed {
                continue;
            }
            let flow = &tracked.flow;
            let decided = decided_ns(flow).is_some();
            let fate = if decided { judge::of(flow) } else { Fate::Pending };
            if tracked.said.is_none() || (decided && tracked.said != Some(fate)) {
                tracked.said = Some(fate);
                say(flow, fate);
            }
        }
    }

    /// Hands out each flow whose newest SYN has gone to a backend without a rule being asked, once for each such SYN.
    /// Where the rules lead by now must be looked at before they change.
    pub fn take_unasked(&mut self, mut look: impl FnMut(&Flow)) {
        for number in std::mem::take(&mut self.unasked) {
            if let Some(tracked) = self.flows.get(&number) {
                look(&tracked.flow);
            }
        }
    }

    /// Begins a flow with its first SYN; `false` if the event is not one.
    fn begin(&mut self, event: &Event) -> bool {
        if event.part != Part::Syn || !is_arrival(event) {
            return false;
        }
        let earlier = self
            .by_tuple
            .get(&event.tuple)
            .and_then(|number| self.flows.get(number));
        let earlier = earlier.map(|tracked| Earlier {
            id: tracked.flow.id,
            start_ns: tracked.flow.start_ns(),
            fate: tracked.said.unwrap_or_else(|| judge::of(&tracked.flow)),
            backend: tracked.backend.or_else(|| tracked.flow.backend()),
        });
        let flow = Flow::new(self.next_id, event, earlier);
        self.next_id = self.next_id.saturating_add(1);
        self.by_tuple.insert(event.tuple, event.flow);
        self.order.push_back(event.flow);
        self.flows.insert(
            event.flow,
            Tracked {
                flow,
                due_ns: 0,
                said: None,
                said_syns: 0,
                backend: None,
                closed: false,
            },
        );
        true
    }

    /// Forgets flows that were decided long ago, and the oldest when there are too many.
    fn forget(&mut self, now_ns: u64) {
        while let Some(number) = self.order.front().copied() {
            let too_many = self.order.len() > MOST_FLOWS || self.steps > MOST_STEPS;
            let old = self.flows.get(&number).is_none_or(|tracked| {
                tracked.said.is_some() && tracked.flow.last_syn_ns().saturating_add(KEEP_NS) < now_ns
            });
            if !old && !too_many {
                break;
            }
            self.order.pop_front();
            if let Some(tracked) = self.flows.remove(&number) {
                self.steps -= tracked.flow.steps.len();
                self.due.remove(&(tracked.due_ns, number));
                if self.by_tuple.get(&tracked.flow.original) == Some(&number) {
                    self.by_tuple.remove(&tracked.flow.original);
                }
            }
        }
    }
}

/// Is this a place where a SYN of a client is first seen: a device, or for a client on the node itself its socket, or
/// IPVS?
fn is_arrival(event: &Event) -> bool {
    event.phase == Phase::Entry
        && event.outer.is_none()
        && (matches!(event.hook, Hook::NetifReceive | Hook::TcpConnect) || event.hook.is_ipvs_request())
}

/// When the fate was known, as far as it is: what comes later changes it only if it shows that a packet had to be sent
/// again.
fn decided_ns(flow: &Flow) -> Option<u64> {
    flow.established_ns.or(flow.refused_ns)
}

/// The moment after which nothing changes what was told of this flow, monotonic nanoseconds.
pub(crate) fn settled_ns(flow: &Flow) -> u64 {
    match decided_ns(flow) {
        Some(decided) => decided.saturating_add(LINGER_NS),
        None => flow.last_syn_ns().saturating_add(KEEP_NS),
    }
}

fn due_ns(flow: &Flow, patience_ns: u64) -> u64 {
    match decided_ns(flow) {
        Some(decided) => decided.saturating_add(SETTLE_NS),
        None => flow
            .last_syn_ns()
            .max(flow.ack_lost_ns.unwrap_or(0))
            .saturating_add(patience_ns),
    }
}

/// Adds an event to its flow: a SYN where SYNs come in is a new attempt, everything else belongs to one.
fn add(flow: &mut Flow, event: Event) {
    if let What::Skipped(_) = event.what {
        flow.skip(&event);
        return;
    }
    let is_original = event.tuple == flow.original;
    if is_original && event.part == Part::Syn && !flow.has_come_in(&event) {
        return;
    }
    if event.part == Part::Syn && is_original && is_attempt(flow, &event) {
        if flow.attempts.len() >= MOST_ATTEMPTS {
            flow.steps_left_out += 1;
            return;
        }
        if flow.established_ns.is_some() {
            flow.over_ns.get_or_insert(event.time_ns);
        }
        flow.attempts.push(Attempt {
            time_ns: event.time_ns,
            skb: event.skb,
            is_copy: is_copy(flow, &event),
        });
        if flow.syn_origin.is_at(Hook::TcpConnect) {
            flow.take_over(event.time_ns);
        }
    }
    if event.part == Part::SynAck && matches!(event.hook, Hook::DevStartXmit | Hook::NetifReceive) {
        let place = Place::of(&event);
        if *flow.synack_origin.get_or_insert(place) == place {
            flow.synacks += 1;
        }
    }
    acknowledge(flow, &event);
    if refuses(flow, &event) && flow.refused_ns.is_none() && flow.established_ns.is_none() {
        flow.refused_ns = Some(event.time_ns);
    }
    let attempt = attempt_of(flow, &event);
    flow.push(event, attempt);
}

/// Is this SYN, as the client sent it, seen where the flow's first one was seen?
fn is_attempt(flow: &Flow, event: &Event) -> bool {
    let place = Place::of(event);
    if flow.syn_origin.is_at(Hook::TcpConnect) {
        return event.hook == Hook::TcpConnect || is_sent_again(flow, event);
    }
    is_arrival(event) && place == flow.syn_origin
}

/// Does a client on the node send its SYN again? The kernel tells once it has, and before 6.15 not if the SYN was discarded
/// on its way out (`__tcp_retransmit_skb`, `net/ipv4/tcp_output.c`): then what is seen of it there tells.
fn is_sent_again(flow: &Flow, event: &Event) -> bool {
    let on_its_way_out = event.phase == Phase::Entry
        && (event.hook.is_ipvs_request()
            || matches!(
                event.hook,
                Hook::NatSetup
                    | Hook::NftDoChain
                    | Hook::IptDoTable
                    | Hook::CtIn
                    | Hook::XtDnat
                    | Hook::XtDnatV0
                    | Hook::NftNat
                    | Hook::KfreeSkb
            ));
    (event.hook == Hook::TcpRetransmit || on_its_way_out)
        && event.time_ns >= flow.last_syn_ns().saturating_add(AGAIN_NS)
}

/// Is this SYN one that the client did not send? It comes too soon after the last one, or after the client's ACK. But a
/// client that was answered otherwise than it wished may try again at once.
fn is_copy(flow: &Flow, syn: &Event) -> bool {
    let Some(index) = flow.sent().next_back() else {
        return false;
    };
    let last = &flow.attempts[index];
    let soon = syn.time_ns.saturating_sub(last.time_ns) < AGAIN_NS;
    let may_try_again = || {
        flow.steps
            .iter()
            .any(|step| step.event.time_ns >= last.time_ns && tells_client(step))
            || met_a_connection(flow, index)
    };
    // The TCP of a client on this machine was seen to send it.
    syn.hook != Hook::TcpRetransmit && (flow.established_ns.is_some() || soon && !may_try_again())
}

/// Is the client told something at this step that is no SYN-ACK: an ICMP error, a RST, or the bare ACK of an ended
/// connection?
fn tells_client(step: &Step) -> bool {
    matches!(step.event.what, What::Icmp(_))
        || step.event.part == Part::Rst
        || step.event.hook == Hook::TcpTimewait && step.verdict != Some(time_wait::SYN)
}

/// Did TCP throw this SYN away without a listener being asked? It met a connection that is still alive for its socket, which
/// answers with a bare ACK; the client's RST ends that connection, and Linux then sends its SYN again at once. Inside TCP a
/// packet has no device.
fn met_a_connection(flow: &Flow, attempt: usize) -> bool {
    let mut thrown_away = false;
    for step in flow.steps_of(attempt).filter(|step| step.event.part == Part::Syn) {
        match (&step.event.what, step.event.hook) {
            (What::Drop(_), _) if step.event.netns == 0 => thrown_away = true,
            (_, Hook::TcpConnRequest | Hook::TcpTimewait) => return false,
            _ => {}
        }
    }
    thrown_away
}

/// What an event says about the ACK that ends the handshake: that it came in, was taken, or was lost in between.
fn acknowledge(flow: &mut Flow, event: &Event) {
    let is_original = event.tuple == flow.original;
    let mut arrived = false;
    let mut lost = false;
    match (event.part, event.hook) {
        (Part::Ack, Hook::NetifReceive) => arrived = is_original,
        (Part::SynAck, Hook::TcpFinishConnect) => arrived = true,
        (Part::Ack, Hook::TcpSynRecvSock) if event.phase == Phase::Entry => {
            arrived = true;
            flow.accepted = true;
            flow.over_ns.get_or_insert(event.time_ns);
        }
        (Part::Ack, Hook::TcpSynRecvSock) => {
            lost = true;
            flow.accepted = false;
        }
        // Where the listener answers with RST, that tells; and a listener that waits for data throws the bare ACK
        // away, in its own netns.
        (Part::Ack, Hook::TcpSendReset) => lost = !flow.accepted && !flow.acceptance_unseen,
        (Part::Ack, Hook::KfreeSkb) => {
            lost = !flow.accepted
                && !flow.acceptance_unseen
                && event.netns == flow.netns
                && has_listener_elsewhere(flow);
        }
        _ => {}
    }
    if arrived {
        flow.established_ns.get_or_insert(event.time_ns);
        // What was discarded was a tap's copy, or the client's first data came right behind: nothing was sent again.
        let at_once = |lost: u64| event.time_ns.saturating_sub(lost) < SETTLE_NS;
        flow.ack_lost_ns = flow.ack_lost_ns.filter(|&lost| !at_once(lost));
    }
    if lost {
        flow.established_ns = None;
        flow.over_ns = None;
        flow.ack_lost_ns.get_or_insert(event.time_ns);
    }
}

/// Did a listener in another netns of this machine take the SYN, so that it would have been seen to take the ACK too?
fn has_listener_elsewhere(flow: &Flow) -> bool {
    let took = |step: &Step| step.event.hook == Hook::TcpConnRequest && !flow.is_on_node(&step.event);
    flow.steps.iter().any(took)
}

/// Does this event show that the client is told no: a RST with the address that it asked, a RST for its ACK, or an ICMP
/// error about the SYN?
fn refuses(flow: &Flow, event: &Event) -> bool {
    match (event.part, &event.what) {
        (Part::Ack, What::Socket(_)) => event.hook == Hook::TcpSendReset,
        (Part::Rst, What::Packet) if event.hook == Hook::TcpReceiveReset => true,
        (Part::Rst, What::Packet) => {
            event.hook == Hook::DevStartXmit
                && event.tuple == flow.original.reversed()
                && (flow.is_on_node(event) || flow.is_answered_directly())
        }
        (Part::Syn, What::Icmp(icmp)) => {
            let unreachable = if event.tuple.is_v6() {
                ICMPV6_UNREACHABLE
            } else {
                ICMP_UNREACHABLE
            };
            // Too big is no refusal, and an error about a tunnel's packet goes to the tunnel.
            let too_big = !event.tuple.is_v6() && icmp.code == ICMP_FRAG_NEEDED;
            icmp.icmp_type == unreachable && !too_big && event.outer.is_none() && flow.is_on_node(event)
        }
        _ => false,
    }
}

/// The newest SYN with this packet's buffer, or else the newest that was sent: a buffer may be freed long after its SYN
/// was sent again. What is no SYN belongs to the newest as well, or to the copy that went on in its place.
fn attempt_of(flow: &Flow, event: &Event) -> usize {
    let newest = flow.sent().next_back().unwrap_or(0);
    if event.part != Part::Syn {
        return judge::standing(flow, newest);
    }
    flow.attempts
        .iter()
        .rposition(|attempt| attempt.skb == event.skb)
        .unwrap_or(newest)
}
