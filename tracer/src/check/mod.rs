//! Known hazards of a node, judged from its state without tracing. Pure: `node` reads the state.
//!
//! Each hazard is one row: what is looked at, why it hurts, and the function that judges it. `docs/hazards.md` is generated from
//! the rows.

mod conntrack;
mod hazard;
mod ipvs;
mod ipvs_device;
mod kernel;
mod network;
mod node_port;
mod rules;
mod tcp;

pub use self::hazard::{Details, Hazard, Judged, Severity, State, Tested};
use crate::facts::node_state::NodeState;

/// All hazards, by subject.
pub fn hazards() -> impl Iterator<Item = &'static Hazard> {
    let groups: [&[Hazard]; 8] = [
        &ipvs::HAZARDS,
        &ipvs_device::HAZARDS,
        &node_port::HAZARDS,
        &rules::HAZARDS,
        &conntrack::HAZARDS,
        &tcp::HAZARDS,
        &network::HAZARDS,
        &kernel::HAZARDS,
    ];
    groups.into_iter().flatten()
}

/// Judges all hazards of a node: those that hurt first, then those that are armed, each by severity.
#[must_use]
pub fn judge(node: &NodeState) -> Vec<Judged> {
    let mut all: Vec<Judged> = hazards()
        .map(|hazard| Judged {
            hazard,
            state: (hazard.judge)(node),
        })
        .collect();
    all.sort_by_key(|judged| (judged.state.rank(), judged.hazard.severity));
    all
}

#[cfg(test)]
mod tests;
