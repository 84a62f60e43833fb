//! The time that each SYN of a flow cost its client.

use super::{
    fate::Fate,
    judge::{self, End},
    model::Flow,
    refusal,
    step::RETRANSMIT_NS,
};

/// Costs that differ by less than this are equal, in nanoseconds: timers jitter, and the costliest SYN must not depend on that.
const EQUAL_NS: u64 = RETRANSMIT_NS;

/// The time that each SYN cost the client, in nanoseconds, in the order of [`Flow::sent`]: up to the next SYN. The last one cost
/// nothing if it finished the handshake, unless its SYN-ACK or the client's ACK had to be retransmitted; if it did not, the time
/// up to the refusal or the drop, or else up to the end of tracer's patience.
#[must_use]
pub fn by_syn(flow: &Flow, fate: Fate) -> Vec<u64> {
    let times: Vec<u64> = flow.sent().map(|sent| flow.attempts[sent].time_ns).collect();
    let until_next = times
        .windows(2)
        .map(|pair| pair.last().unwrap_or(&0).saturating_sub(pair[0]));
    let last = flow.sent().next_back().map(|last| of_last(flow, fate, last));
    until_next.chain(last).collect()
}

/// The first of the SYNs that cost most: index into the costs.
#[must_use]
pub fn costliest(lost: &[u64]) -> usize {
    let most = lost.iter().copied().max().unwrap_or(0);
    let is_most = |&lost: &u64| most == lost || lost > 0 && most - lost < EQUAL_NS;
    lost.iter().position(is_most).unwrap_or(0)
}

fn of_last(flow: &Flow, fate: Fate, last: usize) -> u64 {
    let sent_ns = flow.attempts[last].time_ns;
    let until = |end_ns: u64| end_ns.saturating_sub(sent_ns);
    match fate {
        Fate::Established | Fate::Pending => 0,
        Fate::Stalled => in_itself(flow, sent_ns),
        Fate::Refused => {
            let own = refusal::of(flow, last).map(|step| step.event.time_ns);
            until(own.or(flow.refused_ns).unwrap_or(0))
        }
        Fate::Dropped | Fate::Unanswered => match judge::end_of(flow, judge::surviving(flow, last)) {
            End::Dropped(step) | End::AckLost(step) if fate == Fate::Dropped => until(step.event.time_ns),
            _ => until(last_seen_ns(flow, last)).saturating_add(flow.patience_ns),
        },
    }
}

/// What the SYN that finished the handshake cost after it was sent: the time to the last retransmission of its SYN-ACK, or from
/// the lost ACK to the accepted one.
fn in_itself(flow: &Flow, sent_ns: u64) -> u64 {
    if let (Some(lost), Some(established)) = (flow.ack_lost_ns, flow.established_ns) {
        return established.saturating_sub(lost.max(sent_ns));
    }
    let before = sent_ns.saturating_sub(flow.start_ns());
    let own = flow.stall_ns().unwrap_or(0).saturating_sub(before);
    // A single SYN has all of the stall, however short.
    if before == 0 || own >= RETRANSMIT_NS {
        own
    } else {
        0
    }
}

/// When a SYN, a copy of it, or its answer was last seen, monotonic nanoseconds.
fn last_seen_ns(flow: &Flow, sent: usize) -> u64 {
    let own = flow
        .steps
        .iter()
        .filter(|step| flow.sent_of(step.attempt) == sent);
    own.map(|step| step.event.time_ns)
        .max()
        .unwrap_or(flow.attempts[sent].time_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_costs_the_first_counts() {
        let second = 1_000_000_000;
        assert_eq!(costliest(&[second, 2 * second, 0]), 1);
        assert_eq!(costliest(&[second, second + 4_000_000, 0]), 0);
        assert_eq!(costliest(&[0, 12_000_000]), 1);
        assert_eq!(costliest(&[]), 0);
    }
}
