//! Counts lost records, even if an interrupt loses one in the middle of a count.
//!
//! A CPU's counter has a word for each level of interruption: the depth says which one is in use, so an interrupt adds to a
//! different word from the program it interrupted. The interrupt ends before the program continues, and restores the depth.
//! The BPF target of Rust has no atomic addition.

/// How deep programs can interrupt each other: task, softirq, hardware interrupt, NMI.
pub const LEVELS: usize = 4;

/// A CPU's counter: the depth, then one count per level.
pub type Counter = [u64; 1 + LEVELS];

/// Adds one to a counter of this CPU. `between` runs between the steps: for tests.
///
/// # Safety
/// The counter must be valid, aligned, and used on one CPU only.
#[allow(
    unsafe_code,
    reason = "the counter is a map value, which an interrupt may change"
)]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the level is cut to the number of levels"
)]
#[inline(always)]
pub unsafe fn count(counter: *mut Counter, mut between: impl FnMut()) {
    let depth = counter.cast::<u64>();
    // SAFETY: the caller vouches for the counter, and the level is below their number. Volatile, because an interrupt may
    // read and write the words between any two steps.
    unsafe {
        let level = depth.read_volatile();
        between();
        depth.write_volatile(level + 1);
        between();
        let lost = depth.add(1 + (level & (LEVELS as u64 - 1)) as usize);
        let before = lost.read_volatile();
        between();
        lost.write_volatile(before + 1);
        between();
        depth.write_volatile(level);
    }
}

/// The number of records that a counter has counted, at all levels.
#[must_use]
pub fn total(counter: &Counter) -> u64 {
    counter[1..].iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code, reason = "calls what is tested")]
    fn an_interrupt_at_any_step_loses_no_count() {
        for interrupted_at in 0..4 {
            let mut counter = Counter::default();
            let counter = &raw mut counter;
            let mut step = 0;
            // SAFETY: the counter is this test's own.
            unsafe {
                count(counter, || {
                    if step == interrupted_at {
                        count(counter, || ());
                        count(counter, || ());
                    }
                    step += 1;
                });
                assert_eq!(total(&*counter), 3, "interrupted at step {interrupted_at}");
                assert_eq!((*counter)[0], 0, "the depth is as it was");
            }
        }
    }
}
