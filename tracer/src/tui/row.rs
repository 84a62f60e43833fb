//! One flow in a list: compact, because there may be a million.

use std::net::SocketAddr;

use tracer_common::tuple::Addr;

use super::{
    flow_update::FlowUpdate,
    names::{Name, Names},
    theme::Outcome,
};
use crate::{
    diagnose::{Dataplane, cause::Cause, is_failure},
    flow::fate::Fate,
};

/// The columns of one flow, with shared texts replaced by [`Name`]s.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The flow's number.
    pub id: u64,
    /// Time of its first SYN, monotonic nanoseconds.
    pub start_ns: u64,
    /// The previous flow from the same client port; 0 if there is none.
    pub earlier: u64,
    /// The client's address.
    pub client: Addr,
    /// Service and NodePort, as shown.
    pub service: Name,
    /// The node's address and port.
    pub node: Name,
    /// The backend's address and port.
    pub backend: Name,
    /// The place where its last packet was dropped ([`super::totals::Totals::drops`]).
    pub drop_site: Name,
    /// From the first SYN to the client's ACK, microseconds; `u32::MAX` without a connection.
    pub connect_us: u32,
    /// Time lost, microseconds.
    pub lost_us: u32,
    /// The part of it that `other_cause` cost, microseconds.
    pub other_us: u32,
    /// The client's port.
    pub client_port: u16,
    /// The NodePort.
    pub node_port: u16,
    /// SYNs on the wire.
    pub syns: u16,
    /// The flow's fate so far.
    pub fate: Fate,
    /// The flow's cause, if it has one.
    pub cause: Option<Cause>,
    /// The cause, other than its own, that cost the most time.
    pub other_cause: Option<Cause>,
    /// The dataplane that did the DNAT.
    pub dataplane: Option<Dataplane>,
}

impl Row {
    /// The row of a flow.
    #[must_use]
    pub fn of(flow: &FlowUpdate, names: &mut Names) -> Self {
        let micros = |nanos: u64| u32::try_from(nanos / 1_000).unwrap_or(u32::MAX - 1);
        let service = match &flow.service {
            Some(service) => format!("{service}:{}", flow.node.port()),
            None => format!("port {}", flow.node.port()),
        };
        Self {
            id: flow.id,
            start_ns: flow.start_ns,
            earlier: flow.earlier.unwrap_or_default(),
            client: flow.client.ip().into(),
            service: names.keep(&service),
            node: names.keep(&flow.node.to_string()),
            backend: flow
                .backend
                .map_or(Name::NONE, |backend| names.keep(&backend.to_string())),
            drop_site: flow.drop_site.as_ref().map_or(Name::NONE, |site| {
                names.keep(&format!("{}\t{}\t{}", site.function, site.reason, site.rule))
            }),
            connect_us: flow.connect_ns.map_or(u32::MAX, micros),
            lost_us: micros(flow.lost_ns),
            other_us: flow.other_cause.map_or(0, |(_, lost)| micros(lost)),
            client_port: flow.client.port(),
            node_port: flow.node.port(),
            syns: u16::try_from(flow.syns).unwrap_or(u16::MAX),
            fate: flow.fate,
            cause: flow.cause,
            other_cause: flow.other_cause.map(|(cause, _)| cause),
            dataplane: flow.dataplane,
        }
    }

    /// The client's address and port.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        SocketAddr::new(self.client.ip(), self.client_port)
    }

    /// Whether the connection failed, was delayed, or was misdirected.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        is_failure(self.fate, self.cause)
    }

    /// The fate, and whether the flow is a failure.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        (self.fate, self.is_failure())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_rows_take_less_than_100_mib() {
        assert!(size_of::<Row>() <= 80, "{}", size_of::<Row>());
    }
}
