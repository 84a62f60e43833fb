//! Constants of the kernel's interfaces that both halves use, each with the header that defines it. Where no version is
//! given, the value is the same from 3.10 to 7.3.

/// `AF_INET` (`include/linux/socket.h`).
pub const AF_INET: u8 = 2;
/// `AF_INET6`.
pub const AF_INET6: u8 = 10;

/// Pointers above `-MAX_ERRNO` are error values (`IS_ERR()`, `include/linux/err.h`).
pub const MAX_ERRNO: i64 = 4095;

/// `TCP_SYN_SENT` (`include/net/tcp_states.h`).
pub const TCP_SYN_SENT: u8 = 2;

/// Verdicts of netfilter (`include/uapi/linux/netfilter.h`).
pub mod verdict {
    /// `NF_DROP`.
    pub const NF_DROP: i32 = 0;
    /// `NF_ACCEPT`.
    pub const NF_ACCEPT: i32 = 1;
    /// `NF_STOLEN`: the function took the packet over.
    pub const NF_STOLEN: i32 = 2;
    /// `NF_VERDICT_MASK`: the bits that hold the verdict itself.
    pub const NF_VERDICT_MASK: i32 = 0xff;

    /// The verdict itself, without the errno or queue number in the upper bits.
    #[inline(always)]
    #[must_use]
    pub const fn code(verdict: i32) -> i32 {
        verdict & NF_VERDICT_MASK
    }

    /// Whether the packet was freed with `NF_DROP_REASON` (`include/linux/netfilter.h`, since 6.7). The function frees it
    /// itself and returns `NF_STOLEN` with an errno in the upper half.
    #[inline(always)]
    #[must_use]
    pub const fn is_drop_reason(verdict: i32) -> bool {
        code(verdict) == NF_STOLEN && verdict.cast_unsigned() >> 16 != 0
    }

    /// Whether the verdict drops the packet: `NF_DROP`, with or without an errno, or `NF_DROP_REASON`.
    #[inline(always)]
    #[must_use]
    pub const fn is_drop(verdict: i32) -> bool {
        code(verdict) == NF_DROP || is_drop_reason(verdict)
    }
}

/// Verdicts of nf_tables' own (`enum nft_verdicts`, `include/uapi/linux/netfilter/nf_tables.h`, since 3.13).
pub mod nft_verdict {
    /// `NFT_CONTINUE`: the next expression.
    pub const NFT_CONTINUE: i32 = -1;
    /// `NFT_BREAK`: the next rule.
    pub const NFT_BREAK: i32 = -2;
    /// `NFT_JUMP`.
    pub const NFT_JUMP: i32 = -3;
}

/// Netfilter hooks (`enum nf_inet_hooks`, `include/uapi/linux/netfilter.h`).
pub mod nf_hook {
    /// `NF_INET_PRE_ROUTING`.
    pub const PRE_ROUTING: u8 = 0;
    /// `NF_INET_LOCAL_OUT`.
    pub const LOCAL_OUT: u8 = 3;
}

/// Protocol families of netfilter (`include/uapi/linux/netfilter.h`).
pub mod nfproto {
    /// `NFPROTO_IPV4`.
    pub const IPV4: u8 = 2;
    /// `NFPROTO_IPV6`.
    pub const IPV6: u8 = 10;
}

/// The conntrack state of a packet (`enum ip_conntrack_info`, `include/uapi/linux/netfilter/nf_conntrack_common.h`).
pub mod ctinfo {
    /// `IP_CT_NEW`.
    pub const NEW: u32 = 2;
    /// `IP_CT_UNTRACKED` (since 4.13): a rule exempted the packet from tracking.
    pub const UNTRACKED: u32 = 7;

    /// The bits of `sk_buff._nfct` that hold it (`NFCT_INFOMASK`, `include/linux/skbuff.h`, since 4.12); the others are
    /// the pointer to the `struct nf_conn`.
    pub const MASK: u64 = 7;
}

#[cfg(test)]
mod tests {
    use super::verdict::{NF_ACCEPT, NF_DROP, NF_STOLEN, code, is_drop, is_drop_reason};

    /// `NF_DROP_ERR(EPERM)`, the errno as a negative number in the upper half (`include/uapi/linux/netfilter.h`).
    const DROP_WITH_ERRNO: i32 = (-1_i32) << 16 | NF_DROP;
    /// `NF_DROP_REASON(skb, reason, EPERM)`.
    const DROP_REASON: i32 = (-1_i32) << 16 | NF_STOLEN;

    #[test]
    fn every_form_of_a_drop_is_a_drop() {
        assert!(is_drop(NF_DROP) && is_drop(DROP_WITH_ERRNO) && is_drop(DROP_REASON));
        assert!(!is_drop(NF_ACCEPT) && !is_drop(NF_STOLEN));
    }

    #[test]
    fn a_drop_reason_is_a_stolen_packet_with_an_errno() {
        assert!(is_drop_reason(DROP_REASON));
        assert!(!is_drop_reason(NF_STOLEN) && !is_drop_reason(DROP_WITH_ERRNO));
        assert_eq!(code(DROP_REASON), NF_STOLEN);
    }
}
