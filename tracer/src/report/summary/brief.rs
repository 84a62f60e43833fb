//! The summary's memory of one flow: small, because there may be millions.

use std::{net::SocketAddr, sync::Arc};

use jiff::Timestamp;

use crate::{
    diagnose::{self, cause::Cause},
    finding::selection::Candidate,
    flow::fate::Fate,
};

/// The data that the summary keeps about one flow.
#[derive(Clone, Debug)]
pub(super) struct Brief {
    pub(super) start: Timestamp,
    pub(super) fate: Fate,
    pub(super) cause: Option<Cause>,
    pub(super) lost_ns: u64,
    /// The part of it lost to the causes of SYNs other than the deciding one; most flows have none.
    pub(super) others: Option<Box<[(Cause, u64)]>>,
    pub(super) client: SocketAddr,
    pub(super) to: Arc<Destination>,
    pub(super) probes_skipped: bool,
}

/// A destination of flows. Many flows share one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Destination {
    pub(super) node: SocketAddr,
    pub(super) service: Option<String>,
    pub(super) backend: Option<SocketAddr>,
}

impl Brief {
    /// Whether the connection failed, was delayed, or was misdirected.
    pub(super) fn is_failure(&self) -> bool {
        diagnose::is_failure(self.fate, self.cause)
    }

    /// The time lost to other causes than the flow's, nanoseconds.
    pub(super) fn others(&self) -> impl Iterator<Item = (Cause, u64)> {
        self.others.iter().flatten().copied()
    }

    /// The time lost to the flow's own cause, nanoseconds.
    pub(super) fn own_lost_ns(&self) -> u64 {
        self.others()
            .fold(self.lost_ns, |lost, (_, other)| lost.saturating_sub(other))
    }

    /// The properties that a selection checks, with the cause of the whole connection.
    pub(super) fn candidate(&self, cause: Option<Cause>) -> Candidate<'_> {
        Candidate {
            client: self.client,
            node: self.to.node,
            service: self.to.service.as_deref(),
            fate: self.fate,
            cause,
        }
    }
}
