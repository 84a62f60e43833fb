//! One flow in a list: as little as a list needs, since there may be a million.

use std::net::SocketAddr;

use tracer_common::{hook::Hook, tuple::Addr};

use super::{
    names::{Name, Names},
    story::Story,
};
use crate::{
    decode::event::What,
    diagnose::{Dataplane, Diagnosis, cause::Cause, evidence},
    facts::Facts,
    finding::Finding,
    flow::{fate::Fate, model::Flow},
    report::summary::lost_ns,
};

/// A flow that is told of, with all that the screen may want to show.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its number.
    pub id: u64,
    /// When its first SYN was seen, monotonic nanoseconds.
    pub start_ns: u64,
    /// Who asked.
    pub client: SocketAddr,
    /// Whom.
    pub node: SocketAddr,
    /// Who was to answer.
    pub backend: Option<SocketAddr>,
    /// The service, where its name is known.
    pub service: Option<String>,
    /// What became of it.
    pub fate: Fate,
    /// Why.
    pub cause: Option<Cause>,
    /// Who translated.
    pub dataplane: Option<Dataplane>,
    /// From the first SYN to the ACK, nanoseconds.
    pub connect_ns: Option<u64>,
    /// What repetitions cost, nanoseconds; of a flow that never connected, how long its client was seen to try.
    pub lost_ns: u64,
    /// SYNs on the wire.
    pub syns: usize,
    /// The flow before it from the same client port.
    pub earlier: Option<u64>,
    /// Where a packet of it was discarded.
    pub site: Option<Site>,
    /// What each step was seen by.
    pub hooks: Vec<Hook>,
    /// Its way and what proves the cause.
    pub story: Story,
}

/// Where packets are discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The kernel function.
    pub function: String,
    /// The kernel's drop reason; empty without one.
    pub reason: String,
    /// The rule that did it; empty if none is known.
    pub rule: String,
}

impl Told {
    /// Takes what the screen may want of a flow.
    #[must_use]
    pub fn of(finding: &Finding<'_>, patience_ns: u64) -> Self {
        let Finding {
            flow,
            fate,
            diagnosis,
            facts,
            ..
        } = *finding;
        Self {
            id: flow.id,
            start_ns: flow.start_ns(),
            client: flow.client(),
            node: flow.node(),
            backend: flow.backend(),
            service: finding.service().map(str::to_owned),
            fate,
            cause: diagnosis.cause,
            dataplane: diagnosis.dataplane,
            connect_ns: flow.connect_ns(),
            lost_ns: lost_ns(flow, fate, patience_ns),
            syns: flow.attempts.len(),
            earlier: flow.earlier.as_ref().map(|earlier| earlier.id),
            site: site(flow, fate, diagnosis, facts),
            hooks: match fate {
                // They are told of once more with the fate.
                Fate::Pending => Vec::new(),
                _ => flow.steps.iter().map(|step| step.event.hook).collect(),
            },
            story: Story::of(flow, fate, diagnosis, facts),
        }
    }
}

/// Where a packet of a flow that went wrong was discarded last.
fn site(flow: &Flow, fate: Fate, diagnosis: &Diagnosis, facts: &Facts) -> Option<Site> {
    if !is_trouble(fate) {
        return None;
    }
    let (step, drop) = flow.steps.iter().rev().find_map(|step| match &step.event.what {
        What::Drop(drop) => Some((step, drop)),
        _ => None,
    })?;
    Some(Site {
        function: evidence::function(&evidence::location(step, facts)).to_owned(),
        reason: facts.drop_reasons.get(&drop.reason).cloned().unwrap_or_default(),
        rule: diagnosis
            .blame
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    })
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The flow's number.
    pub id: u64,
    /// When its first SYN was seen, monotonic nanoseconds.
    pub start_ns: u64,
    /// The flow before it from the same client port; 0 without one.
    pub earlier: u64,
    /// The client's address.
    pub client: Addr,
    /// Its service and NodePort, as they are shown.
    pub service: Name,
    /// The node's address and port.
    pub node: Name,
    /// The backend's.
    pub backend: Name,
    /// Where a packet was discarded ([`super::totals::Totals::drops`]).
    pub site: Name,
    /// From the first SYN to the ACK, microseconds; `u32::MAX` if there was none.
    pub connect_us: u32,
    /// Time lost, microseconds.
    pub lost_us: u32,
    /// The client's port.
    pub client_port: u16,
    /// The NodePort.
    pub node_port: u16,
    /// SYNs on the wire.
    pub syns: u16,
    /// What became of it.
    pub fate: Fate,
    /// Why.
    pub cause: Option<Cause>,
    /// Who translated.
    pub dataplane: Option<Dataplane>,
}

impl Row {
    /// The row of a flow.
    #[must_use]
    pub fn of(told: &Told, names: &mut Names) -> Self {
        let micros = |nanos: u64| u32::try_from(nanos / 1_000).unwrap_or(u32::MAX - 1);
        let service = match &told.service {
            Some(service) => format!("{service}:{}", told.node.port()),
            None => format!("port {}", told.node.port()),
        };
        Self {
            id: told.id,
            start_ns: told.start_ns,
            earlier: told.earlier.unwrap_or_default(),
            client: told.client.ip().into(),
            service: names.keep(&service),
            node: names.keep(&told.node.to_string()),
            backend: told
                .backend
                .map_or(Name::NONE, |backend| names.keep(&backend.to_string())),
            site: told.site.as_ref().map_or(Name::NONE, |site| {
                names.keep(&format!("{}\t{}\t{}", site.function, site.reason, site.rule))
            }),
            connect_us: told.connect_ns.map_or(u32::MAX, micros),
            lost_us: micros(told.lost_ns),
            client_port: told.client.port(),
            node_port: told.node.port(),
            syns: u16::try_from(told.syns).unwrap_or(u16::MAX),
            fate: told.fate,
            cause: told.cause,
            dataplane: told.dataplane,
        }
    }

    /// The client's address and port.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        SocketAddr::new(self.client.ip(), self.client_port)
    }

    /// Did something go wrong?
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        is_trouble(self.fate)
    }
}

/// Did something go wrong?
#[must_use]
pub fn is_trouble(fate: Fate) -> bool {
    fate.is_bad()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_rows_take_less_than_a_hundred_mebibytes() {
        assert!(size_of::<Row>() <= 80, "{}", size_of::<Row>());
    }
}
