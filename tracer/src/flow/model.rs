//! A flow, its attempts and its steps.

use std::net::SocketAddr;

use tracer_common::{
    hook::Hook,
    record::{IpvsConn, Phase},
    tcp::Part,
    tuple::Tuple,
};

use super::fate::Fate;
use crate::decode::event::{Event, What};

/// No TCP sends a SYN or a SYN-ACK again so soon: RFC 6298 asks for a second, and Windows can be set to 300 ms. What
/// comes within this time of the last one is a copy that the network made, or what a copy made the backend say.
pub(super) const AGAIN_NS: u64 = 250_000_000;

/// No flow needs more steps than this; what comes after them is counted only.
const MOST_STEPS: usize = 512;

/// No client sends so many SYNs with one number; what goes on beyond that is a loop, or an attack.
pub(super) const MOST_ATTEMPTS: usize = 512;

/// One thing that the kernel did with a packet of the flow.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was seen.
    pub event: Event,
    /// Which SYN it belongs to: index into [`Flow::attempts`].
    pub attempt: usize,
    /// What the function returned, once it has.
    pub verdict: Option<i32>,
    /// Network namespace in which it happened. Inside TCP a packet has no device: there it is the one in which this packet
    /// was last seen.
    pub netns: u32,
    /// The kernel skipped the probes on the packet's way from here on, as far as it went without a pause.
    pub probes_skipped: bool,
}

/// One SYN on the wire.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it was first seen, nanoseconds of the kernel's monotonic clock.
    pub time_ns: u64,
    /// Address of its `sk_buff`.
    pub skb: u64,
    /// The client did not send it: the network between made it out of the SYN before it, or delivered that twice.
    pub is_copy: bool,
}

/// Where a packet was first seen: it counts once for each time that it is seen there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    hook: Hook,
    netns: u32,
    ifindex: u32,
}

impl Place {
    pub(super) fn of(event: &Event) -> Self {
        Self {
            hook: event.hook,
            netns: event.netns,
            ifindex: event.ifindex,
        }
    }

    /// Is it this hook's?
    pub(super) fn is_at(self, hook: Hook) -> bool {
        self.hook == hook
    }
}

/// What is remembered of an earlier flow from the same client port: reuse is a story of two flows.
#[derive(Clone, Debug)]
pub struct Earlier {
    /// Its number.
    pub id: u64,
    /// When its first SYN was seen, monotonic nanoseconds.
    pub start_ns: u64,
    /// What became of it.
    pub fate: Fate,
    /// The real server or pod that it went to.
    pub backend: Option<SocketAddr>,
}

/// One client connection attempt to a NodePort.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Counts up from 1 in the order in which flows began.
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
    /// Steps beyond [`MOST_STEPS`] that were not kept, and SYNs beyond [`MOST_ATTEMPTS`].
    pub steps_left_out: u64,
    /// SYN-ACKs sent by the backend.
    pub synacks: u32,
    /// When the handshake ended, monotonic nanoseconds: the client's ACK came in and nothing showed that it was
    /// lost behind that, or the backend's listener took it.
    pub established_ns: Option<u64>,
    /// The backend's listener made the connection.
    pub accepted: bool,
    /// The kernel skipped the probe that would have shown that it did.
    pub acceptance_unseen: bool,
    /// When the handshake was over for the backend as well, as far as that was seen, monotonic nanoseconds: its listener
    /// made the connection, or a copy of the SYN came behind the client's ACK. What the backend answers from then on, it
    /// answers to a copy.
    pub over_ns: Option<u64>,
    /// When the ACK that should have ended the handshake was first discarded behind the point where it came in,
    /// monotonic nanoseconds. The client has its connection then, the backend has not.
    pub ack_lost_ns: Option<u64>,
    /// When the refusal went out to the client, monotonic nanoseconds.
    pub refused_ns: Option<u64>,
    /// The flow from the same client port before this one.
    pub earlier: Option<Earlier>,
    pub(super) syn_origin: Place,
    pub(super) synack_origin: Option<Place>,
    pub(super) beyond: Option<Beyond>,
}

/// A SYN that left the node as the client had sent it: routed, or sent by IPVS with direct routing or in a tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beyond {
    skb: u64,
    /// Where it was last seen to come in; 0 if it was not yet.
    netns: u32,
}

impl Flow {
    pub(super) fn new(id: u64, event: &Event, earlier: Option<Earlier>) -> Self {
        Self {
            id,
            original: event.tuple,
            isn: event.isn,
            netns: event.netns,
            attempts: Vec::new(),
            steps: Vec::new(),
            steps_left_out: 0,
            synacks: 0,
            established_ns: None,
            accepted: false,
            acceptance_unseen: false,
            over_ns: None,
            ack_lost_ns: None,
            refused_ns: None,
            earlier,
            syn_origin: Place::of(event),
            synack_origin: None,
            beyond: None,
        }
    }

    /// Is this SYN, with the tuple that the client sent, on the node, or beyond it on its way to who takes it? If not, a client
    /// in a namespace of this machine sends its SYN again: it counts once it comes in.
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
        if !came_in || matches!(syn.what, What::Drop(_)) {
            // The buffer of a packet that is gone serves the next one, which may be the client's own where the SYN came back
            // to the client's namespace.
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

    /// The copies that came of one SYN.
    pub fn copies_of(&self, attempt: usize) -> impl Iterator<Item = usize> {
        let later = attempt + 1..self.attempts.len();
        later.take_while(|&index| self.attempts[index].is_copy)
    }

    /// When a SYN or a SYN-ACK was sent again for the first time, monotonic nanoseconds; `None` if none was.
    #[must_use]
    pub fn first_repetition_ns(&self) -> Option<u64> {
        let syn = self.sent().nth(1).map(|index| self.attempts[index].time_ns);
        let again = |(before, this): &(u64, u64)| this.saturating_sub(*before) >= AGAIN_NS;
        let synack = self
            .synack_times()
            .zip(self.synack_times().skip(1))
            .find(again)
            .map(|(_, this)| this);
        syn.into_iter().chain(synack).min()
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

    /// When the backend sent its SYN-ACKs as long as the handshake went on, without what a copy of the SYN made it say once
    /// more; monotonic nanoseconds.
    fn synack_times(&self) -> impl DoubleEndedIterator<Item = u64> {
        let all = || {
            self.steps.iter().filter(|step| {
                step.event.part == Part::SynAck
                    && Some(Place::of(&step.event)) == self.synack_origin
                    && self.over_ns.is_none_or(|over| step.event.time_ns < over)
            })
        };
        let first = all().next().map(|step| step.event.time_ns);
        all()
            .map(|step| step.event.time_ns)
            .filter(move |&time| Some(time) == first || !self.is_said_to_a_copy(time))
    }

    /// Did a copy of the SYN that was late on its way come just before?
    fn is_said_to_a_copy(&self, time_ns: u64) -> bool {
        self.steps.iter().any(|step| {
            let before = time_ns.checked_sub(step.event.time_ns);
            step.event.part == Part::Syn
                && before.is_some_and(|before| before < AGAIN_NS)
                && self.attempts.get(step.attempt).is_some_and(|syn| syn.is_copy)
        })
    }

    /// From the first SYN to the ACK that ended the handshake, nanoseconds.
    #[must_use]
    pub fn connect_ns(&self) -> Option<u64> {
        Some(self.established_ns?.saturating_sub(self.start_ns()))
    }

    /// What the repetitions cost (copies cost nothing): from the first SYN to the one that was answered, and from the first SYN-ACK to
    /// the last, or from the ACK that was lost to the one that was taken; and what these waited for a hardware address.
    /// `None` unless the handshake ended after a repetition. Nanoseconds.
    #[must_use]
    pub fn stall_ns(&self) -> Option<u64> {
        let established = self.established_ns?;
        if self.ack_lost_ns.is_none() {
            self.first_repetition_ns()?;
        }
        let answered = self.answered_attempt().and_then(|index| self.attempts.get(index));
        let syns = answered
            .map_or_else(|| self.last_syn_ns(), |attempt| attempt.time_ns)
            .saturating_sub(self.start_ns())
            .saturating_add(self.waited_ns(Part::Syn, self.answered_attempt()));
        if let Some(lost) = self.ack_lost_ns {
            return Some(syns.saturating_add(established.saturating_sub(lost)));
        }
        let mut synacks = self.synack_times();
        let first = synacks.next();
        let last = synacks.next_back().or(first);
        let answers = last
            .zip(first)
            .map_or(0, |(last, first)| last.saturating_sub(first));
        Some(syns.saturating_add(answers.max(self.waited_ns(Part::SynAck, None))))
    }

    /// The longest time that a SYN or SYN-ACK waited for the hardware address of its next hop before it left: of one
    /// attempt, or of all. Nanoseconds.
    fn waited_ns(&self, part: Part, attempt: Option<usize>) -> u64 {
        let waits = self.steps.iter().filter(|step| {
            step.event.hook == Hook::NeighbourSend
                && step.event.part == part
                && attempt.is_none_or(|attempt| step.attempt == attempt)
        });
        waits
            .filter_map(|step| self.left_ns(step)?.checked_sub(step.event.time_ns))
            .max()
            .unwrap_or(0)
    }

    /// When the packet of a step was next handed to a device, monotonic nanoseconds.
    #[must_use]
    pub fn left_ns(&self, step: &Step) -> Option<u64> {
        let left = self.steps.iter().find(|later| {
            later.event.hook == Hook::DevStartXmit
                && later.event.skb == step.event.skb
                && later.event.part == step.event.part
                && later.event.time_ns >= step.event.time_ns
        })?;
        Some(left.event.time_ns)
    }

    /// Was the packet at this step on its way through the node that the client addressed (and not in a pod's netns)?
    #[must_use]
    pub fn is_on_node(&self, event: &Event) -> bool {
        event.netns == self.netns || event.netns == 0
    }

    /// Did IPVS send a SYN as it came, so that the real server answers the client itself, with the address that the client
    /// asked?
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

    /// The backend to which a SYN was translated by a conntrack entry that was there already, so that no rule was asked;
    /// `None` if no such entry was seen, now or when it was made, or if IPVS chose.
    #[must_use]
    pub fn backend_by_old_entry(&self, attempt: usize) -> Option<SocketAddr> {
        let decided = |step: &Step| {
            matches!(
                step.event.hook,
                Hook::NatSetup
                    | Hook::CtConfirm
                    | Hook::XtDnat
                    | Hook::XtDnatV0
                    | Hook::NftNat
                    | Hook::IpvsSchedule
            ) || step.event.hook.is_ipvs_xmit()
        };
        if self.has_skipped(attempt) {
            return None;
        }
        let mut translated = None;
        for step in self.steps_of(attempt).filter(|step| step.event.part == Part::Syn) {
            if decided(step) {
                return None;
            }
            let to = step.event.tuple.destination();
            if to != self.node() && self.is_on_node(&step.event) {
                translated.get_or_insert(to);
            }
        }
        let to = translated?;
        let leads_there = |step: &Step| match &step.event.what {
            What::Conntrack(entry) => entry.reply.source() == to,
            _ => false,
        };
        self.steps.iter().any(leads_there).then_some(to)
    }

    /// That a client on the node has sent its SYN again is known only after it has, be it that the kernel tells it or that
    /// the SYN is discarded: what was just seen of it belongs to that SYN, the newest, and not to the one before.
    pub(super) fn take_over(&mut self, told_ns: u64) {
        let Some(index) = self.attempts.len().checked_sub(1).filter(|&index| index > 0) else {
            return;
        };
        let before = self.attempts[index - 1].time_ns;
        let since = told_ns.max(before.saturating_add(2 * AGAIN_NS)) - AGAIN_NS;
        let begin = self.steps.partition_point(|step| step.event.time_ns < since);
        let (earlier, recent) = self.steps.split_at_mut(begin);
        // A buffer that waits for a hardware address is the old SYN's still; any other one has gone by then, and its address
        // may be the new one's.
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

    /// Takes note that the kernel skipped probes on the way of a packet of which a tracepoint has just told.
    pub(super) fn skip(&mut self, event: &Event) {
        let told = self.steps.iter_mut().rev().find(|step| {
            let told = &step.event;
            (told.hook, told.skb, told.part, told.netns, told.tuple)
                == (event.hook, event.skb, event.part, event.netns, event.tuple)
        });
        if let Some(step) = told {
            step.probes_skipped = true;
            if event.part == Part::Ack {
                // The backend was asked for nothing more, as far as is known: what it sends again then has waited somewhere.
                self.acceptance_unseen = true;
                self.over_ns.get_or_insert(event.time_ns);
            }
        }
    }

    /// Did the kernel skip probes on the way of this SYN or of what answered it?
    #[must_use]
    pub fn has_skipped(&self, attempt: usize) -> bool {
        self.steps_of(attempt).any(|step| step.probes_skipped)
    }

    pub(super) fn push(&mut self, event: Event, attempt: usize) {
        // A bare return only completes its entry's step.
        if event.phase == Phase::Return
            && event.what == What::Packet
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

    /// Where an event happens that does not tell it: where its packet was last seen or, if it was not, anything of its SYN.
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

/// Where a packet was sent, if this event tells: the entry with which IPVS transmits, the translation that
/// conntrack confirms.
pub(crate) fn backend_in(event: &Event) -> Option<SocketAddr> {
    match (&event.what, event.hook) {
        (What::IpvsConn(conn), hook) if hook.is_ipvs_xmit() || hook == Hook::IpvsReply => real_server(conn),
        (What::Conntrack(ct), _) if ct.reply.source() != ct.original.destination() => Some(ct.reply.source()),
        _ => None,
    }
}

/// The real server of a connection entry, if it could be read.
#[must_use]
pub fn real_server(conn: &IpvsConn) -> Option<SocketAddr> {
    (conn.conn != 0 && conn.have & tracer_common::record::ipvs_conn::BACKEND != 0)
        .then(|| SocketAddr::new(conn.daddr.ip(), conn.dport))
}
