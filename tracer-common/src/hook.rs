//! The hook table: every place in the kernel where tracer looks, and what each one is for.
//!
//! A row is `Id = number, kind, function, exit program, "module", body, [fields it cannot do without], "causes";`.
//! * `tracepoint`: a raw tracepoint; the module column is its category.
//! * `entry`: a kprobe.
//! * `call`: a kprobe and a kretprobe, joined by the stack pointer.
//!
//! A hook that is not wanted all the time says so behind the causes ([`When`]), as in `"causes", after_rule_drop;`.
//! A hook whose function runs for every packet of the node, healthy or not, should be one of those.
//!
//! Rows stand in the order in which a packet meets them, IPv6 twins apart. They are attached from the last to the
//! first: whatever is seen of a packet at one hook, all hooks behind it are there to see what follows.
//!
//! Function names and argument positions were read in the sources of 3.10 to 7.3 (arguments are noted where a
//! body takes them). Rows that do the same work on different kernels are grouped in [`Hook::ALTERNATIVES`]; the plan
//! attaches whichever exist. A number, once used, is never used for anything else: recordings carry it.

use crate::field::{self, Field};

/// Hands every row to `$callback!`.
#[macro_export]
macro_rules! for_each_hook {
    ($callback:ident) => {
        $callback! {
            // A client on the node itself: its SYN comes in by no device.
            TcpConnect = 56, entry, tcp_connect, none, "", local::connect,
                [SOCK_NET, SOCK_FAMILY, SOCK_DPORT, SOCK_NUM, TCP_SOCK_WRITE_SEQ],
                "every fate of a client on the node: begins its flows";
            TcpRetransmit = 57, tracepoint, tcp_retransmit_skb, none, "tcp", local::retransmit,
                [SOCK_NET, SOCK_FAMILY, SOCK_DPORT, SOCK_NUM, SOCK_STATE, TCP_SOCK_SND_UNA],
                "every fate of a client on the node: counts its SYNs";

            // The wire: each SYN as it comes in, each answer as it goes out, device by device.
            NetifReceive = 1, tracepoint, netif_receive_skb, none, "net", wire::received,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "every fate: counts SYNs and ACKs";
            DevStartXmit = 2, tracepoint, net_dev_start_xmit, none, "net", wire::transmitted,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "every fate: counts SYN-ACKs, sees a RST leave";
            KfreeSkb = 3, tracepoint, kfree_skb, none, "skb", drop::freed,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "dropped; unknown";

            // NAT at prerouting, once for each connection, and routing, where it fails.
            NatSetup = 73, call, nf_nat_setup_info, nf_nat_setup_info_exit, "nf_nat", nat::setup,
                [NF_CONN_ORIGINAL, NF_CONN_REPLY, NF_CONN_STATUS],
                "the tuple between DNAT and postrouting, where route.* and rules discard it";
            RouteMartian = 70, entry, ip_handle_martian_source, none, "", route::martian,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "route.rp-filter route.martian: the settings that refused it";
            RouteError = 71, entry, ip_error, none, "", route::error,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, SK_BUFF_DST, DST_ERROR, NET_DEVICE_IN_DEVICE, IN_DEVICE_FORWARDING],
                "route.unreachable route.forwarding-off";

            // IPVS, in the order in which a SYN meets it. ip_vs_in itself is inlined, so its callers are hooked.
            IpvsIn = 10, call, ip_vs_in_hook, ip_vs_in_hook_exit, "ip_vs", ipvs::request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.*: the verdict";
            IpvsRemoteRequest = 11, call, ip_vs_remote_request4, ip_vs_remote_request4_exit, "ip_vs", ipvs::request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.*: the verdict (kernels before 5.16)";
            IpvsLocalRequest = 12, call, ip_vs_local_request4, ip_vs_local_request4_exit, "ip_vs", ipvs::request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.*: the verdict (kernels before 5.16, local clients)";
            IpvsLookup = 13, call, ip_vs_conn_in_get_proto, ip_vs_conn_in_get_proto_exit, "ip_vs", ipvs::lookup,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER],
                "ipvs.reuse-dropped ipvs.nodest-expired ipvs.dest-unavailable ipvs.reuse-stale-backend";
            IpvsExpireNow = 14, entry, ip_vs_conn_expire_now, none, "ip_vs", ipvs::expire_now,
                [], "ipvs.reuse-dropped ipvs.nodest-expired";
            IpvsTcpSchedule = 15, call, tcp_conn_schedule, tcp_conn_schedule_exit, "ip_vs", ipvs::tcp_schedule,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.no-destination ipvs.defense-drop ipvs.conn-alloc-failed; tells a new entry from a reused one";
            IpvsSchedule = 16, call, ip_vs_schedule, ip_vs_schedule_exit, "ip_vs", ipvs::schedule,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER],
                "ipvs.affinity-stale ipvs.conn-alloc-failed; the scheduler and the backend that it chose";
            IpvsLeave = 17, entry, ip_vs_leave, none, "ip_vs", ipvs::leave,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.no-destination ipvs.dest-overloaded";
            IpvsNatXmit = 18, entry, ip_vs_nat_xmit, none, "ip_vs", ipvs::nat_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.reuse-stale-backend ipvs.affinity-stale ipvs.xmit-*; the tuple after DNAT";
            IpvsDirectXmit = 20, entry, ip_vs_dr_xmit, none, "ip_vs", ipvs::plain_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.reuse-stale-backend ipvs.affinity-stale; the real server, with direct routing";
            IpvsTunnelXmit = 21, entry, ip_vs_tunnel_xmit, none, "ip_vs", ipvs::plain_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.reuse-stale-backend ipvs.affinity-stale; the real server, with IPVS' tunnels";
            IpvsReply = 19, entry, handle_response, none, "ip_vs", ipvs::reply,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "the answer is translated back";

            // conntrack and netfilter.
            CtConfirm = 30, call, __nf_conntrack_confirm, __nf_conntrack_confirm_exit, "nf_conntrack", conntrack::confirm,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, SK_BUFF_NFCT, NF_CONN_ORIGINAL, NF_CONN_REPLY],
                "conntrack.insert-failed nat.port-exhausted; the tuples after DNAT and masquerade";
            CtAlloc = 31, call, __nf_conntrack_alloc, __nf_conntrack_alloc_exit, "nf_conntrack", conntrack::alloc,
                [], "conntrack.table-full: the new connection got no entry", after_rule_drop;
            CtEarlyDrop = 34, call, early_drop, early_drop_exit, "nf_conntrack", conntrack::early_drop,
                [], "conntrack.table-full: told from a lack of memory; runs only while the table is full", after_rule_drop;
            CtIn = 35, call, nf_conntrack_in, nf_conntrack_in_exit, "nf_conntrack", conntrack::track,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, SK_BUFF_NFCT],
                "conntrack.invalid: conntrack did not know what to make of the packet", after_rule_drop;
            CtClash = 32, entry, nf_ct_resolve_clash, none, "nf_conntrack", conntrack::clash,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, SK_BUFF_NFCT, NF_CT_HASH_TUPLE, NF_CONN_ORIGINAL, NF_CONN_REPLY],
                "conntrack.insert-failed nat.port-exhausted: which entry was in the way; runs only then";
            NftDoChain = 40, call, nft_do_chain, nft_do_chain_exit, "nf_tables", netfilter::chain,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, NFT_PKTINFO_SKB, NFT_CHAIN_NAME], "netfilter.rule-dropped",
                after_rule_drop;
            NatMasquerade = 33, call, nf_nat_masquerade_ipv4, nf_nat_masquerade_ipv4_exit, "nf_nat", nat::masquerade,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER],
                "nat.no-address: told from a rule's verdict, which nf_tables returns in its place", after_rule_drop;
            IptDoTable = 41, call, ipt_do_table, ipt_do_table_exit, "ip_tables", xtables::table,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, XT_TABLE_NAME], "netfilter.rule-dropped", after_rule_drop;
            RejectTg = 42, entry, reject_tg, none, "ipt_REJECT", xtables::reject,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "netfilter.rule-rejected: the rule of iptables";
            NftReject = 43, entry, nft_reject_ipv4_eval, none, "nft_reject_ipv4", netfilter::reject,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, NFT_PKTINFO_SKB],
                "netfilter.rule-rejected: the rule of nf_tables";
            NftRejectInet = 44, entry, nft_reject_inet_eval, none, "nft_reject_inet", netfilter::reject,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, NFT_PKTINFO_SKB],
                "netfilter.rule-rejected: the rule of nf_tables";
            // Which rule it was. Both leave at once for a packet that is not inside an nft_do_chain that is followed.
            NftImmediate = 45, entry, nft_immediate_eval, none, "nf_tables", netfilter::immediate,
                [NFT_PKTINFO_SKB, NFT_IMMEDIATE_DREG, NFT_EXPR_OPS_SIZE], "netfilter.rule-dropped: the rule",
                after_rule_drop;
            NftLookup = 46, call, nft_lookup_eval, nft_lookup_eval_exit, "nf_tables", netfilter::lookup,
                [NFT_PKTINFO_SKB, NFT_EXPR_OPS_SIZE],
                "netfilter.rule-dropped policy.local-no-endpoint: the rule, where a verdict map decides", after_rule_drop;
            // Who translates, once for each new connection. v0 is that of iptables before 1.8.
            XtDnat = 47, entry, xt_dnat_target_v2, none, "xt_nat", xtables::dnat,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "dataplane iptables";
            XtDnatV0 = 48, entry, xt_dnat_target_v0, none, "xt_nat", xtables::dnat,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "dataplane iptables";
            NftNat = 49, entry, nft_nat_eval, none, "nft_nat", netfilter::dnat,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, NFT_PKTINFO_SKB, NFT_PKTINFO_STATE, NF_HOOK_STATE_HOOK],
                "dataplane nftables";

            // Runs only while the hardware address of the next hop is not known.
            NeighbourSend = 72, call, __neigh_event_send, __neigh_event_send_exit, "", neigh::send,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "neigh.unresolved";

            // The backend, when it is on this node, and what goes back. tcp_conn_request is what every listener calls for
            // a SYN: those of IPv4, of IPv6 and of MPTCP alike.
            TcpTimewait = 55, call, tcp_timewait_state_process, tcp_timewait_state_process_exit, "", tcp::timewait,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "tcp.timewait-refused tcp.timestamp-rejected";
            TcpConnRequest = 54, call, tcp_conn_request, tcp_conn_request_exit, "", tcp::conn_request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "tcp.accept-queue-full tcp.syn-queue-full backend.slow";
            TcpSendReset = 51, entry, tcp_v4_send_reset, none, "", tcp::send_reset,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "tcp.no-listener return.not-translated";
            TcpSynRecvSock = 52, call, tcp_v4_syn_recv_sock, tcp_v4_syn_recv_sock_exit, "", tcp::syn_recv_sock,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "tcp.final-ack-dropped; the handshake ended in the backend";
            IcmpSend = 53, entry, __icmp_send, none, "", drop::icmp_send,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.no-destination: what the client was told";

            // What a client on the node itself gets.
            TcpReceiveReset = 58, tracepoint, tcp_receive_reset, none, "tcp", local::reset,
                [SOCK_NET, SOCK_FAMILY, SOCK_DPORT, SOCK_NUM, SOCK_STATE, TCP_SOCK_SND_UNA],
                "refused, if the client is on the node";
            TcpFinishConnect = 59, entry, tcp_finish_connect, none, "", local::finish,
                [SOCK_NET, SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "established, if the client is on the node";

            // The same for IPv6, where the function that does the work is another one. Records of these count as the
            // IPv4 function's (`Hook::role`), so that nothing else has to know them.
            IpvsRemoteRequest6 = 100, call, ip_vs_remote_request6, ip_vs_remote_request6_exit, "ip_vs", ipvs::request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.*: the verdict (kernels before 5.16)";
            IpvsLocalRequest6 = 101, call, ip_vs_local_request6, ip_vs_local_request6_exit, "ip_vs", ipvs::request,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.*: the verdict (kernels before 5.16, local clients)";
            IpvsNatXmit6 = 102, entry, ip_vs_nat_xmit_v6, none, "ip_vs", ipvs::nat_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.reuse-stale-backend ipvs.affinity-stale ipvs.xmit-*; the tuple after DNAT";
            IpvsDirectXmit6 = 107, entry, ip_vs_dr_xmit_v6, none, "ip_vs", ipvs::plain_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.reuse-stale-backend ipvs.affinity-stale; the real server, with direct routing";
            IpvsTunnelXmit6 = 108, entry, ip_vs_tunnel_xmit_v6, none, "ip_vs", ipvs::plain_xmit,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.reuse-stale-backend ipvs.affinity-stale; the real server, with IPVS' tunnels";
            TcpSendReset6 = 104, entry, tcp_v6_send_reset, none, "", tcp::send_reset,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "tcp.no-listener return.not-translated";
            TcpSynRecvSock6 = 105, call, tcp_v6_syn_recv_sock, tcp_v6_syn_recv_sock_exit, "", tcp::syn_recv_sock,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "tcp.final-ack-dropped; the handshake ended in the backend";
            IcmpSend6 = 106, entry, icmp6_send, none, "", drop::icmp_send,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "ipvs.no-destination: what the client was told";
            Ip6tDoTable = 110, call, ip6t_do_table, ip6t_do_table_exit, "ip6_tables", xtables::table,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, XT_TABLE_NAME], "netfilter.rule-dropped", after_rule_drop;
            RejectTg6 = 111, entry, reject_tg6, none, "ip6t_REJECT", xtables::reject,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER], "netfilter.rule-rejected: the rule of iptables";
            NftRejectIpv6 = 112, entry, nft_reject_ipv6_eval, none, "nft_reject_ipv6", netfilter::reject,
                [SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER, NFT_PKTINFO_SKB],
                "netfilter.rule-rejected: the rule of nf_tables";

            // Attached only while the layout of ip_vs_conn is proven, on kernels without BTF for modules.
            IpvsConnSeqShow = 90, entry, ip_vs_conn_seq_show, none, "ip_vs", ipvs::seq_show,
                [], "proves where ip_vs_conn keeps its members";
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

/// When a hook is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// All the time.
    Always,
    /// Where `skb:kfree_skb` gives no drop reason (kernels before 5.17) that would tell the same.
    WithoutDropReasons,
    /// From the first packet that a rule may have discarded, until no such packet was seen for a while. The packet
    /// is sent again a second later, and then shows the rule: a node without such rules never pays for the hook.
    AfterRuleDrop,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct HookInfo {
    /// Which hook.
    pub hook: Hook,
    /// The kernel function or tracepoint. The program that is attached to its entry has the same name.
    pub name: &'static str,
    /// Name of the program for the return; `"none"` without one.
    pub exit_program: &'static str,
    /// How it is attached.
    pub kind: HookKind,
    /// The module that holds the function (empty: the kernel image), or the tracepoint's category.
    pub module: &'static str,
    /// Members without which the hook is worthless and stays off.
    pub needs: &'static [Field],
    /// The causes that it proves, or what else it is for.
    pub serves: &'static str,
    /// When it is wanted.
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
    (after_rule_drop) => {
        When::AfterRuleDrop
    };
}

macro_rules! rows {
    ($($id:ident = $number:literal, $kind:ident, $name:ident, $exit:ident, $module:literal,
       $subsystem:ident::$body:ident, [$($need:ident),*], $serves:literal $(, $when:ident)?;)*) => {
        /// The hooks by name; the number is what records carry.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u16)]
        pub enum Hook {
            $(
                #[doc = concat!("`", stringify!($name), "`: ", $serves)]
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
                serves: $serves,
                when: when!($($when)?),
            },
        )*];
    };
}
for_each_hook!(rows);

/// One past the largest hook number: the size of a table indexed by hook.
pub const NUMBERS: u32 = 128;

impl Hook {
    /// Hooks that do the same work on different kernels; a node needs one of each group.
    pub const ALTERNATIVES: &'static [&'static [Self]] = &[
        &[Self::IpvsIn, Self::IpvsRemoteRequest],
        &[Self::IpvsIn, Self::IpvsLocalRequest],
        &[Self::IpvsIn, Self::IpvsRemoteRequest6],
        &[Self::IpvsIn, Self::IpvsLocalRequest6],
    ];

    /// The hook that does for IPv4 what this one does for IPv6; `None` if this one is no IPv6 twin.
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

    /// What the hook stands for, whatever the packet's family: an IPv6 twin's is that of its IPv4 twin.
    #[must_use]
    pub const fn role(self) -> Self {
        match self.ipv4_twin() {
            Some(twin) => twin,
            None => self,
        }
    }

    /// The hook that plays this role for IPv6 packets: its IPv6 twin, or itself where one function serves both.
    #[must_use]
    pub fn for_ipv6(self) -> Self {
        ALL.iter()
            .find(|info| info.hook.ipv4_twin() == Some(self))
            .map_or(self, |info| info.hook)
    }

    /// Is this one of the functions that netfilter calls to let IPVS decide on a request?
    #[must_use]
    pub const fn is_ipvs_request(self) -> bool {
        matches!(
            self,
            Self::IpvsIn | Self::IpvsRemoteRequest | Self::IpvsLocalRequest
        )
    }

    /// Is this one of the functions with which IPVS sends a request to a real server?
    #[must_use]
    pub const fn is_ipvs_xmit(self) -> bool {
        matches!(self, Self::IpvsNatXmit) || self.is_ipvs_plain_xmit()
    }

    /// Does it send the request as it came, so that the real server answers the client itself?
    #[must_use]
    pub const fn is_ipvs_plain_xmit(self) -> bool {
        matches!(self, Self::IpvsDirectXmit | Self::IpvsTunnelXmit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_fit_the_table() {
        for (index, row) in ALL.iter().enumerate() {
            assert!((row.hook as u32) < NUMBERS, "{}", row.name);
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
            // Where each has a module of its own, the two modules' names differ by the family alone.
            let module = row.module.replace("ip6", "ip").replace("ipv6", "ipv4");
            assert_eq!(
                (row.kind, module.as_str()),
                (other.kind, other.module),
                "{}",
                row.name
            );
            assert_eq!(
                (row.needs, row.serves),
                (other.needs, other.serves),
                "{}",
                row.name
            );
        }
        assert_eq!(Hook::IpvsReply.for_ipv6(), Hook::IpvsReply);
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
