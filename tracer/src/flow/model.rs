//! A flow: one client connection attempt to a NodePort.

use std::net::SocketAddr;

use tracer_common::{
    hook::Hook,
    record::{IpvsConn, Phase},
    tcp::Part,
    tuple::Tuple,
};

pub use super::step::{Attempt, Earlier, Step};
use super::step::{Place, RETRANSMIT_NS};
use crate::decode::event::{Event, Payload};

/// The most steps kept of a flow; further ones are only counted.
const MOST_STEPS: usize = 512;

/// The most records kept beside the steps.
const MOST_DETAILS: usize = 64;

/// The most SYNs kept of a flow. No client sends this many with one sequence number: more are a loop or an attack.
pub(super) const MOST_ATTEMPTS: usize = 512;

/// One client connection attempt to a NodePort.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Flow {
    /// Counts from 1 in the order in which flows began.
    pub id: u64,
    /// The tuple that the client sent.
    pub original: Tuple,
    /// Initial sequence number of its SYN.
    pub isn: u32,
    /// Network namespace in which the SYN was first seen; 0 if unknown.
    pub netns: u32,
    /// Each SYN on the wire.
    pub attempts: Vec<Attempt>,
    /// Everything that was seen, in order.
    pub steps: Vec<Step>,
    /// What hooks also read from packets that were dropped or refused: their marks and TCP headers. Not part of the path.
    pub details: Vec<Event>,
    /// Steps beyond [`MOST_STEPS`] that were not kept, and SYNs beyond [`MOST_ATTEMPTS`].
    pub steps_left_out: u64,
    /// SYN-ACKs sent by the backend.
    pub synacks: u32,
    /// When the handshake finished, monotonic nanoseconds: the client's ACK came in and was not seen to be lost after
    /// that, or the backend's listener accepted it.
    pub established_ns: Option<u64>,
    /// The backend's listener created the connection.
    pub accepted: bool,
    /// The kernel skipped the probe that would have shown that.
    pub acceptance_unseen: bool,
    /// When the handshake was over for the backend too, as far as that was seen, monotonic nanoseconds: its listener created
    /// the connection, or a copy of the SYN followed the client's ACK. From then on the backend answers copies only.
    pub over_ns: Option<u64>,
    /// When the ACK that should have finished the handshake was first dropped after it came in, monotonic nanoseconds. The
    /// client then has its connection, the backend does not.
    pub ack_lost_ns: Option<u64>,
    /// When the refusal went out to the client, monotonic nanoseconds.
    pub refused_ns: Option<u64>,
    /// The flow from the same client port before this one.
    pub earlier: Option<Earlier>,
    /// The node opened the connection itself, and IPVS handled the SYN-ACK as a request. Then the client is the node's peer,
    /// and each SYN-ACK counts as a SYN.
    pub is_own_connection: bool,
    /// How long it may be silent after its last SYN before it is reported as it is, nanoseconds.
    pub patience_ns: u64,
    /// It was evicted before its fate was known: more flows at a time than tracer keeps.
    pub is_evicted: bool,
    /// The kernel half had given it up before its last SYN, and did not see what happened to it until then.
    pub was_unfollowed: bool,
    /// A neighbour entry or a netfilter queue held a packet at least once.
    pub(super) may_be_held: bool,
    pub(super) syn_origin: Place,
    pub(super) synack_origin: Option<Place>,
    pub(super) beyond: Option<Beyond>,
}

/// A SYN that left the node unmodified: routed, or sent by IPVS with direct routing or in a tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beyond {
    skb: u64,
    /// The network namespace where it last came in; 0 if it has not yet.
    netns: u32,
}

impl Flow {
    pub(super) fn new(id: u64, event: &Event, earlier: Option<Earlier>, patience_ns: u64) -> Self {
        Self {
            id,
            original: event.tuple,
            isn: event.isn,
            netns: event.netns,
            attempts: Vec::new(),
            steps: Vec::new(),
            details: Vec::new(),
            steps_left_out: 0,
            synacks: 0,
            established_ns: None,
            accepted: false,
            acceptance_unseen: false,
            over_ns: None,
            ack_lost_ns: None,
            refused_ns: None,
            earlier,
            is_own_connection: event.part == Part::SynAck,
            patience_ns,
            is_evicted: false,
            was_unfollowed: false,
            may_be_held: false,
            syn_origin: Place::of(event),
            synack_origin: None,
            beyond: None,
        }
    }

    /// Whether this SYN, with the tuple that the client sent, is on the node, or past it on the path to its receiver. If not, a
    /// client in a namespace of this machine retransmits its SYN: it counts once it comes in.
    pub(super) fn has_come_in(&mut self, syn: &Event) -> bool {
        if self.is_on_node(syn) {
            if syn.hook == Hook::DevStartXmit {
                self.beyond = Some(Beyond {
                    skb: syn.skb,
                    netns: 0,
                });
            }
            return true;
        }
        let Some(beyond) = self.beyond.as_mut().filter(|beyond| beyond.skb == syn.skb) else {
            return false;
        };
        if syn.hook == Hook::NetifReceive {
            beyond.netns = syn.netns;
        }
        let came_in = beyond.netns == syn.netns;
        if !came_in || matches!(syn.payload, Payload::Drop(_)) {
            // The buffer of a freed packet is reused, possibly for the client's own next one if the SYN came back to the client's
            // namespace.
            self.beyond = None;
        }
        came_in
    }

    /// The client's address and port.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.original.source()
    }

    /// The node's address and NodePort.
    #[must_use]
    pub fn node(&self) -> SocketAddr {
        self.original.destination()
    }

    /// When the first SYN was seen, monotonic nanoseconds.
    #[must_use]
    pub fn start_ns(&self) -> u64 {
        self.attempts.first().map_or(0, |attempt| attempt.time_ns)
    }

    /// When the last SYN was seen, monotonic nanoseconds.
    #[must_use]
    pub fn last_syn_ns(&self) -> u64 {
        self.attempts.last().map_or(0, |attempt| attempt.time_ns)
    }

    /// The steps of one SYN and of what answered it.
    #[must_use]
    pub fn steps_of(&self, attempt: usize) -> impl DoubleEndedIterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.attempt == attempt)
    }

    /// Index of the SYN that was answered by the first SYN-ACK; `None` if none was.
    #[must_use]
    pub fn answered_attempt(&self) -> Option<usize> {
        self.steps
            .iter()
            .find(|step| step.event.part == Part::SynAck)
            .map(|step| step.attempt)
    }

    /// The SYNs that the client sent, without the copies that the network made of them: indexes into
    /// [`Flow::attempts`].
    #[must_use]
    pub fn sent(&self) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.attempts.len()).filter(|&index| !self.attempts[index].is_copy)
    }

    /// The SYN that the client sent: this one or, if it is a copy, its original. Index into [`Flow::attempts`].
    #[must_use]
    pub fn sent_of(&self, attempt: usize) -> usize {
        let is_sent = |&index: &usize| self.attempts.get(index).is_some_and(|attempt| !attempt.is_copy);
        (0..=attempt).rev().find(is_sent).unwrap_or(attempt)
    }

    /// Whether all hooks were attached from this SYN on until its end was known.
    #[must_use]
    pub fn is_watched(&self, attempt: usize) -> bool {
        self.attempts.get(attempt).is_none_or(|syn| syn.is_watched)
    }

    /// Whether a SYN-ACK answered one SYN, or a copy of it.
    #[must_use]
    pub fn is_answered(&self, attempt: usize) -> bool {
        let sent = self.sent_of(attempt);
        self.answered().any(|answered| answered == sent)
    }

    /// Whether a SYN-ACK answered a later SYN, and none this one.
    #[must_use]
    pub fn is_answered_later(&self, attempt: usize) -> bool {
        let sent = self.sent_of(attempt);
        !self.is_answered(attempt) && self.answered().any(|answered| answered > sent)
    }

    /// The SYN that each step of a SYN-ACK answers: indexes into [`Flow::attempts`].
    pub(super) fn answered(&self) -> impl Iterator<Item = usize> {
        let answers = self.steps.iter().filter(|step| step.event.part == Part::SynAck);
        answers.map(|step| self.sent_of(step.attempt))
    }

    /// The copies that the network made of one SYN: indexes into [`Flow::attempts`].
    pub fn copies_of(&self, attempt: usize) -> impl Iterator<Item = usize> {
        let later = attempt + 1..self.attempts.len();
        later.take_while(|&index| self.attempts[index].is_copy)
    }

    /// The steps at which a SYN-ACK left the node as the client must get it.
    pub fn answers_sent(&self) -> impl Iterator<Item = &Step> {
        let back = self.original.reversed();
        self.steps.iter().filter(move |step| {
            step.event.part == Part::SynAck
                && step.event.hook == Hook::DevStartXmit
                && step.event.tuple == back
                && self.is_on_node(&step.event)
        })
    }

    /// Whether the packet was in the network namespace that the client addressed, not in a pod's.
    #[must_use]
    pub fn is_on_node(&self, event: &Event) -> bool {
        event.netns == self.netns || event.netns == 0
    }

    /// Whether IPVS forwarded a SYN unmodified, so that the real server answers the client itself, from the service's address.
    #[must_use]
    pub fn is_answered_directly(&self) -> bool {
        self.steps.iter().any(|step| step.event.hook.is_ipvs_plain_xmit())
    }

    /// The backend that the last SYN was sent to, as long as the handshake went on.
    #[must_use]
    pub fn backend(&self) -> Option<SocketAddr> {
        self.steps
            .iter()
            .rev()
            .filter(|step| self.over_ns.is_none_or(|over| step.event.time_ns < over))
            .find_map(|step| backend_in(&step.event))
    }

    /// The backend that one SYN was sent to.
    #[must_use]
    pub fn backend_of(&self, attempt: usize) -> Option<SocketAddr> {
        self.steps_of(attempt)
            .rev()
            .find_map(|step| backend_in(&step.event))
    }

    /// The SYN's tuple after DNAT, with the client's own address, and after SNAT, as it left for the backend. Taken from the
    /// last SYN for which it was seen while the handshake lasted; `None` where nothing was translated, or the translation was
    /// not seen.
    #[must_use]
    pub fn translated(&self) -> (Option<Tuple>, Option<Tuple>) {
        let dnat = self.backend().filter(|&backend| backend != self.node());
        let dnat = dnat.map(|backend| Tuple {
            daddr: backend.ip().into(),
            dport: backend.port(),
            ..self.original
        });
        let snat = self
            .steps
            .iter()
            .rev()
            .filter(|step| self.over_ns.is_none_or(|over| step.event.time_ns < over))
            .filter(|step| step.event.part == Part::Syn)
            .find_map(|step| {
                match &step.event.payload {
                    Payload::Conntrack(entry) => Some(entry.reply.reversed()),
                    Payload::Packet => Some(step.event.tuple),
                    _ => None,
                }
                .filter(|tuple| tuple.source() != self.client())
            });
        (dnat, snat)
    }

    /// The backend to which an existing conntrack entry translated a SYN, so that no rule was evaluated. `None` if no such
    /// entry was seen, now or when it was created, or if IPVS chose.
    #[must_use]
    pub fn backend_by_old_entry(&self, attempt: usize) -> Option<SocketAddr> {
        if self.has_skipped(attempt) {
            return None;
        }
        let mut translated = None;
        for step in self.steps_of(attempt).filter(|step| step.event.part == Part::Syn) {
            if step.event.hook.decides_destination() {
                return None;
            }
            let to = step.event.tuple.destination();
            if to != self.node() && self.is_on_node(&step.event) {
                translated.get_or_insert(to);
            }
        }
        let to = translated?;
        let leads_there = |step: &Step| match &step.event.payload {
            Payload::Conntrack(entry) => entry.reply.source() == to,
            _ => false,
        };
        self.steps.iter().any(leads_there).then_some(to)
    }

    /// Moves steps that were seen just before `seen_ns` from the previous SYN to the newest one. A retransmission by a client
    /// on this node is known only after the fact: from the kernel's tracepoint, or because the SYN is dropped.
    pub(super) fn reassign_recent_steps(&mut self, seen_ns: u64) {
        let Some(index) = self.attempts.len().checked_sub(1).filter(|&index| index > 0) else {
            return;
        };
        let before = self.attempts[index - 1].time_ns;
        let since = seen_ns.max(before.saturating_add(2 * RETRANSMIT_NS)) - RETRANSMIT_NS;
        let begin = self.steps.partition_point(|step| step.event.time_ns < since);
        let (earlier, recent) = self.steps.split_at_mut(begin);
        // A buffer that waits for ARP/ND still holds the old SYN. Any other buffer has been freed by then, and its address may
        // be the new SYN's.
        let waits = |skb: u64| {
            let last = earlier.iter().rfind(|step| step.event.skb == skb);
            last.is_some_and(|step| step.event.hook == Hook::NeighbourSend)
        };
        let mut first = None;
        for step in recent {
            let is_own = match step.event.part {
                Part::Syn => !waits(step.event.skb),
                _ => first.is_some(),
            };
            if is_own {
                step.attempt = index;
                first.get_or_insert((step.event.time_ns, step.event.skb));
            }
        }
        if let Some((time_ns, skb)) = first {
            let newest = &mut self.attempts[index];
            newest.time_ns = newest.time_ns.min(time_ns);
            newest.skb = skb;
        }
    }

    /// Notes that the kernel skipped probes for a packet that a tracepoint has just reported.
    pub(super) fn skip(&mut self, event: &Event) {
        let reported = self.steps.iter_mut().rev().find(|step| {
            let seen = &step.event;
            (seen.hook, seen.skb, seen.part, seen.netns, seen.tuple)
                == (event.hook, event.skb, event.part, event.netns, event.tuple)
        });
        if let Some(step) = reported {
            step.probes_skipped = true;
            if event.part == Part::Ack {
                // As far as is known, the backend has nothing left to answer: its further packets were delayed somewhere.
                self.acceptance_unseen = true;
                self.over_ns.get_or_insert(event.time_ns);
            }
        }
    }

    /// Whether the kernel skipped probes for this SYN or its answer.
    #[must_use]
    pub fn has_skipped(&self, attempt: usize) -> bool {
        self.steps_of(attempt).any(|step| step.probes_skipped)
    }

    /// Keeps what a hook read in addition to its step.
    pub(super) fn keep_detail(&mut self, event: Event) {
        if self.details.len() < MOST_DETAILS {
            self.details.push(event);
        }
    }

    /// What this hook read in addition to its step when it saw this packet. Of several records, the one nearest in time
    /// counts, because the buffer of a freed packet is reused.
    pub fn detail<'a, T>(&'a self, of: &Event, read: impl Fn(&'a Payload) -> Option<T>) -> Option<T> {
        let same = self
            .details
            .iter()
            .filter(|event| (event.hook, event.skb, event.part) == (of.hook, of.skb, of.part))
            .filter_map(|event| Some((event.time_ns.abs_diff(of.time_ns), read(&event.payload)?)));
        same.min_by_key(|&(distance, _)| distance).map(|(_, found)| found)
    }

    /// The mark with which the kernel looked up a route for this packet, or for the answer to it.
    #[must_use]
    pub fn mark(&self, of: &Event) -> Option<u32> {
        self.detail(of, |payload| match payload {
            Payload::Mark(mark) => Some(mark.mark),
            _ => None,
        })
    }

    pub(super) fn push(&mut self, event: Event, attempt: usize) {
        // A return without payload only completes the step of its entry.
        if event.phase == Phase::Return
            && event.payload == Payload::Packet
            && let Some(step) = self.steps.iter_mut().rev().find(|step| {
                step.event.call == event.call
                    && step.event.hook == event.hook
                    && step.event.skb == event.skb
                    && step.verdict.is_none()
            })
        {
            step.verdict = Some(event.verdict);
            return;
        }
        if self.steps.len() >= MOST_STEPS {
            self.steps_left_out += 1;
            return;
        }
        let verdict = (event.phase == Phase::Return).then_some(event.verdict);
        let netns = self.netns_of(&event, attempt);
        self.steps.push(Step {
            event,
            attempt,
            verdict,
            netns,
            probes_skipped: false,
        });
    }

    /// The network namespace of an event that does not carry it: where its packet was last seen or, failing that, its SYN.
    fn netns_of(&self, event: &Event, attempt: usize) -> u32 {
        if event.netns != 0 {
            return event.netns;
        }
        let is_same = |step: &&Step| step.event.skb == event.skb && step.event.part == event.part;
        let packet = self.steps.iter().rfind(is_same);
        packet
            .or_else(|| self.steps_of(attempt).next_back())
            .map_or(self.netns, |step| step.netns)
    }
}

/// The backend that this event shows: in the entry with which IPVS transmits, or in the translation that conntrack confirms.
pub(crate) fn backend_in(event: &Event) -> Option<SocketAddr> {
    match (&event.payload, event.hook) {
        (Payload::IpvsConn(conn), hook) if hook.is_ipvs_xmit() || hook == Hook::IpvsReply => {
            real_server(conn)
        }
        (Payload::Conntrack(ct), _) if ct.reply.source() != ct.original.destination() => {
            Some(ct.reply.source())
        }
        _ => None,
    }
}

/// The real server of a connection entry, if it could be read.
#[must_use]
pub fn real_server(conn: &IpvsConn) -> Option<SocketAddr> {
    (conn.conn != 0 && conn.have & tracer_common::record::ipvs_conn::BACKEND != 0)
        .then(|| SocketAddr::new(conn.daddr.ip(), conn.dport))
}
