//! Where in netfilter a packet was dropped, from the call stack.

use crate::{
    diagnose::{case::Case, evidence::function, stack},
    facts::nft::Family,
};

/// Kernel functions that call a netfilter hook, with the hook (`enum nf_inet_hooks`), 5.10 to 7.3. IPVS hands what it has
/// translated to the output hook itself.
const CALLERS: [(&str, u32); 19] = [
    ("ip_rcv", 0),
    ("ip_list_rcv", 0),
    ("ip_sublist_rcv", 0),
    ("ipv6_rcv", 0),
    ("ipv6_list_rcv", 0),
    ("ip6_sublist_rcv", 0),
    ("ip_local_deliver", 1),
    ("ip6_input", 1),
    ("ip_forward", 2),
    ("ip6_forward", 2),
    ("__ip_local_out", 3),
    ("__ip6_local_out", 3),
    ("ip_vs_nat_send_or_cont", 3),
    ("ip_vs_nat_xmit", 3),
    ("ip_vs_nat_xmit_v6", 3),
    ("ip_output", 4),
    ("ip6_output", 4),
    ("ip_mc_output", 4),
    ("ip_mr_output", 4),
];

/// Functions through which netfilter calls an nf_tables base chain, with the family of its table.
const CHAINS: [(&str, Family); 6] = [
    ("nft_do_chain_ipv4", Family::Ip),
    ("nft_do_chain_ipv6", Family::Ip6),
    ("nft_do_chain_inet", Family::Inet),
    ("nft_do_chain_inet_ingress", Family::Inet),
    ("nft_do_chain_netdev", Family::Netdev),
    ("nft_do_chain_bridge", Family::Bridge),
];

/// The function for chains that translate, of any family.
const NAT_CHAIN: &str = "nft_nat_do_chain";

/// The place in netfilter where a packet was dropped.
pub(super) struct Site {
    /// Number of the netfilter hook, if the caller is known.
    pub(super) nf_hook: Option<u32>,
    /// The family of the table whose chain freed the packet; `None` for a chain that translates, or no chain.
    pub(super) family: Option<Family>,
    /// Whether a NAT chain freed it.
    pub(super) is_nat: bool,
    /// Whether an nf_tables chain freed it, instead of leaving that to netfilter.
    pub(super) is_chain: bool,
    /// Whether a rule queued it for a program that could not receive it (`nf_queue`, `net/netfilter/nf_queue.c`).
    pub(super) is_queue: bool,
}

impl Site {
    /// The place of the drop; `None` if neither netfilter nor nf_tables freed the packet.
    pub(super) fn of(case: &Case<'_>) -> Option<Self> {
        let freed_in = function(case.dropped_in()?);
        let is_chain = freed_in == "nft_do_chain";
        let is_queue = freed_in == "nf_queue";
        if !is_chain && !is_queue && freed_in != "nf_hook_slow" {
            return None;
        }
        let stack: Vec<&str> = stack::of(case).into_iter().map(function).collect();
        let caller = stack
            .iter()
            .skip_while(|name| !name.starts_with("nf_hook_slow"))
            .find(|name| !name.starts_with("nf_hook_slow"));
        let nf_hook = caller.and_then(|caller| CALLERS.iter().find(|(name, _)| name == caller));
        let family = stack
            .iter()
            .find_map(|frame| CHAINS.iter().find(|(name, _)| name == frame));
        Some(Self {
            nf_hook: nf_hook.map(|&(_, hook)| hook),
            family: family.map(|&(_, family)| family),
            is_nat: stack.contains(&NAT_CHAIN),
            is_chain,
            is_queue,
        })
    }
}
