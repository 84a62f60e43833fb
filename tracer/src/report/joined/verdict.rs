//! The verdict on a connection that several nodes saw.
//!
//! The node that the client contacted knows what the client experienced. Of the path beyond itself it sees only what came
//! back, or that nothing did. The next node may know why.

use crate::{
    diagnose::{self, cause::Cause},
    flow::fate::Fate,
};

/// The conclusion of one node about its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeVerdict {
    /// The fate of its flow.
    pub fate: Fate,
    /// The cause that the node found, if any.
    pub cause: Option<Cause>,
    /// Whether it dropped the SYN or the SYN-ACK at least once.
    pub dropped: bool,
}

/// The verdict on the connection. Its fate is always that of the first node: the client experienced that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The cause of the whole connection.
    pub cause: Option<Cause>,
    /// Index of the node whose explanation counts.
    pub decisive: usize,
    /// Index of a node that disagrees: its explanation is shown as well.
    pub disagreeing: Option<usize>,
}

/// Joins the verdicts of all nodes, in the order the SYN reached them.
#[must_use]
pub fn judge(nodes: &[NodeVerdict]) -> Verdict {
    let mut verdict = Verdict {
        cause: nodes.first().and_then(|first| first.cause),
        decisive: 0,
        disagreeing: None,
    };
    let Some((first, others)) = nodes.split_first() else {
        return verdict;
    };
    if first.fate == Fate::Pending {
        return verdict;
    }
    let mut is_contradicted = false;
    // So far no node knows more than that nothing came back.
    let mut is_weak = true;
    for (index, other) in others.iter().enumerate().map(|(index, other)| (index + 1, other)) {
        match compare(*first, *other) {
            Comparison::NothingNew => {}
            Comparison::Explains { is_certain } if verdict.decisive == 0 || is_certain && is_weak => {
                verdict.cause = other.cause;
                verdict.decisive = index;
                is_weak = !is_certain;
            }
            Comparison::Explains { is_certain } => {
                if is_certain && verdict.cause != other.cause {
                    verdict.disagreeing.get_or_insert(index);
                }
            }
            Comparison::Differs => {
                verdict.disagreeing.get_or_insert(index);
            }
            Comparison::Contradicts => {
                verdict.disagreeing.get_or_insert(index);
                is_contradicted = true;
            }
        }
    }
    if is_contradicted {
        // One of them is wrong, or the packet was lost between them: no cause of a single node is proven.
        verdict.cause = Some(Cause::Unknown);
        verdict.decisive = 0;
    }
    verdict
}

/// The relation of a later node's verdict to that of the first node.
enum Comparison {
    /// It adds nothing.
    NothingNew,
    /// It has the cause, which the first node could not know. If not certain, nothing came back to it either.
    Explains { is_certain: bool },
    /// Both have a cause, and they differ.
    Differs,
    /// Only one of the two can be right.
    Contradicts,
}

fn compare(first: NodeVerdict, other: NodeVerdict) -> Comparison {
    let finished = |node: NodeVerdict| matches!(node.fate, Fate::Established | Fate::Stalled);
    if other.fate == Fate::Pending {
        return Comparison::NothingNew;
    }
    if !is_open(first) {
        let differs = match (first.fate, other.fate) {
            (Fate::Established, fate) => diagnose::is_failure(fate, other.cause),
            (Fate::Stalled, _) => knows(other) && other.cause != first.cause,
            _ => finished(other) || knows(other) && other.cause != first.cause,
        };
        return if differs {
            Comparison::Differs
        } else {
            Comparison::NothingNew
        };
    }
    if other.cause == Some(Cause::ClientSilent) || other.cause.is_none() {
        // An answer left that node, or the handshake finished there.
        return Comparison::Contradicts;
    }
    let fits = match first.fate {
        Fate::Refused => other.fate == Fate::Refused,
        // A retransmission may have gone to another backend than the one that dropped the first SYN.
        Fate::Stalled => other.fate != Fate::Refused,
        _ => !finished(other),
    };
    match other.cause {
        _ if !fits && finished(other) => Comparison::Contradicts,
        Some(Cause::BackendSilent) if first.cause == Some(Cause::Unknown) && fits => {
            Comparison::Explains { is_certain: false }
        }
        _ if !knows(other) => Comparison::NothingNew,
        _ if fits => Comparison::Explains { is_certain: true },
        _ => Comparison::Differs,
    }
}

/// Whether the first node knows only that something happened beyond it. It knows what it dropped itself, even without a
/// reason.
fn is_open(first: NodeVerdict) -> bool {
    match first.cause {
        Some(Cause::BackendSilent) => true,
        Some(Cause::Unknown) => first.fate != Fate::Dropped && !first.dropped,
        _ => false,
    }
}

/// Whether a later node knows what it did itself, or what the backend did there.
fn knows(other: NodeVerdict) -> bool {
    match other.cause {
        None | Some(Cause::BackendSilent | Cause::ClientSilent) => false,
        Some(Cause::Unknown) => other.fate == Fate::Dropped,
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(fate: Fate, cause: Option<Cause>) -> NodeVerdict {
        NodeVerdict {
            fate,
            cause,
            dropped: fate == Fate::Dropped,
        }
    }

    fn verdict(cause: Cause, decisive: usize, disagreeing: Option<usize>) -> Verdict {
        Verdict {
            cause: Some(cause),
            decisive,
            disagreeing,
        }
    }

    const SILENT: (Fate, Cause) = (Fate::Unanswered, Cause::BackendSilent);
    const HEALTHY: NodeVerdict = NodeVerdict {
        fate: Fate::Established,
        cause: None,
        dropped: false,
    };

    /// The joint verdict of two nodes.
    fn joint(first: (Fate, Cause), other: (Fate, Cause)) -> Verdict {
        judge(&[node(first.0, Some(first.1)), node(other.0, Some(other.1))])
    }

    #[test]
    fn the_next_node_explains_why_nothing_came_back() {
        for (fate, cause) in [
            (Fate::Dropped, Cause::NetfilterRuleDropped),
            (Fate::Unanswered, Cause::TcpAcceptQueueFull),
            (Fate::Refused, Cause::TcpNoListener),
            (Fate::Dropped, Cause::Unknown),
        ] {
            assert_eq!(joint(SILENT, (fate, cause)), verdict(cause, 1, None));
        }
        let refused = (Fate::Refused, Cause::Unknown);
        let found = joint(refused, (Fate::Refused, Cause::TcpNoListener));
        assert_eq!(found, verdict(Cause::TcpNoListener, 1, None));
        let stalled = (Fate::Stalled, Cause::BackendSilent);
        let found = joint(stalled, (Fate::Stalled, Cause::TcpAcceptQueueFull));
        assert_eq!(found, verdict(Cause::TcpAcceptQueueFull, 1, None));
    }

    #[test]
    fn what_the_first_node_did_itself_counts() {
        let dropped = (Fate::Dropped, Cause::IpvsReuseDropped);
        let found = joint(dropped, (Fate::Unanswered, Cause::BackendSilent));
        assert_eq!(found, verdict(Cause::IpvsReuseDropped, 0, None));
        // It dropped one without a known reason, and the next node cannot know that reason.
        let unknown = (Fate::Dropped, Cause::Unknown);
        let found = joint(unknown, (Fate::Dropped, Cause::NetfilterRuleDropped));
        assert_eq!(found, verdict(Cause::Unknown, 0, Some(1)));
        // It dropped the first SYN itself, and the second one got through.
        let stalled = node(Fate::Stalled, Some(Cause::IpvsReuseDropped));
        assert_eq!(
            judge(&[stalled, HEALTHY]),
            verdict(Cause::IpvsReuseDropped, 0, None)
        );
    }

    #[test]
    fn a_node_that_knows_no_more_changes_nothing() {
        for other in [
            SILENT,
            (Fate::Unanswered, Cause::Unknown),
            (Fate::Pending, Cause::Unknown),
        ] {
            assert_eq!(joint(SILENT, other), verdict(Cause::BackendSilent, 0, None));
        }
        let healthy = judge(&[HEALTHY, HEALTHY]);
        assert_eq!((healthy.cause, healthy.disagreeing), (None, None));
        let unknown = (Fate::Unanswered, Cause::Unknown);
        assert_eq!(joint(unknown, SILENT), verdict(Cause::BackendSilent, 1, None));
    }

    #[test]
    fn contradicting_nodes_prove_no_cause_and_are_both_shown() {
        // The answer was lost between them.
        let answered = (Fate::Unanswered, Cause::ClientSilent);
        assert_eq!(joint(SILENT, answered), verdict(Cause::Unknown, 0, Some(1)));
        let silent = node(SILENT.0, Some(SILENT.1));
        assert_eq!(judge(&[silent, HEALTHY]), verdict(Cause::Unknown, 0, Some(1)));
        let stalled = (Fate::Stalled, Cause::TcpAcceptQueueFull);
        assert_eq!(joint(SILENT, stalled), verdict(Cause::Unknown, 0, Some(1)));
        // What the client experienced counts.
        let dropped = node(Fate::Dropped, Some(Cause::TcpFinalAckDropped));
        let found = judge(&[HEALTHY, dropped]);
        assert_eq!(
            (found.cause, found.decisive, found.disagreeing),
            (None, 0, Some(1))
        );
        let own = (Fate::Dropped, Cause::IpvsNoDestination);
        let found = joint(own, (Fate::Dropped, Cause::NetfilterRuleDropped));
        assert_eq!(found, verdict(Cause::IpvsNoDestination, 0, Some(1)));
        // Which of them refused it is not known.
        let refused = (Fate::Refused, Cause::Unknown);
        let found = joint(refused, (Fate::Dropped, Cause::NetfilterRuleDropped));
        assert_eq!(found, verdict(Cause::Unknown, 0, Some(1)));
    }

    #[test]
    fn the_last_of_three_nodes_may_have_the_cause() {
        let silent = node(SILENT.0, Some(SILENT.1));
        let full = node(Fate::Unanswered, Some(Cause::TcpAcceptQueueFull));
        let found = judge(&[silent, silent, full]);
        assert_eq!(found, verdict(Cause::TcpAcceptQueueFull, 2, None));
        let unknown = node(Fate::Unanswered, Some(Cause::Unknown));
        let found = judge(&[unknown, silent, full]);
        assert_eq!(found, verdict(Cause::TcpAcceptQueueFull, 2, None));
        let dropped = node(Fate::Dropped, Some(Cause::NetfilterRuleDropped));
        let found = judge(&[silent, dropped, full]);
        assert_eq!(found, verdict(Cause::NetfilterRuleDropped, 1, Some(2)));
        assert_eq!(judge(&[silent, full, HEALTHY]).cause, Some(Cause::Unknown));
    }
}
