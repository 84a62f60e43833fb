//! The backend still has the socket of a closed connection from the same address and port, and that socket does not accept the
//! SYN.

use tracer_common::{
    hook::Hook,
    record::{TimeWait, time_wait},
};

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
        tcp,
        words::capitalized,
    },
    flow::model::Step,
};

pub(in crate::diagnose) const ROWS: &[Row] = &[
    Row {
        cause: Cause::TcpTimestampRejected,
        group: Group::BackendTcp,
        summary: "The backend still holds a closed connection from the same address and port, and the SYN's TCP timestamp is older \
                  than that connection's last one.",
        proof: "tcp_timewait_state_process did not accept the SYN, and the SYN's TCP timestamp is older than the last one of the \
                socket in TIME_WAIT or FIN_WAIT2 (PAWS, RFC 7323).",
        advice: Some(
            "Clients with different clocks reach the backend from the same address and port, for example because of masquerade: \
             preserve their addresses (externalTrafficPolicy: Local), make conntrack keep closed connections at least as long as the \
             backend (60 s, nf_conntrack_tcp_timeout_time_wait), or masquerade with --random-fully.",
        ),
        scope: "Every kernel and dataplane, if the backend is on this node. (With tcp_tw_recycle=1, kernels before 4.12 also reject \
                by timestamp without any old connection; tracer runs on none of them.)",
        hooks: &[&[Hook::TcpTimewait]],
        absence: Absence::Nothing,
        light: Light::WithPath,
        detect: |case| {
            refused(case)
                .filter(Refused::by_timestamp)
                .map(|refused| refused.proof(case))
        },
    },
    Row {
        cause: Cause::TcpTimewaitRefused,
        group: Group::BackendTcp,
        summary: "The backend still holds a closed connection from the same address and port, and treated the SYN as an old packet \
                  of that connection.",
        proof: "tcp_timewait_state_process did not accept the SYN: its sequence number is not beyond the next one that the socket in \
                TIME_WAIT expects, and no newer timestamp overrides that; or the client never closed its half of that connection \
                (FIN_WAIT2).",
        advice: Some(
            "Several clients reach the backend from the same address and port, for example because of masquerade, or a client reuses \
             a port without TCP timestamps: preserve client addresses (externalTrafficPolicy: Local), enable TCP timestamps, make \
             conntrack keep closed connections at least as long as the backend (60 s, nf_conntrack_tcp_timeout_time_wait), or \
             masquerade with --random-fully.",
        ),
        scope: "Every kernel and dataplane, if the backend is on this node. The socket answers with a bare ACK (at most one in \
                500 ms); the client replies with a RST that removes the socket, and retransmits its SYN: on Linux 5.10 or later \
                after a few milliseconds, elsewhere after a second.",
        hooks: &[&[Hook::TcpTimewait]],
        absence: Absence::Nothing,
        light: Light::WithPath,
        detect: |case| {
            refused(case)
                .filter(|refused| !refused.by_timestamp())
                .map(|refused| refused.proof(case))
        },
    },
];

/// A SYN that the socket of a closed connection did not accept.
struct Refused<'a> {
    step: &'a Step,
    old: &'a TimeWait,
    /// The decision of the socket: `enum tcp_tw_status`.
    verdict: i32,
    /// Initial sequence number of the SYN.
    isn: u32,
}

/// The step at which the socket of a closed connection processed the SYN.
pub(in crate::diagnose) fn at_socket<'a>(case: &Case<'a>) -> Option<&'a Step> {
    case.steps().find(|step| step.event.hook == Hook::TcpTimewait)
}

fn refused<'a>(case: &Case<'a>) -> Option<Refused<'a>> {
    let step = at_socket(case)?;
    let Payload::TimeWait(old) = &step.event.payload else {
        return None;
    };
    let verdict = step.verdict.filter(|&verdict| verdict != time_wait::SYN)?;
    let refused = Refused {
        step,
        old,
        verdict,
        isn: case.flow.isn,
    };
    let fits = match case.situation {
        Situation::Refused => verdict == time_wait::RST,
        // The dropped packet must be the SYN itself, in this socket's netns.
        Situation::Dropped => case
            .dropped
            .is_some_and(|dropped| dropped.event.skb == step.event.skb),
        Situation::Silent | Situation::Late => verdict != time_wait::RST,
        Situation::Established => false,
    };
    (fits && (refused.by_timestamp() || refused.by_sequence())).then_some(refused)
}

impl Refused<'_> {
    fn has(&self, bit: u32) -> bool {
        self.old.have & bit != 0
    }

    /// The SYN's timestamp.
    fn timestamp(&self) -> Option<u32> {
        let length = usize::try_from(self.old.options_len).ok()?;
        self.has(time_wait::OPTIONS)
            .then(|| timestamp(self.old.options.get(..length)?))?
    }

    /// The last timestamp of the old connection's client.
    fn last_timestamp(&self) -> Option<u32> {
        (self.has(time_wait::TS_RECENT) && self.old.ts_recent_stamp != 0).then_some(self.old.ts_recent)
    }

    /// Whether the timestamp is older, as `tcp_paws_check` (`include/net/tcp.h`) compares: by the signed difference, and 0 is
    /// no timestamp. Timestamps expire after 24 days, which does not matter here: such a socket lives for a minute.
    fn by_timestamp(&self) -> bool {
        match (self.last_timestamp(), self.timestamp()) {
            (Some(last), Some(now)) => last != 0 && is_before(now, last),
            _ => false,
        }
    }

    /// The condition under which `tcp_timewait_state_process` accepts no SYN, apart from a timestamp that rejects it.
    fn by_sequence(&self) -> bool {
        if !self.has(time_wait::SUBSTATE) {
            return false;
        }
        if self.old.substate == time_wait::FIN_WAIT2 {
            return true;
        }
        // Without the last timestamp it is not known whether a newer one overrides the sequence number.
        self.has(time_wait::RCV_NXT)
            && self.has(time_wait::TS_RECENT)
            && !is_before(self.old.rcv_nxt, self.isn)
            && !matches!((self.last_timestamp(), self.timestamp()), (Some(last), Some(now)) if is_before(last, now))
    }

    fn state(&self) -> &'static str {
        match self.old.substate {
            time_wait::FIN_WAIT2 => "FIN_WAIT2",
            _ => "TIME_WAIT",
        }
    }

    fn answer(&self) -> &'static str {
        match self.verdict {
            time_wait::RST => "RST",
            time_wait::ACK | time_wait::ACK_OOW => "a bare ACK",
            _ => "none: it answers at most once in 500 ms (tcp_invalid_ratelimit)",
        }
    }

    fn proof(&self, case: &Case<'_>) -> Proof {
        let (step, flow) = (self.step, case.flow);
        let seen = |key: Key, value: String| Evidence::seen(key, value, Hook::TcpTimewait);
        let mut evidence = vec![
            seen(
                Key::EndedConnection,
                format!(
                    "{} -> {} in state {} ({})",
                    step.event.tuple.source(),
                    step.event.tuple.destination(),
                    self.state(),
                    evidence::place(step)
                ),
            ),
            seen(Key::EndedConnectionAnswer, self.answer().to_owned()),
        ];
        if let (Some(last), Some(now)) = (self.last_timestamp(), self.timestamp()) {
            evidence.push(seen(
                Key::SynTimestamp,
                format!("{now}, {} the closed connection's {last}", order(now, last)),
            ));
        } else if self.timestamp().is_none() {
            evidence.push(seen(Key::SynTimestamp, "none".to_owned()));
        }
        if self.has(time_wait::RCV_NXT) {
            let next = self.old.rcv_nxt;
            evidence.push(seen(
                Key::SynSequence,
                format!("{}, {} the expected {next}", self.isn, order(self.isn, next)),
            ));
        }
        if step.event.tuple.source() != flow.client() {
            evidence.push(seen(
                Key::ClientSeenByBackend,
                step.event.tuple.source().to_string(),
            ));
        }
        evidence.extend(evidence::earlier(flow));
        let why = if self.by_timestamp() {
            "its timestamp is older than that connection's last one"
        } else if self.old.substate == time_wait::FIN_WAIT2 {
            "that connection's client has not closed its half yet"
        } else {
            "its sequence number is not beyond that connection's"
        };
        Proof::new(
            format!(
                "{} ({}) still holds a closed connection from {} ({}) and did not accept the SYN: {why}.",
                capitalized(tcp::owner(flow, step)),
                step.event.tuple.destination(),
                step.event.tuple.source(),
                self.state(),
            ),
            evidence,
        )
    }
}

/// Whether one sequence number or timestamp is before another. They wrap around: before means behind by less than half the
/// number space.
fn is_before(one: u32, other: u32) -> bool {
    one != other && other.wrapping_sub(one) < 1 << 31
}

fn order(one: u32, other: u32) -> &'static str {
    if one == other {
        "equal to"
    } else if is_before(one, other) {
        "before"
    } else {
        "after"
    }
}

/// The sender's timestamp in TCP options (RFC 9293, RFC 7323); `None` if there is none, or they are truncated or malformed.
fn timestamp(options: &[u8]) -> Option<u32> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const TIMESTAMP: u8 = 8;
    const TIMESTAMP_LEN: u8 = 10;
    let mut rest = options;
    loop {
        rest = match *rest {
            [NOTHING, ref rest @ ..] => rest,
            [TIMESTAMP, TIMESTAMP_LEN, a, b, c, d, _, _, _, _, ..] => {
                return Some(u32::from_be_bytes([a, b, c, d]));
            }
            [] | [END, ..] => return None,
            [_, length, ..] if length >= 2 => rest.get(usize::from(length)..)?,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_found_at_any_position() {
        let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 1, 2, 0, 0, 0, 0, 1, 3, 3, 7];
        assert_eq!(timestamp(&linux), Some(0x102));
        let mac = [
            2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 0xff, 0, 0, 0, 0, 0, 0, 0, 4, 2,
        ];
        assert_eq!(timestamp(&mac), Some(0xff00_0000));
        assert_eq!(timestamp(&[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2]), None);
    }

    #[test]
    fn truncated_and_malformed_options_have_no_timestamp() {
        for broken in [
            &[][..],
            &[8],
            &[8, 10, 0, 0, 1],
            &[2, 0, 8, 10],
            &[2, 1, 8, 10],
            &[3, 200, 8, 10],
            &[0, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
            &[8, 9, 0, 0, 0, 1, 0, 0, 0],
        ] {
            assert_eq!(timestamp(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn sequence_numbers_wrap_around() {
        assert!(is_before(u32::MAX, 0));
        assert!(is_before(1, 2));
        assert!(!is_before(2, 2));
        assert!(!is_before(0, u32::MAX));
    }
}
