//! The plan of a guest: its scenarios.

use std::thread;

use tracer_lab::scenario::{KernelName, Named};

/// CPUs of a guest: two, so that packets are processed on two CPUs at once.
pub(crate) const GUEST_CPUS: u8 = 2;

/// One guest: its kernel and its scenarios.
#[derive(Debug, Clone)]
pub(crate) struct GuestPlan<'a> {
    /// The kernel to boot.
    pub(crate) kernel: KernelName,
    /// The guest's CPUs.
    pub(crate) cpus: u8,
    /// The scenarios, in this order.
    pub(crate) scenarios: Vec<&'a Named>,
}

/// How many guests run in parallel: one per core, because an emulated guest keeps about one core busy, and at most four,
/// so that they fit into the memory of a small machine.
pub(crate) fn parallel_guests() -> usize {
    thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4))
}
