//! Counts records that were not written, and SYNs that could not be followed.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use tracer_common::{
    hook::{Hook, NUMBERS},
    lost::{self, Counter},
};

/// The number of records that did not fit, by hook and CPU.
#[map]
static LOST: PerCpuArray<Counter> = PerCpuArray::with_max_entries(NUMBERS, 0);

/// Adds one to the lost records of `hook`.
#[inline(always)]
pub(super) fn count(hook: Hook) {
    if let Some(counter) = LOST.get_ptr_mut(hook as u32) {
        // SAFETY: the value is this CPU's, aligned, and valid while the program runs.
        unsafe { lost::count(counter, || ()) };
    }
}
