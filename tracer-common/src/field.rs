//! The members of kernel structs that the kernel half reads.
//!
//! Rust emits no CO-RE relocations, so an object with fixed offsets would fit one kernel build only. Instead the loader
//! looks up the offset of each row in the BTF of the running kernel (or in a layout that was proven on it). The offset of a
//! member in the kernel image is a constant of the object. A module may be reloaded, as another build, while the object is
//! loaded, so the offsets of members in modules are variables of the object: one array, in table order ([`Field::index`]).

/// The value of an unknown offset: the kernel half then reads nothing.
pub const MISSING: u32 = u32::MAX;

/// Offsets of this value or more count as unknown. No struct is that large, and an offset that is being written byte by
/// byte over a [`MISSING`] one does not fall below this before its last byte.
pub const LIMIT: u32 = 1 << 16;

/// One member of a kernel struct.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Name of the constant or variable in the kernel half.
    pub constant: &'static str,
    /// `struct.member.member`, as BTF names them.
    pub path: &'static str,
    /// The module whose BTF has the struct; empty for the kernel image.
    pub module: &'static str,
    /// Number of bytes that the kernel half reads. A smaller member is rejected.
    pub size: u32,
    /// Index in the table.
    pub index: usize,
}

/// Passes every row to `$callback!` as `IDENT, "path", "module", size;`.
#[macro_export]
macro_rules! for_each_field {
    ($callback:ident) => {
        $callback! {
            SK_BUFF_HEAD, "sk_buff.head", "", 8;
            SK_BUFF_NETWORK_HEADER, "sk_buff.network_header", "", 2;
            SK_BUFF_TRANSPORT_HEADER, "sk_buff.transport_header", "", 2;
            SK_BUFF_TAIL, "sk_buff.tail", "", 4;
            SK_BUFF_LEN, "sk_buff.len", "", 4;
            SK_BUFF_DEV, "sk_buff.dev", "", 8;
            SK_BUFF_NFCT, "sk_buff._nfct", "", 8;
            SK_BUFF_DST, "sk_buff._skb_refdst", "", 8;
            SK_BUFF_QUEUE, "sk_buff.queue_mapping", "", 2;
            RTABLE_GW_FAMILY, "rtable.rt_gw_family", "", 1;
            RTABLE_GW4, "rtable.rt_gw4", "", 4;
            NET_DEVICE_TX, "net_device._tx", "", 8;
            NETDEV_QUEUE_QDISC, "netdev_queue.qdisc", "", 8;
            QDISC_OPS, "Qdisc.ops", "", 8;
            QDISC_OPS_ID, "Qdisc_ops.id", "", 16;
            NET_DEVICE_IFINDEX, "net_device.ifindex", "", 4;
            NET_DEVICE_NAME, "net_device.name", "", 16;
            NET_DEVICE_NET, "net_device.nd_net.net", "", 8;
            NET_INUM, "net.ns.inum", "", 4;
            NET_COOKIE, "net.net_cookie", "", 8;
            NET_HASH_MIX, "net.hash_mix", "", 4;
            NET_DEVICE_IN_DEVICE, "net_device.ip_ptr", "", 8;
            // IPV4_DEVCONF_FORWARDING, _RP_FILTER and _ACCEPT_LOCAL count from 1 (uapi/linux/ip.h).
            IN_DEVICE_FORWARDING, "in_device.cnf.data[0]", "", 4;
            IN_DEVICE_RP_FILTER, "in_device.cnf.data[7]", "", 4;
            IN_DEVICE_ACCEPT_LOCAL, "in_device.cnf.data[22]", "", 4;
            NET_DEVCONF_ALL, "net.ipv4.devconf_all", "", 8;
            DEVCONF_FORWARDING, "ipv4_devconf.data[0]", "", 4;
            DEVCONF_RP_FILTER, "ipv4_devconf.data[7]", "", 4;
            DEVCONF_ACCEPT_LOCAL, "ipv4_devconf.data[22]", "", 4;
            DST_DEV, "dst_entry.dev", "", 8;
            DST_ERROR, "dst_entry.error", "", 2;
            RTABLE_TYPE, "rtable.rt_type", "", 2;
            RT6_INFO_FLAGS, "rt6_info.rt6i_flags", "", 4;
            RT6_INFO_GATEWAY, "rt6_info.rt6i_gateway", "", 16;
            NEIGHBOUR_STATE, "neighbour.nud_state", "", 1;
            NEIGHBOUR_DEV, "neighbour.dev", "", 8;
            NEIGHBOUR_TABLE, "neighbour.tbl", "", 8;
            // A flexible array: as long as an address of the family.
            NEIGHBOUR_ADDRESS, "neighbour.primary_key[0]", "", 1;
            NEIGH_TABLE_FAMILY, "neigh_table.family", "", 4;
            SOCK_NET, "sock.__sk_common.skc_net.net", "", 8;
            SOCK_ACK_BACKLOG, "sock.sk_ack_backlog", "", 4;
            SOCK_MAX_ACK_BACKLOG, "sock.sk_max_ack_backlog", "", 4;
            SOCK_DROPS, "sock.sk_drops", "", 4;
            SOCK_SYN_QUEUE, "inet_connection_sock.icsk_accept_queue.qlen", "", 4;
            SOCK_DEFER_ACCEPT, "inet_connection_sock.icsk_accept_queue.rskq_defer_accept", "", 1;
            SOCK_FAMILY, "sock.__sk_common.skc_family", "", 2;
            SOCK_STATE, "sock.__sk_common.skc_state", "", 1;
            SOCK_DADDR, "sock.__sk_common.skc_daddr", "", 4;
            SOCK_RCV_SADDR, "sock.__sk_common.skc_rcv_saddr", "", 4;
            SOCK_V6_DADDR, "sock.__sk_common.skc_v6_daddr", "", 16;
            SOCK_V6_RCV_SADDR, "sock.__sk_common.skc_v6_rcv_saddr", "", 16;
            SOCK_DPORT, "sock.__sk_common.skc_dport", "", 2;
            SOCK_NUM, "sock.__sk_common.skc_num", "", 2;
            TCP_SOCK_WRITE_SEQ, "tcp_sock.write_seq", "", 4;
            TCP_SOCK_SND_UNA, "tcp_sock.snd_una", "", 4;
            TIMEWAIT_RCV_NXT, "tcp_timewait_sock.tw_sk.__tw_common.skc_tw_rcv_nxt", "", 4;
            TIMEWAIT_TS_RECENT, "tcp_timewait_sock.tw_ts_recent", "", 4;
            TIMEWAIT_TS_RECENT_STAMP, "tcp_timewait_sock.tw_ts_recent_stamp", "", 4;
            TIMEWAIT_SUBSTATE, "tcp_timewait_sock.tw_sk.tw_substate", "", 1;
            NET_MAX_SYN_BACKLOG, "net.ipv4.sysctl_max_syn_backlog", "", 4;
            NET_SYNCOOKIES, "net.ipv4.sysctl_tcp_syncookies", "", 1;
            SOCK_MARK, "sock.sk_mark", "", 4;
            NET_FWMARK_ACCEPT, "net.ipv4.sysctl_tcp_fwmark_accept", "", 1;
            NF_CONN_ORIGINAL, "nf_conn.tuplehash[0].tuple", "", 40;
            NF_CONN_REPLY, "nf_conn.tuplehash[1].tuple", "", 40;
            NF_CT_HASH_TUPLE, "nf_conntrack_tuple_hash.tuple", "", 40;
            NF_CONN_STATUS, "nf_conn.status", "", 4;
            NF_CONN_NET, "nf_conn.ct_net.net", "", 8;
            NF_CONN_TCP_STATE, "nf_conn.proto.tcp.state", "", 1;
            NF_HOOK_STATE_HOOK, "nf_hook_state.hook", "", 1;
            NF_HOOK_STATE_PF, "nf_hook_state.pf", "", 1;
            NF_HOOK_STATE_NET, "nf_hook_state.net", "", 8;
            NF_HOOK_STATE_IN, "nf_hook_state.in", "", 8;
            NF_HOOK_STATE_OUT, "nf_hook_state.out", "", 8;
            NET_HOOKS_IPV4, "net.nf.hooks_ipv4", "", 8;
            NET_HOOKS_IPV6, "net.nf.hooks_ipv6", "", 8;
            NET_IPTABLE_FILTER, "net.ipv4.iptable_filter", "", 8;
            NET_IP6TABLE_FILTER, "net.ipv6.ip6table_filter", "", 8;
            SK_BUFF_MARK, "sk_buff.mark", "", 4;
            IP_VS_CONN_DADDR, "ip_vs_conn.daddr", "ip_vs", 16;
            IP_VS_CONN_DPORT, "ip_vs_conn.dport", "ip_vs", 2;
            IP_VS_CONN_AF, "ip_vs_conn.af", "ip_vs", 1;
            IP_VS_CONN_DAF, "ip_vs_conn.daf", "ip_vs", 1;
            IP_VS_CONN_CADDR, "ip_vs_conn.caddr", "ip_vs", 16;
            IP_VS_CONN_CPORT, "ip_vs_conn.cport", "ip_vs", 2;
            IP_VS_CONN_VADDR, "ip_vs_conn.vaddr", "ip_vs", 16;
            IP_VS_CONN_VPORT, "ip_vs_conn.vport", "ip_vs", 2;
            IP_VS_CONN_STATE, "ip_vs_conn.state", "ip_vs", 2;
            IP_VS_CONN_FLAGS, "ip_vs_conn.flags", "ip_vs", 4;
            IP_VS_CONN_DEST, "ip_vs_conn.dest", "ip_vs", 8;
            IP_VS_CONN_CONTROL, "ip_vs_conn.control", "ip_vs", 8;
            IP_VS_CONN_IPVS, "ip_vs_conn.ipvs", "ip_vs", 8;
            IP_VS_DEST_LIST, "ip_vs_dest.n_list", "ip_vs", 16;
            IP_VS_DEST_AF, "ip_vs_dest.af", "ip_vs", 2;
            IP_VS_DEST_PORT, "ip_vs_dest.port", "ip_vs", 2;
            IP_VS_DEST_ADDR, "ip_vs_dest.addr", "ip_vs", 16;
            IP_VS_DEST_ACTIVECONNS, "ip_vs_dest.activeconns", "ip_vs", 4;
            IP_VS_DEST_INACTCONNS, "ip_vs_dest.inactconns", "ip_vs", 4;
            IP_VS_DEST_TOTALCONNS, "ip_vs_dest.totalconns", "ip_vs", 4;
            IP_VS_DEST_U_THRESHOLD, "ip_vs_dest.u_threshold", "ip_vs", 4;
            IP_VS_DEST_FLAGS, "ip_vs_dest.flags", "ip_vs", 4;
            IP_VS_DEST_CFLAGS, "ip_vs_dest.cflags", "ip_vs", 4;
            IP_VS_DEST_WEIGHT, "ip_vs_dest.weight", "ip_vs", 4;
            IP_VS_SERVICE_NUM_DESTS, "ip_vs_service.num_dests", "ip_vs", 4;
            IP_VS_SERVICE_DESTINATIONS, "ip_vs_service.destinations", "ip_vs", 16;
            IP_VS_SERVICE_SCHEDULER, "ip_vs_service.scheduler", "ip_vs", 8;
            IP_VS_SCHEDULER_NAME, "ip_vs_scheduler.name", "ip_vs", 8;
            NETNS_IPVS_CONN_REUSE_MODE, "netns_ipvs.sysctl_conn_reuse_mode", "ip_vs", 4;
            NETNS_IPVS_EXPIRE_NODEST_CONN, "netns_ipvs.sysctl_expire_nodest_conn", "ip_vs", 4;
            NETNS_IPVS_DROP_RATE, "netns_ipvs.drop_rate", "ip_vs", 4;
            NETNS_IPVS_CONN_COUNT, "netns_ipvs.conn_count", "ip_vs", 4;
            NETNS_IPVS_CONN_MAX, "netns_ipvs.sysctl_conn_max", "ip_vs", 4;
            NFT_PKTINFO_SKB, "nft_pktinfo.skb", "nf_tables", 8;
            NFT_PKTINFO_STATE, "nft_pktinfo.state", "nf_tables", 8;
            NFT_CHAIN_NAME, "nft_chain.name", "nf_tables", 8;
            NFT_CHAIN_TABLE, "nft_chain.table", "nf_tables", 8;
            NFT_TABLE_NAME, "nft_table.name", "nf_tables", 8;
            NFT_EXPR_OPS_SIZE, "nft_expr_ops.size", "nf_tables", 4;
            NFT_IMMEDIATE_DREG, "nft_immediate_expr.dreg", "nf_tables", 1;
            NFT_RULE_DP_DATA, "nft_rule_dp.data", "nf_tables", 0;
            XT_TABLE_NAME, "xt_table.name", "x_tables", 32;
            XT_TABLE_PRIVATE, "xt_table.private", "x_tables", 8;
            XT_TABLE_INFO_SIZE, "xt_table_info.size", "x_tables", 4;
            XT_TABLE_INFO_ENTRIES, "xt_table_info.entries", "x_tables", 0;
            XT_ACTION_TARGINFO, "xt_action_param.targinfo", "x_tables", 8;
            XT_ACTION_STATE, "xt_action_param.state", "x_tables", 8;
        }
    };
}

macro_rules! rows {
    ($($constant:ident, $path:literal, $module:literal, $size:literal;)*) => {
        /// Numbers the rows.
        #[allow(non_camel_case_types, reason = "they have the names of the constants")]
        enum Index { $($constant),* }

        $(
            #[doc = concat!("`", $path, "`")]
            pub const $constant: Field = Field {
                constant: stringify!($constant),
                path: $path,
                module: $module,
                size: $size,
                index: Index::$constant as usize,
            };
        )*
        /// Every field of the table.
        pub const ALL: &[Field] = &[$($constant),*];
    };
}
for_each_field!(rows);

/// Members that only some kernels have. The others use another member, or need none.
pub const OPTIONAL: &[Field] = &[
    IP_VS_DEST_CFLAGS,
    IP_VS_DEST_INACTCONNS,
    IP_VS_DEST_TOTALCONNS,
    NETNS_IPVS_CONN_MAX,
    NET_COOKIE,
    NET_HASH_MIX,
    NET_IPTABLE_FILTER,
    NET_IP6TABLE_FILTER,
    NFT_RULE_DP_DATA,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_have_the_same_path() {
        for (index, field) in ALL.iter().enumerate() {
            assert!(
                ALL[..index].iter().all(|other| other.path != field.path),
                "{} twice",
                field.path
            );
        }
    }

    #[test]
    fn each_row_has_its_index() {
        for (index, field) in ALL.iter().enumerate() {
            assert_eq!(field.index, index, "{}", field.path);
        }
    }
}
