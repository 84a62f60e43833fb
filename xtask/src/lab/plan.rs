//! The plan of a guest: its scenarios.

use std::thread;

use tracer_lab::scenario::{KernelName, Named};
use tracer_lab::vm::qemu::Machine;

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

impl GuestPlan<'_> {
    /// Whether any of its scenarios has a real control plane.
    pub(crate) fn has_control_plane(&self) -> bool {
        self.scenarios
            .iter()
            .any(|named| named.scenario.kubernetes.is_some())
    }

    /// The size of the guest.
    pub(crate) fn machine(&self) -> Machine {
        Machine {
            cpus: self.cpus,
            memory_mib: if self.has_control_plane() {
                Machine::MEMORY_MIB_KUBERNETES
            } else {
                Machine::MEMORY_MIB
            },
            counts_instructions: false,
        }
    }
}

/// How many guests run in parallel: one per core, because an emulated guest keeps about one core busy, but at least two,
/// and at most four, so that they fit into the memory of a small machine.
pub(crate) fn parallel_guests() -> usize {
    thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4))
}
