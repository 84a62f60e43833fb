//! The kernel half's numbers for flows.
//!
//! The upper 16 bits name a counter, the rest is its value, from 1. Each CPU has a counter for each [`Origin`], so two
//! flows never get the same number, without an atomic operation that returns a value, which needs kernel 5.12.

/// The type of program that begins a flow.
///
/// On one CPU, two programs of the same type never interrupt each other where flows begin; programs of different types do.
/// * The kernel skips a kprobe while another one runs on that CPU (`trace_call_bpf`, `kernel/trace/bpf_trace.c`).
/// * `netif_receive_skb` runs with softirqs disabled, and hardware interrupts receive no packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Origin {
    /// A raw tracepoint where packets arrive.
    Tracepoint = 0,
    /// A kprobe.
    Kprobe = 1,
}

impl Origin {
    /// Number of origins.
    pub const COUNT: u32 = 2;
}

/// Bits of a number that hold the counter's value.
const VALUE_BITS: u32 = 48;

/// The bit of a counter that names its origin. The others are the CPU: `NR_CPUS` is 8192 at most.
const ORIGIN_BIT: u32 = 15;

/// The number of the flow for which this CPU's counter went up to `value`.
#[inline(always)]
#[must_use]
pub const fn of(cpu: u32, origin: Origin, value: u64) -> u64 {
    let counter = cpu as u64 | (origin as u64) << ORIGIN_BIT;
    counter << VALUE_BITS | value
}

/// The counter that gave this number. Its later numbers are larger.
#[must_use]
pub const fn counter(number: u64) -> u16 {
    (number >> VALUE_BITS) as u16
}

/// The counter's value at this number.
#[must_use]
pub const fn value(number: u64) -> u64 {
    number & ((1 << VALUE_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cpu_and_origin_has_its_own_numbers() {
        let mut numbers = [0; 3 * 2 * 2];
        let mut next = numbers.iter_mut();
        for cpu in [0, 1, 8191] {
            for origin in [Origin::Tracepoint, Origin::Kprobe] {
                for value in [1, 2] {
                    *next.next().expect("room") = of(cpu, origin, value);
                }
            }
        }
        for (index, number) in numbers.iter().enumerate() {
            assert!(!numbers[..index].contains(number), "{number:#x}");
        }
    }

    #[test]
    fn numbers_of_one_counter_grow() {
        let (first, second) = (of(7, Origin::Kprobe, 1), of(7, Origin::Kprobe, 2));
        assert!(first < second && counter(first) == counter(second));
        assert_eq!((value(first), value(second)), (1, 2));
        assert_ne!(counter(first), counter(of(7, Origin::Tracepoint, 1)));
    }
}
