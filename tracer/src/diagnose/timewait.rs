//! The backend still has the socket of an ended connection from the same address and port, and that socket does not let
//! the SYN in.

use tracer_common::{
    hook::Hook,
    record::{TimeWait, time_wait},
};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
    tcp,
};
use crate::{decode::event::Payload, flow::model::Step};

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::TcpTimestampRejected,
        says: "The backend still has an ended connection from the same address and port, and the SYN's timestamp is older \
               than the last one of that connection.",
        proof: "tcp_timewait_state_process did not let the SYN in, and the SYN's TCP timestamp is older than the one that \
                the socket in TIME_WAIT or FIN_WAIT2 remembers (PAWS, RFC 7323).",
        advice: Some(
            "Clients with clocks of their own share an address and a port towards the backend, as masquerade makes them \
             do: keep their addresses (externalTrafficPolicy: Local), let conntrack remember ended connections at least \
             as long as the backend does (60 s, nf_conntrack_tcp_timeout_time_wait), or masquerade with --random-fully.",
        ),
        occurs: "Every kernel and dataplane, if the backend is on this node. (Kernels before 4.12 also reject by \
                 timestamp without any old connection, with tcp_tw_recycle=1; tracer runs on none of them.)",
        hooks: &[&[Hook::TcpTimewait]],
        find: |case| {
            refused(case)
                .filter(Refused::by_timestamp)
                .map(|refused| refused.proof(case))
        },
    },
    Row {
        cause: Cause::TcpTimewaitRefused,
        says: "The backend still has an ended connection from the same address and port, and took the SYN for an old \
               packet of that.",
        proof: "tcp_timewait_state_process did not let the SYN in: its sequence number is not beyond what the socket in \
                TIME_WAIT expects next, and no newer timestamp speaks for it; or the client never closed its half of that \
                connection (FIN_WAIT2).",
        advice: Some(
            "Several clients share an address and a port towards the backend, as masquerade makes them do, or a client \
             reuses a port without TCP timestamps: keep client addresses (externalTrafficPolicy: Local), switch TCP \
             timestamps on, let conntrack remember ended connections at least as long as the backend does (60 s, \
             nf_conntrack_tcp_timeout_time_wait), or masquerade with --random-fully.",
        ),
        occurs: "Every kernel and dataplane, if the backend is on this node. The socket answers with a bare ACK (not more \
                 than one each 500 ms), upon which the client sends a RST that removes it, and then its SYN again: a client \
                 on Linux 5.10 or later after some milliseconds, others after a second.",
        hooks: &[&[Hook::TcpTimewait]],
        find: |case| {
            refused(case)
                .filter(|refused| !refused.by_timestamp())
                .map(|refused| refused.proof(case))
        },
    },
];

/// A SYN that the socket of an ended connection did not let in.
struct Refused<'a> {
    step: &'a Step,
    old: &'a TimeWait,
    /// What the socket decided: `enum tcp_tw_status`.
    verdict: i32,
    /// Initial sequence number of the SYN.
    isn: u32,
}

/// The step at which the socket of an ended connection was asked about the SYN.
pub(super) fn met<'a>(case: &Case<'a>) -> Option<&'a Step> {
    case.steps().find(|step| step.event.hook == Hook::TcpTimewait)
}

fn refused<'a>(case: &Case<'a>) -> Option<Refused<'a>> {
    let step = met(case)?;
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
        // What was discarded is the SYN, by this very socket's netns.
        Situation::Dropped => case
            .discarded
            .is_some_and(|discarded| discarded.event.skb == step.event.skb),
        Situation::Silent | Situation::Late => verdict != time_wait::RST,
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

    /// The timestamp that the old connection's client sent last.
    fn last_timestamp(&self) -> Option<u32> {
        (self.has(time_wait::TS_RECENT) && self.old.ts_recent_stamp != 0).then_some(self.old.ts_recent)
    }

    /// `tcp_paws_check` (`include/net/tcp.h`): older by the signed difference, and 0 is no timestamp. That it forgets
    /// timestamps after 24 days does not matter here: such a socket lives for a minute.
    fn by_timestamp(&self) -> bool {
        match (self.last_timestamp(), self.timestamp()) {
            (Some(last), Some(now)) => last != 0 && is_before(now, last),
            _ => false,
        }
    }

    /// The condition under which `tcp_timewait_state_process` lets no SYN in, timestamps that reject it apart.
    fn by_sequence(&self) -> bool {
        if !self.has(time_wait::SUBSTATE) {
            return false;
        }
        if self.old.substate == time_wait::FIN_WAIT2 {
            return true;
        }
        // Without the last timestamp it is not known whether a newer one speaks for the SYN.
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
            _ => "nothing: it answers once in 500 ms at most (tcp_invalid_ratelimit)",
        }
    }

    fn proof(&self, case: &Case<'_>) -> Proof {
        let (step, flow) = (self.step, case.flow);
        let seen = |what: &str, value: String| Evidence::seen(what, value, Hook::TcpTimewait);
        let mut evidence = vec![
            seen(
                "ended connection in the backend",
                format!(
                    "{} -> {} in state {} ({})",
                    step.event.tuple.source(),
                    step.event.tuple.destination(),
                    self.state(),
                    evidence::place(step)
                ),
            ),
            seen("its answer to the SYN", self.answer().to_owned()),
        ];
        if let (Some(last), Some(now)) = (self.last_timestamp(), self.timestamp()) {
            evidence.push(seen(
                "timestamp of the SYN",
                format!("{now}, {} the ended connection's {last}", order(now, last)),
            ));
        } else if self.timestamp().is_none() {
            evidence.push(seen("timestamp of the SYN", "none".to_owned()));
        }
        if self.has(time_wait::RCV_NXT) {
            let next = self.old.rcv_nxt;
            evidence.push(seen(
                "sequence number of the SYN",
                format!("{}, {} the expected {next}", self.isn, order(self.isn, next)),
            ));
        }
        if step.event.tuple.source() != flow.client() {
            evidence.push(seen(
                "client as the backend sees it",
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
        Proof {
            explanation: format!(
                "{} at {} still has an ended connection from {} ({}) and did not let the SYN in: {why}.",
                capital(tcp::owner(flow, step)),
                step.event.tuple.destination(),
                step.event.tuple.source(),
                self.state(),
            ),
            evidence,
        }
    }
}

fn capital(who: &str) -> String {
    let mut letters = who.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Sequence numbers and timestamps wrap around: what is less than half a circle away lies before.
fn is_before(one: u32, other: u32) -> bool {
    one != other && other.wrapping_sub(one) < 1 << 31
}

fn order(one: u32, other: u32) -> &'static str {
    if one == other {
        "equal to"
    } else if is_before(one, other) {
        "short of"
    } else {
        "beyond"
    }
}

/// The sender's timestamp in TCP options (RFC 9293, RFC 7323); `None` if there is none, or they are cut or malformed.
fn timestamp(options: &[u8]) -> Option<u32> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const TIMESTAMP: u8 = 8;
    const TIMESTAMP_LEN: u8 = 10;
    let mut rest = options;
    loop {
        rest = match *rest {
            [NOTHING, ref behind @ ..] => behind,
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
    fn a_timestamp_is_found_wherever_it_stands() {
        let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 1, 2, 0, 0, 0, 0, 1, 3, 3, 7];
        assert_eq!(timestamp(&linux), Some(0x102));
        let mac = [
            2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 0xff, 0, 0, 0, 0, 0, 0, 0, 4, 2,
        ];
        assert_eq!(timestamp(&mac), Some(0xff00_0000));
        assert_eq!(timestamp(&[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2]), None);
    }

    #[test]
    fn no_options_are_read_beyond_their_end() {
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
    fn numbers_wrap_around() {
        assert!(is_before(u32::MAX, 0));
        assert!(is_before(1, 2));
        assert!(!is_before(2, 2));
        assert!(!is_before(0, u32::MAX));
    }
}
