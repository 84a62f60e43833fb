//! Proves the offsets of IPVS struct members on kernels without BTF for the module.
//!
//! It makes connections with known properties in a private network namespace. While the kernel prints the connection
//! table, a probe reports the memory of each entry. An offset is proven only if it matches every entry; others are not
//! used.

mod control;
mod layout;
mod prove;
pub mod reuse_trial;
mod testbed;
#[cfg(test)]
mod tests;

use crate::facts::modules::Modules;
pub use layout::{Field, Flags, Known, Pointee, Sample};
pub use prove::{Proof, ProvenLayout, prove};
pub use testbed::{ConnProbe, Record, TestbedError, collect_samples};

/// Schedulers that choose the only real server of a service, most common first.
const SCHEDULERS: [&str; 12] = [
    "rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq", "fo", "lblc", "lblcr", "mh",
];

/// A scheduler that is already loaded or built in, so that the kernel does not load one. `None` also if IPVS itself is
/// absent.
#[must_use]
pub fn pick_scheduler(modules: &Modules) -> Option<&'static str> {
    let has = |name: &&str| modules.has(&format!("ip_vs_{name}"));
    SCHEDULERS.into_iter().find(has).filter(|_| modules.has("ip_vs"))
}
