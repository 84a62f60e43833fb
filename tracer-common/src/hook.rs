//! The hook table: every place in the kernel that tracer attaches to, with its purpose.
//!
//! A row is `Id = number, kind, function, exit program, "module", body, [fields it needs], "purpose";`.
//! * `tracepoint`: a raw tracepoint; the module column is its category.
//! * `entry`: a kprobe.
//! * `call`: a kprobe and a kretprobe, paired by the stack pointer.
//!
//! The purpose says what the hook shows by itself. The rows of the causes say which causes it helps to prove.
//!
//! A hook that is attached on demand has a [`When`] after its purpose, for example `"purpose", after_rule_drop;`. Every
//! hook whose function runs for all packets of the node, or of a connection, should have one. The exception is
//! `netif_receive_skb`, where flows begin.
//!
//! Rows are in the order in which a packet passes them, with the IPv6 twins listed at the end. Hooks are attached from the
//! end of the path to its start, twins together: whenever a packet is seen at one hook, all later hooks are already
//! attached.
//!
//! Function names and argument positions are from the sources of 3.10 to 7.3 (bodies name the arguments that they read).
//! Rows that do the same work on different kernels are grouped in [`Hook::ALTERNATIVES`]; the plan attaches those that
//! exist. Recordings carry the numbers, so a number that was used never gets another meaning.

mod role;

use crate::field::{self, Field};

/// Passes every row to `$callback!`.
#[macro_export]
macro_rules! for_each_hook {
    ($callback:ident) => {
        $callback! {
            // A client on the node itself: its SYN arrives from no device.
            TcpConnect = 56, entry, tcp_connect, none, "", local::connect,
                [SOCK_NET, SOCK_FAMILY, SOCK_DPORT, SOCK_NUM, TCP_SOCK_WRITE_SEQ],
                "first SYNs of clients on the node";
            TcpRetransmit = 57, tracepoint, tcp_retransmit_skb, none, "tcp", local::retransmit,
                [SOCK_NET, SOCK_FAMILY, SOCK_DPORT, SOCK_NUM, SOCK_STATE, TCP_SOCK_SND_UNA],
                "retransmitted SYNs of clients on the node";

            // The wire: SYNs as they arrive, answers as they leave, device by device.
            NetifReceive = 1, tracepoint, netif_receive_skb, none, "net", wire::received,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "arriving SYNs and ACKs, with their TTL";
            DevStartXmit = 2, tracepoint, net_dev_start_xmit, none, "net", wire::transmitted,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "departing SYN-ACKs and RSTs", on_suspicion;
            KfreeSkb = 3, tracepoint, kfree_skb, none, "skb", drop::freed,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "dropped packets";

            // NAT at prerouting, once per connection, and routing that fails.
            NatSetup = 73, call, nf_nat_setup_info, nf_nat_setup_info_exit, "nf_nat", nat::setup,
                [NF_CONN_ORIGINAL, NF_CONN_REPLY, NF_CONN_STATUS], "the tuple after DNAT, once per connection";
            RouteMartian = 70, entry, ip_handle_martian_source, none, "", route::martian,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the settings that refused the source address";
            RouteError = 71, entry, ip_error, none, "", route::error,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, SK_BUFF_DST, DST_ERROR, NET_DEVICE_IN_DEVICE, IN_DEVICE_FORWARDING],
                "packets without a route";

            // IPVS, in the order in which a SYN passes it. ip_vs_in itself is inlined, so its callers are hooked.
            IpvsIn = 10, call, ip_vs_in_hook, ip_vs_in_hook_exit, "ip_vs", ipvs::request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the verdict of IPVS", on_suspicion;
            IpvsRemoteRequest = 11, call, ip_vs_remote_request4, ip_vs_remote_request4_exit, "ip_vs", ipvs::request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the verdict of IPVS (before 5.16)", on_suspicion;
            IpvsLocalRequest = 12, call, ip_vs_local_request4, ip_vs_local_request4_exit, "ip_vs", ipvs::request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the verdict of IPVS for clients on the node (before 5.16)", on_suspicion;
            IpvsLookup = 13, call, ip_vs_conn_in_get_proto, ip_vs_conn_in_get_proto_exit, "ip_vs", ipvs::lookup,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the IPVS connection entry that a SYN matches", on_suspicion;
            IpvsExpireNow = 14, entry, ip_vs_conn_expire_now, none, "ip_vs", ipvs::expire_now,
                [], "an IPVS connection entry that expires at once";
            IpvsTcpSchedule = 15, call, tcp_conn_schedule, tcp_conn_schedule_exit, "ip_vs", ipvs::tcp_schedule,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "new IPVS connections, and the limits that refuse them", on_suspicion;
            IpvsSchedule = 16, call, ip_vs_schedule, ip_vs_schedule_exit, "ip_vs", ipvs::schedule,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the IPVS scheduler and the real server that it chose";
            IpvsLeave = 17, entry, ip_vs_leave, none, "ip_vs", ipvs::leave,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the real servers of a service when none is usable";
            IpvsNatXmit = 18, entry, ip_vs_nat_xmit, none, "ip_vs", ipvs::nat_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the tuple after DNAT by IPVS", on_suspicion;
            IpvsDirectXmit = 20, entry, ip_vs_dr_xmit, none, "ip_vs", ipvs::plain_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the real server, with direct routing", on_suspicion;
            IpvsTunnelXmit = 21, entry, ip_vs_tunnel_xmit, none, "ip_vs", ipvs::plain_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the real server, with IPVS tunnels", on_suspicion;
            IpvsReply = 19, entry, handle_response, none, "ip_vs", ipvs::reply,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "answers that IPVS translates back", on_suspicion;

            // conntrack and netfilter.
            CtConfirm = 30, call, __nf_conntrack_confirm, __nf_conntrack_confirm_exit, "nf_conntrack", conntrack::confirm,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, SK_BUFF_NFCT, NF_CONN_ORIGINAL, NF_CONN_REPLY],
                "the tuples after DNAT and SNAT";
            CtAlloc = 31, call, __nf_conntrack_alloc, __nf_conntrack_alloc_exit, "nf_conntrack", conntrack::alloc,
                [], "new connections without a conntrack entry", after_rule_drop;
            CtEarlyDrop = 34, call, early_drop, early_drop_exit, "nf_conntrack", conntrack::early_drop,
                [], "a full conntrack table without an entry to evict", after_rule_drop;
            CtIn = 35, call, nf_conntrack_in, nf_conntrack_in_exit, "nf_conntrack", conntrack::track,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, SK_BUFF_NFCT],
                "packets that conntrack finds INVALID", after_rule_drop;
            CtClash = 32, entry, nf_ct_resolve_clash, none, "nf_conntrack", conntrack::clash,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, SK_BUFF_NFCT, NF_CT_HASH_TUPLE, NF_CONN_ORIGINAL, NF_CONN_REPLY],
                "the conntrack entry that already uses the tuple";
            NftDoChain = 40, call, nft_do_chain, nft_do_chain_exit, "nf_tables", netfilter::chain,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, NFT_PKTINFO_SKB, NFT_CHAIN_NAME],
                "the nf_tables chain that dropped the packet", after_rule_drop;
            NatMasquerade = 33, call, nf_nat_masquerade_ipv4, nf_nat_masquerade_ipv4_exit, "nf_nat", nat::masquerade,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "a masquerade without a source address", after_rule_drop;
            IptDoTable = 41, call, ipt_do_table, ipt_do_table_exit, "ip_tables", xtables::table,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, XT_TABLE_NAME],
                "the iptables table that dropped the packet", after_rule_drop;
            RejectTg = 42, entry, reject_tg, none, "ipt_REJECT", xtables::reject,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the iptables rule that rejects";
            NftReject = 43, entry, nft_reject_ipv4_eval, none, "nft_reject_ipv4", netfilter::reject,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, NFT_PKTINFO_SKB], "the nf_tables rule that rejects";
            NftRejectInet = 44, entry, nft_reject_inet_eval, none, "nft_reject_inet", netfilter::reject,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, NFT_PKTINFO_SKB], "the nf_tables rule that rejects";
            // Which rule it was. Both return at once for a packet that is not in a traced nft_do_chain.
            NftImmediate = 45, entry, nft_immediate_eval, none, "nf_tables", netfilter::immediate,
                [NFT_PKTINFO_SKB, NFT_IMMEDIATE_DREG, NFT_EXPR_OPS_SIZE],
                "the nf_tables rule that dropped the packet", after_rule_drop;
            NftLookup = 46, call, nft_lookup_eval, nft_lookup_eval_exit, "nf_tables", netfilter::lookup,
                [NFT_PKTINFO_SKB, NFT_EXPR_OPS_SIZE],
                "the nf_tables rule that dropped the packet, by a verdict map", after_rule_drop;
            // DNAT by rules, once per new connection. v0 is for iptables before 1.8.
            XtDnat = 47, entry, xt_dnat_target_v2, none, "xt_nat", xtables::dnat,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "DNAT by iptables";
            XtDnatV0 = 48, entry, xt_dnat_target_v0, none, "xt_nat", xtables::dnat,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "DNAT by iptables";
            NftNat = 49, entry, nft_nat_eval, none, "nft_nat", netfilter::dnat,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, NFT_PKTINFO_SKB, NFT_PKTINFO_STATE, NF_HOOK_STATE_HOOK],
                "DNAT by nf_tables";

            // Runs only while ARP/ND for the next hop is unresolved.
            NeighbourSend = 72, call, __neigh_event_send, __neigh_event_send_exit, "", neigh::send,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "packets queued for ARP/ND";

            // The backend, if it is on this node, and its answers. Every listener calls tcp_conn_request for a SYN, whether
            // IPv4, IPv6 or MPTCP.
            TcpTimewait = 55, call, tcp_timewait_state_process, tcp_timewait_state_process_exit, "", tcp::timewait,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "SYNs that match a TIME_WAIT socket";
            TcpConnRequest = 54, call, tcp_conn_request, tcp_conn_request_exit, "", tcp::conn_request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "SYNs at the listener, and its queues";
            TcpSendReset = 51, entry, tcp_v4_send_reset, none, "", tcp::send_reset,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "RSTs that TCP sends";
            TcpSynRecvSock = 52, call, tcp_v4_syn_recv_sock, tcp_v4_syn_recv_sock_exit, "", tcp::syn_recv_sock,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ACKs that complete the handshake at the backend";
            IcmpSend = 53, entry, __icmp_send, none, "", drop::icmp_send,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ICMP errors that the node sends";

            // The answers that a client on the node itself receives.
            TcpReceiveReset = 58, tracepoint, tcp_receive_reset, none, "tcp", local::reset,
                [SOCK_NET, SOCK_FAMILY, SOCK_DPORT, SOCK_NUM, SOCK_STATE, TCP_SOCK_SND_UNA],
                "RSTs that clients on the node receive";
            TcpFinishConnect = 59, entry, tcp_finish_connect, none, "", local::finish,
                [SOCK_NET, SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "SYN-ACKs that clients on the node accept";

            // IPv6 twins, where IPv6 has a function of its own. Their records count as those of the IPv4 function
            // (`Hook::role`), so nothing else needs to know about them.
            IpvsRemoteRequest6 = 100, call, ip_vs_remote_request6, ip_vs_remote_request6_exit, "ip_vs", ipvs::request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the verdict of IPVS (before 5.16)", on_suspicion;
            IpvsLocalRequest6 = 101, call, ip_vs_local_request6, ip_vs_local_request6_exit, "ip_vs", ipvs::request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the verdict of IPVS for clients on the node (before 5.16)", on_suspicion;
            IpvsNatXmit6 = 102, entry, ip_vs_nat_xmit_v6, none, "ip_vs", ipvs::nat_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the tuple after DNAT by IPVS", on_suspicion;
            IpvsDirectXmit6 = 107, entry, ip_vs_dr_xmit_v6, none, "ip_vs", ipvs::plain_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the real server, with direct routing", on_suspicion;
            IpvsTunnelXmit6 = 108, entry, ip_vs_tunnel_xmit_v6, none, "ip_vs", ipvs::plain_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the real server, with IPVS tunnels", on_suspicion;
            TcpSendReset6 = 104, entry, tcp_v6_send_reset, none, "", tcp::send_reset,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "RSTs that TCP sends";
            TcpSynRecvSock6 = 105, call, tcp_v6_syn_recv_sock, tcp_v6_syn_recv_sock_exit, "", tcp::syn_recv_sock,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ACKs that complete the handshake at the backend";
            IcmpSend6 = 106, entry, icmp6_send, none, "", drop::icmp_send,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ICMP errors that the node sends";
            Ip6tDoTable = 110, call, ip6t_do_table, ip6t_do_table_exit, "ip6_tables", xtables::table,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, XT_TABLE_NAME],
                "the iptables table that dropped the packet", after_rule_drop;
            RejectTg6 = 111, entry, reject_tg6, none, "ip6t_REJECT", xtables::reject,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the iptables rule that rejects";
            NftRejectIpv6 = 112, entry, nft_reject_ipv6_eval, none, "nft_reject_ipv6", netfilter::reject,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, NFT_PKTINFO_SKB], "the nf_tables rule that rejects";

            // Attached only to prove the layout of ip_vs_conn, on kernels without BTF for modules.
            IpvsConnSeqShow = 90, entry, ip_vs_conn_seq_show, none, "ip_vs", proof::seq_show,
                [], "layout of ip_vs_conn";
        }
    };
}

/// How a hook is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HookKind {
    /// A raw tracepoint.
    Tracepoint,
    /// A kprobe at the function's entry.
    Entry,
    /// A kprobe at entry and a kretprobe.
    Call,
}

impl HookKind {
    /// The name that users see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Entry => "kprobe",
            Self::Call => "kprobe+kretprobe",
        }
    }
}

/// When a hook is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// All the time.
    Always,
    /// Where `skb:kfree_skb` has no drop reason (kernels before 5.17), which would show the same.
    WithoutDropReasons,
    /// At full depth: while something looks wrong, or all the time if the user chose so. A node at rest never pays for the
    /// hook.
    OnSuspicion,
    /// From the first packet that a rule may have dropped until none has been seen for a while. The retransmission, a
    /// second later, then shows the rule. A node without such drops never pays for the hook.
    AfterRuleDrop,
}

impl When {
    /// Whether the hook is attached while nothing looks wrong.
    #[must_use]
    pub const fn is_at_rest(self) -> bool {
        matches!(self, Self::Always | Self::WithoutDropReasons)
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct HookInfo {
    /// The hook.
    pub hook: Hook,
    /// The kernel function or tracepoint. The program at its entry has the same name.
    pub name: &'static str,
    /// Name of the program for the return; `"none"` without one.
    pub exit_program: &'static str,
    /// How it is attached.
    pub kind: HookKind,
    /// The module of the function (empty: the kernel image), or the category of the tracepoint.
    pub module: &'static str,
    /// The members that it cannot work without; if one is missing, the hook is not attached.
    pub needs: &'static [Field],
    /// Its purpose: what it shows by itself.
    pub purpose: &'static str,
    /// When it is attached.
    pub when: When,
}

macro_rules! kind {
    (tracepoint) => {
        HookKind::Tracepoint
    };
    (entry) => {
        HookKind::Entry
    };
    (call) => {
        HookKind::Call
    };
}

macro_rules! when {
    () => {
        When::Always
    };
    (without_drop_reasons) => {
        When::WithoutDropReasons
    };
    (on_suspicion) => {
        When::OnSuspicion
    };
    (after_rule_drop) => {
        When::AfterRuleDrop
    };
}

macro_rules! rows {
    ($($id:ident = $number:literal, $kind:ident, $name:ident, $exit:ident, $module:literal,
       $subsystem:ident::$body:ident, [$($need:ident),*], $purpose:literal $(, $when:ident)?;)*) => {
        /// The hooks by name, with the number that records carry.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u16)]
        pub enum Hook {
            $(
                #[doc = concat!("`", stringify!($name), "`: ", $purpose)]
                $id = $number,
            )*
        }

        impl Hook {
            /// The hook with this number, if this version of tracer knows it.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$id),)*
                    _ => None,
                }
            }

            /// The kernel function or tracepoint.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => stringify!($name),)*
                }
            }
        }

        /// Every hook, in the order of the table.
        pub const ALL: &[HookInfo] = &[$(
            HookInfo {
                hook: Hook::$id,
                name: stringify!($name),
                exit_program: stringify!($exit),
                kind: kind!($kind),
                module: $module,
                needs: &[$(field::$need),*],
                purpose: $purpose,
                when: when!($($when)?),
            },
        )*];
    };
}
for_each_hook!(rows);

/// One past the largest hook number: the size of a table indexed by hook.
pub const NUMBERS: u32 = 128;

const _: () = {
    let mut row = 0;
    while row < ALL.len() {
        let number = ALL[row].hook as u16;
        assert!((number as u32) < NUMBERS, "a hook number is not below NUMBERS");
        let mut old = 0;
        while old < Hook::RETIRED.len() {
            assert!(Hook::RETIRED[old].0 != number, "a hook has a retired number");
            old += 1;
        }
        row += 1;
    }
};

impl Hook {
    /// Numbers of removed hooks, with the kernel function. Older recordings may have them, so they must stay unused.
    pub const RETIRED: &'static [(u16, &'static str)] =
        &[(50, "tcp_v4_conn_request"), (103, "tcp_v6_conn_request")];

    /// Hooks that do the same work on different kernels: a node needs one of each group.
    pub const ALTERNATIVES: &'static [&'static [Self]] = &[
        &[Self::IpvsIn, Self::IpvsRemoteRequest],
        &[Self::IpvsIn, Self::IpvsLocalRequest],
        &[Self::IpvsIn, Self::IpvsRemoteRequest6],
        &[Self::IpvsIn, Self::IpvsLocalRequest6],
    ];

    /// The hook that does for IPv4 what this one does for IPv6; `None` if this is not an IPv6 twin.
    #[inline(always)]
    #[must_use]
    pub const fn ipv4_twin(self) -> Option<Self> {
        Some(match self {
            Self::IpvsRemoteRequest6 => Self::IpvsRemoteRequest,
            Self::IpvsLocalRequest6 => Self::IpvsLocalRequest,
            Self::IpvsNatXmit6 => Self::IpvsNatXmit,
            Self::IpvsDirectXmit6 => Self::IpvsDirectXmit,
            Self::IpvsTunnelXmit6 => Self::IpvsTunnelXmit,
            Self::TcpSendReset6 => Self::TcpSendReset,
            Self::TcpSynRecvSock6 => Self::TcpSynRecvSock,
            Self::IcmpSend6 => Self::IcmpSend,
            Self::Ip6tDoTable => Self::IptDoTable,
            Self::RejectTg6 => Self::RejectTg,
            Self::NftRejectIpv6 => Self::NftReject,
            _ => return None,
        })
    }

    /// The hook that this one counts as, whatever the packet's family: an IPv6 twin counts as its IPv4 twin.
    #[must_use]
    pub const fn role(self) -> Self {
        match self.ipv4_twin() {
            Some(twin) => twin,
            None => self,
        }
    }

    /// Whether the hook is attached while nothing looks wrong.
    #[must_use]
    pub fn is_at_rest(self) -> bool {
        ALL.iter().any(|info| info.hook == self && info.when.is_at_rest())
    }

    /// The hook with this role for IPv6 packets: the IPv6 twin, or this one if one function handles both families.
    #[must_use]
    pub fn for_ipv6(self) -> Self {
        ALL.iter()
            .find(|info| info.hook.ipv4_twin() == Some(self))
            .map_or(self, |info| info.hook)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_unique() {
        for (index, row) in ALL.iter().enumerate() {
            assert_eq!(Hook::from_number(row.hook as u16), Some(row.hook));
            assert!(
                ALL[..index].iter().all(|other| other.name != row.name),
                "{} twice",
                row.name
            );
        }
        assert_eq!(Hook::from_number(0), None);
    }

    #[test]
    fn a_twin_is_attached_like_its_ipv4_twin_and_reads_the_same() {
        for row in ALL {
            let Some(twin) = row.hook.ipv4_twin() else {
                assert_eq!(row.hook.role(), row.hook);
                continue;
            };
            assert_eq!((row.hook.role(), twin.for_ipv6()), (twin, row.hook));
            let other = ALL.iter().find(|other| other.hook == twin).expect("a row");
            // If each has a module of its own, the names of the modules differ only by the family.
            let module = row.module.replace("ip6", "ip").replace("ipv6", "ipv4");
            assert_eq!(
                (row.kind, module.as_str()),
                (other.kind, other.module),
                "{}",
                row.name
            );
            assert_eq!(
                (row.needs, row.purpose, row.when),
                (other.needs, other.purpose, other.when),
                "{}",
                row.name
            );
        }
        assert_eq!(Hook::IpvsReply.for_ipv6(), Hook::IpvsReply);
    }

    #[test]
    fn every_hook_has_a_purpose() {
        for row in ALL {
            assert!(!row.purpose.is_empty(), "{}", row.name);
        }
    }

    #[test]
    fn only_calls_have_a_program_for_the_return() {
        for row in ALL {
            assert_eq!(
                row.exit_program != "none",
                row.kind == HookKind::Call,
                "{}",
                row.name
            );
        }
    }
}
