//! Proof of where IPVS keeps its fields, for kernels that do not describe the module's types.
//!
//! Connections whose every property is known are made in a private network namespace, a probe reports each
//! entry's memory while the kernel prints it, and an offset counts as proven only if it fits everything that was
//! seen. What is not proven is not used.

mod control;
mod layout;
mod prove;
mod stage;
#[cfg(test)]
mod tests;

use crate::facts::modules::Modules;
pub use layout::{Behind, Field, Flags, Known, Sample};
pub use prove::{Proof, ProvenLayout, prove};
pub use stage::{Record, StageError, Witness, collect_samples};

/// Schedulers that give a service with a single real server that one, the most common first.
const SCHEDULERS: [&str; 12] = [
    "rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq", "fo", "lblc", "lblcr", "mh",
];

/// A scheduler that the kernel already has, so that it need not load one. `None` also if IPVS itself is absent.
#[must_use]
pub fn pick_scheduler(modules: &Modules) -> Option<&'static str> {
    let has = |name: &&str| modules.has(&format!("ip_vs_{name}"));
    SCHEDULERS.into_iter().find(has).filter(|_| modules.has("ip_vs"))
}
