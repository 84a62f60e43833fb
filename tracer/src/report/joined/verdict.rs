//! What stands of a connection of which several nodes tell.
//!
//! The node that the client asked knows what the client met. Beyond itself it sees only that nothing came back, or what:
//! why, the next node may know.

use crate::{diagnose::cause::Cause, flow::fate::Fate};

/// What one node says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// What became of its flow.
    pub fate: Fate,
    /// Why.
    pub cause: Option<Cause>,
    /// It discarded the SYN or the SYN-ACK at least once.
    pub discarded: bool,
}

/// What stands. The fate is always what the first node says: that is what the client met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Why.
    pub cause: Option<Cause>,
    /// Index of the node whose words explain it.
    pub from: usize,
    /// Index of a node that says otherwise: its words are to be told too.
    pub otherwise: Option<usize>,
}

/// Of what is said by each node, in the order in which the SYN came to them.
#[must_use]
pub fn judge(said: &[Said]) -> Verdict {
    let mut verdict = Verdict {
        cause: said.first().and_then(|first| first.cause),
        from: 0,
        otherwise: None,
    };
    let Some((first, others)) = said.split_first() else {
        return verdict;
    };
    if first.fate == Fate::Pending {
        return verdict;
    }
    let mut is_denied = false;
    // What was found beyond that is no more than that nothing came back.
    let mut is_weak = true;
    for (index, other) in others.iter().enumerate().map(|(index, other)| (index + 1, other)) {
        match compare(*first, *other) {
            Agreement::Nothing => {}
            Agreement::Knows { surely } if verdict.from == 0 || surely && is_weak => {
                verdict.cause = other.cause;
                verdict.from = index;
                is_weak = !surely;
            }
            Agreement::Knows { surely } => {
                if surely && verdict.cause != other.cause {
                    verdict.otherwise.get_or_insert(index);
                }
            }
            Agreement::Otherwise => {
                verdict.otherwise.get_or_insert(index);
            }
            Agreement::Denies => {
                verdict.otherwise.get_or_insert(index);
                is_denied = true;
            }
        }
    }
    if is_denied {
        // One of them is wrong, or the packet was lost between them: no cause of one node alone is proven.
        verdict.cause = Some(Cause::Unknown);
        verdict.from = 0;
    }
    verdict
}

/// How what a later node says goes with what the first one says.
enum Agreement {
    /// It adds nothing.
    Nothing,
    /// It says why, which the first could not know; or, if not surely, that nothing came back to it either.
    Knows { surely: bool },
    /// Both know something, and not the same.
    Otherwise,
    /// If it is right, the first is not.
    Denies,
}

fn compare(first: Said, other: Said) -> Agreement {
    let well = |said: Said| matches!(said.fate, Fate::Established | Fate::Stalled);
    if other.fate == Fate::Pending {
        return Agreement::Nothing;
    }
    if !is_open(first) {
        let differs = match (first.fate, other.fate) {
            (Fate::Established, fate) => fate.is_bad(),
            (Fate::Stalled, _) => knows(other) && other.cause != first.cause,
            _ => well(other) || knows(other) && other.cause != first.cause,
        };
        return if differs {
            Agreement::Otherwise
        } else {
            Agreement::Nothing
        };
    }
    if other.cause == Some(Cause::ClientSilent) || other.cause.is_none() {
        // It was answered there, or all went well.
        return Agreement::Denies;
    }
    let fits = match first.fate {
        Fate::Refused => other.fate == Fate::Refused,
        // A later SYN may have gone to another backend than that which discarded the first one.
        Fate::Stalled => other.fate != Fate::Refused,
        _ => !well(other),
    };
    match other.cause {
        _ if !fits && well(other) => Agreement::Denies,
        Some(Cause::BackendSilent) if first.cause == Some(Cause::Unknown) && fits => {
            Agreement::Knows { surely: false }
        }
        _ if !knows(other) => Agreement::Nothing,
        _ if fits => Agreement::Knows { surely: true },
        _ => Agreement::Otherwise,
    }
}

/// Is what the first node says no more than that something happened beyond it? What it discarded itself, it knows, be it
/// without knowing why.
fn is_open(first: Said) -> bool {
    match first.cause {
        Some(Cause::BackendSilent) => true,
        Some(Cause::Unknown) => first.fate != Fate::Dropped && !first.discarded,
        _ => false,
    }
}

/// Does a later node know what it did, or what the backend did there?
fn knows(other: Said) -> bool {
    match other.cause {
        None | Some(Cause::BackendSilent | Cause::ClientSilent) => false,
        Some(Cause::Unknown) => other.fate == Fate::Dropped,
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(fate: Fate, cause: Option<Cause>) -> Said {
        Said {
            fate,
            cause,
            discarded: fate == Fate::Dropped,
        }
    }

    fn verdict(cause: Cause, from: usize, otherwise: Option<usize>) -> Verdict {
        Verdict {
            cause: Some(cause),
            from,
            otherwise,
        }
    }

    const SILENT: (Fate, Cause) = (Fate::Unanswered, Cause::BackendSilent);
    const WELL: Said = Said {
        fate: Fate::Established,
        cause: None,
        discarded: false,
    };

    /// What stands of two nodes.
    fn of(first: (Fate, Cause), other: (Fate, Cause)) -> Verdict {
        judge(&[said(first.0, Some(first.1)), said(other.0, Some(other.1))])
    }

    #[test]
    fn the_next_node_says_why_nothing_came_back() {
        for (fate, cause) in [
            (Fate::Dropped, Cause::NetfilterRuleDropped),
            (Fate::Unanswered, Cause::TcpAcceptQueueFull),
            (Fate::Refused, Cause::TcpNoListener),
            (Fate::Dropped, Cause::Unknown),
        ] {
            assert_eq!(of(SILENT, (fate, cause)), verdict(cause, 1, None));
        }
        let refused = (Fate::Refused, Cause::Unknown);
        let found = of(refused, (Fate::Refused, Cause::TcpNoListener));
        assert_eq!(found, verdict(Cause::TcpNoListener, 1, None));
        let stalled = (Fate::Stalled, Cause::BackendSilent);
        let found = of(stalled, (Fate::Stalled, Cause::TcpAcceptQueueFull));
        assert_eq!(found, verdict(Cause::TcpAcceptQueueFull, 1, None));
    }

    #[test]
    fn what_the_first_node_did_itself_stands() {
        let dropped = (Fate::Dropped, Cause::IpvsReuseDropped);
        let found = of(dropped, (Fate::Unanswered, Cause::BackendSilent));
        assert_eq!(found, verdict(Cause::IpvsReuseDropped, 0, None));
        // It discarded one and knows not why: the cause of the next node is not that.
        let unknown = (Fate::Dropped, Cause::Unknown);
        let found = of(unknown, (Fate::Dropped, Cause::NetfilterRuleDropped));
        assert_eq!(found, verdict(Cause::Unknown, 0, Some(1)));
        // It lost the first SYN itself, and the second one went well.
        let stalled = said(Fate::Stalled, Some(Cause::IpvsReuseDropped));
        assert_eq!(judge(&[stalled, WELL]), verdict(Cause::IpvsReuseDropped, 0, None));
    }

    #[test]
    fn a_node_that_knows_no_more_changes_nothing() {
        for other in [
            SILENT,
            (Fate::Unanswered, Cause::Unknown),
            (Fate::Pending, Cause::Unknown),
        ] {
            assert_eq!(of(SILENT, other), verdict(Cause::BackendSilent, 0, None));
        }
        let well = judge(&[WELL, WELL]);
        assert_eq!((well.cause, well.otherwise), (None, None));
        let unknown = (Fate::Unanswered, Cause::Unknown);
        assert_eq!(of(unknown, SILENT), verdict(Cause::BackendSilent, 1, None));
    }

    #[test]
    fn where_they_contradict_no_cause_is_proven_and_both_are_told() {
        // The answer was lost between them.
        let answered = (Fate::Unanswered, Cause::ClientSilent);
        assert_eq!(of(SILENT, answered), verdict(Cause::Unknown, 0, Some(1)));
        let silent = said(SILENT.0, Some(SILENT.1));
        assert_eq!(judge(&[silent, WELL]), verdict(Cause::Unknown, 0, Some(1)));
        let stalled = (Fate::Stalled, Cause::TcpAcceptQueueFull);
        assert_eq!(of(SILENT, stalled), verdict(Cause::Unknown, 0, Some(1)));
        // What the client met stands.
        let dropped = said(Fate::Dropped, Some(Cause::TcpFinalAckDropped));
        let found = judge(&[WELL, dropped]);
        assert_eq!((found.cause, found.from, found.otherwise), (None, 0, Some(1)));
        let own = (Fate::Dropped, Cause::IpvsNoDestination);
        let found = of(own, (Fate::Dropped, Cause::NetfilterRuleDropped));
        assert_eq!(found, verdict(Cause::IpvsNoDestination, 0, Some(1)));
        // Who refused it?
        let refused = (Fate::Refused, Cause::Unknown);
        let found = of(refused, (Fate::Dropped, Cause::NetfilterRuleDropped));
        assert_eq!(found, verdict(Cause::Unknown, 0, Some(1)));
    }

    #[test]
    fn the_farthest_of_three_nodes_may_know() {
        let silent = said(SILENT.0, Some(SILENT.1));
        let full = said(Fate::Unanswered, Some(Cause::TcpAcceptQueueFull));
        let found = judge(&[silent, silent, full]);
        assert_eq!(found, verdict(Cause::TcpAcceptQueueFull, 2, None));
        let unknown = said(Fate::Unanswered, Some(Cause::Unknown));
        let found = judge(&[unknown, silent, full]);
        assert_eq!(found, verdict(Cause::TcpAcceptQueueFull, 2, None));
        let dropped = said(Fate::Dropped, Some(Cause::NetfilterRuleDropped));
        let found = judge(&[silent, dropped, full]);
        assert_eq!(found, verdict(Cause::NetfilterRuleDropped, 1, Some(2)));
        assert_eq!(judge(&[silent, full, WELL]).cause, Some(Cause::Unknown));
    }
}
