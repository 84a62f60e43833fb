//! Times of a flow: how long it took, and what retransmissions cost.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    model::Flow,
    step::{Place, RETRANSMIT_NS, Step},
};

impl Flow {
    /// When the fate was decided, monotonic nanoseconds, if it was. Later events change it only if they show a retransmission.
    pub(super) fn decided_ns(&self) -> Option<u64> {
        self.established_ns.or(self.refused_ns)
    }

    /// When a SYN or a SYN-ACK was first retransmitted, monotonic nanoseconds; `None` if none was.
    #[must_use]
    pub fn first_retransmission_ns(&self) -> Option<u64> {
        let syn = self.sent().nth(1).map(|index| self.attempts[index].time_ns);
        let is_late = |(before, this): &(u64, u64)| this.saturating_sub(*before) >= RETRANSMIT_NS;
        let synack = self
            .synack_times()
            .zip(self.synack_times().skip(1))
            .find(is_late)
            .map(|(_, this)| this);
        syn.into_iter().chain(synack).min()
    }

    /// When one SYN, or the SYN-ACK that answered it, was first retransmitted, monotonic nanoseconds; `None` if neither was.
    #[must_use]
    pub fn retransmission_after_ns(&self, attempt: usize) -> Option<u64> {
        let sent = self.sent_of(attempt);
        let syn = self
            .sent()
            .find(|&index| index > sent)
            .map(|index| self.attempts[index].time_ns);
        // Answers before this SYN are those of earlier ones.
        let since = self.attempts.get(sent)?.time_ns;
        let answers = || self.synack_times().filter(move |&time| time >= since);
        let synack = answers()
            .zip(answers().skip(1))
            .find(|(before, this)| this.saturating_sub(*before) >= RETRANSMIT_NS)
            .map(|(_, this)| this);
        syn.into_iter().chain(synack).min()
    }

    /// When the backend sent its SYN-ACKs during the handshake, without its answers to copies of the SYN; monotonic
    /// nanoseconds.
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
            .filter(move |&time| Some(time) == first || !self.answers_a_copy(time))
    }

    /// Whether a late copy of the SYN arrived just before.
    fn answers_a_copy(&self, time_ns: u64) -> bool {
        self.steps.iter().any(|step| {
            let before = time_ns.checked_sub(step.event.time_ns);
            step.event.part == Part::Syn
                && before.is_some_and(|before| before < RETRANSMIT_NS)
                && self.attempts.get(step.attempt).is_some_and(|syn| syn.is_copy)
        })
    }

    /// From the first SYN to the ACK that finished the handshake, nanoseconds.
    #[must_use]
    pub fn connect_ns(&self) -> Option<u64> {
        Some(self.established_ns?.saturating_sub(self.start_ns()))
    }

    /// Time lost to retransmissions, nanoseconds: from the first SYN to the one that was answered, plus from the first SYN-ACK to
    /// the last or from the lost ACK to the accepted one, plus the time that these waited for ARP/ND. Copies cost nothing.
    /// `None` unless the handshake finished after a retransmission.
    #[must_use]
    pub fn stall_ns(&self) -> Option<u64> {
        let established = self.established_ns?;
        if self.ack_lost_ns.is_none() {
            self.first_retransmission_ns()?;
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

    /// The longest time that a SYN or SYN-ACK waited for ARP/ND before it left, of one attempt or of all. Nanoseconds.
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
}
