//! Verdicts of netfilter (`include/uapi/linux/netfilter.h`).
//!
//! The low byte is the verdict. What is above it depends on the verdict: an errno for a drop, a queue number for a queue.

/// The packet is dropped by the caller.
pub const NF_DROP: i32 = 0;
/// The packet goes on.
pub const NF_ACCEPT: i32 = 1;
/// The function keeps the packet, or has freed it.
pub const NF_STOLEN: i32 = 2;
/// The bits that hold the verdict.
pub const NF_VERDICT_MASK: i32 = 0xff;
/// Above this bit `NF_DROP_REASON` keeps an errno.
const ERRNO_SHIFT: u32 = 16;

/// Did the function free the packet itself, with a reason? `NF_DROP_REASON` (`include/linux/netfilter.h`, 6.7 and later, and
/// 6.1.y) frees the packet and returns `NF_STOLEN` with an errno above it, which nothing else does.
#[must_use]
pub const fn is_drop_with_reason(verdict: i32) -> bool {
    verdict & NF_VERDICT_MASK == NF_STOLEN && verdict >> ERRNO_SHIFT != 0
}

/// Does the verdict drop the packet: `NF_DROP`, with or without an errno, or `NF_DROP_REASON`?
#[must_use]
pub const fn is_drop(verdict: i32) -> bool {
    verdict & NF_VERDICT_MASK == NF_DROP || is_drop_with_reason(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPERM: i32 = 1;

    #[test]
    fn a_drop_is_recognized_with_and_without_an_errno() {
        for drop in [NF_DROP, EPERM << 16, EPERM << 16 | NF_STOLEN] {
            assert!(is_drop(drop), "{drop:#x}");
        }
        assert!(is_drop_with_reason(EPERM << 16 | NF_STOLEN) && !is_drop_with_reason(EPERM << 16));
    }

    #[test]
    fn no_other_verdict_is_a_drop() {
        // A queue number is above the verdict of a queue.
        for other in [NF_ACCEPT, NF_STOLEN, 3, 7 << 16 | 3, 4] {
            assert!(!is_drop(other), "{other:#x}");
        }
    }
}
