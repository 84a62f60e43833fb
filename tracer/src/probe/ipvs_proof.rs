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

use crate::node::modules::Modules;
pub use layout::{Behind, Field, Flags, Known, Sample};
pub use prove::{Proof, ProvenLayout, prove};
pub use stage::{Record, StageError, Witness, collect_samples};

/// Modules of the schedulers that give a service with a single real server that one, the most common first.
pub const SCHEDULERS: [&str; 12] = [
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_lc",
    "ip_vs_wlc",
    "ip_vs_sh",
    "ip_vs_dh",
    "ip_vs_sed",
    "ip_vs_nq",
    "ip_vs_fo",
    "ip_vs_lblc",
    "ip_vs_lblcr",
    "ip_vs_mh",
];

/// A scheduler that the kernel already has, so that it need not load one. `None` also if IPVS itself is absent.
#[must_use]
pub fn pick_scheduler(modules: &Modules) -> Option<&'static str> {
    let has = |module: &&str| modules.has(module);
    let module = SCHEDULERS.into_iter().find(has).filter(|_| modules.has("ip_vs"));
    module.and_then(|module| module.strip_prefix("ip_vs_"))
}
