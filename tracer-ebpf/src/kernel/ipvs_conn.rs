//! The members of an IPVS connection entry (`struct ip_vs_conn`).

use tracer_common::{
    record::{IpvsConn, ipvs_conn},
    tuple::Addr,
    uapi::{AF_INET, AF_INET6},
};

use super::{
    conntrack,
    fields::{self, Offset, pointer, read},
};

/// `IP_VS_DEST_F_AVAILABLE` in `ip_vs_dest.flags`, or its bit in `cflags` (6.1.187, 6.12.107, 7.2 and later).
const DEST_AVAILABLE: u32 = 1;

/// Reads the members of a `struct ip_vs_conn` that a record holds, and those of the conntrack entry of `skb` (0: none).
#[inline(always)]
pub(super) fn read_conn(conn: u64, skb: u64, out: &mut IpvsConn) {
    out.conn = conn;
    read_real_server(conn, out);
    if let Some(state) = read(conn, &fields::IP_VS_CONN_STATE) {
        out.state = state;
        out.have |= ipvs_conn::STATE;
    }
    if let Some(flags) = read(conn, &fields::IP_VS_CONN_FLAGS) {
        out.flags = flags;
        out.have |= ipvs_conn::FLAGS;
    }
    if let Some(control) = read::<u64>(conn, &fields::IP_VS_CONN_CONTROL) {
        out.have |= ipvs_conn::CONTROL | if control == 0 { 0 } else { ipvs_conn::CONTROLLED };
    }
    read_dest(conn, out);
    if let Some(ipvs) = pointer(conn, &fields::IP_VS_CONN_IPVS) {
        if let Some(mode) = read(ipvs, &fields::NETNS_IPVS_CONN_REUSE_MODE) {
            out.conn_reuse_mode = mode;
            out.have |= ipvs_conn::REUSE_MODE;
        }
        if let Some(expire) = read(ipvs, &fields::NETNS_IPVS_EXPIRE_NODEST_CONN) {
            out.expire_nodest_conn = expire;
            out.have |= ipvs_conn::EXPIRE_NODEST;
        }
    }
    if let Some(ct) = conntrack::of(skb) {
        if let Some(status) = read(ct, &fields::NF_CONN_STATUS) {
            out.ct_status = status;
            out.have |= ipvs_conn::CT_STATUS;
        }
        if let Some(state) = read::<u8>(ct, &fields::NF_CONN_TCP_STATE) {
            out.ct_tcp_state = u32::from(state);
            out.have |= ipvs_conn::CT_TCP_STATE;
        }
    }
}

/// Address and port of the real server. Its family may differ from the client's (`daf`, since 3.18): an IPVS tunnel can lead
/// to a real server of the other family.
#[inline(always)]
pub(super) fn real_server(conn: u64) -> Option<(Addr, u16)> {
    let family = read::<u8>(conn, &fields::IP_VS_CONN_DAF).or_else(|| read(conn, &fields::IP_VS_CONN_AF));
    let words = read::<[u32; 4]>(conn, &fields::IP_VS_CONN_DADDR)?;
    let port = read::<[u8; 2]>(conn, &fields::IP_VS_CONN_DPORT)?;
    let address = match family {
        Some(AF_INET) => Addr::v4_word(words[0]),
        Some(AF_INET6) => Addr(words),
        _ => return None,
    };
    Some((address, u16::from_be_bytes(port)))
}

#[inline(always)]
fn read_real_server(conn: u64, out: &mut IpvsConn) {
    if let Some((daddr, dport)) = real_server(conn) {
        (out.daddr, out.dport) = (daddr, dport);
        out.have |= ipvs_conn::BACKEND;
    }
}

#[inline(always)]
fn read_dest(conn: u64, out: &mut IpvsConn) {
    let Some(dest) = read::<u64>(conn, &fields::IP_VS_CONN_DEST) else {
        return;
    };
    if dest == 0 {
        out.have |= ipvs_conn::NO_DEST;
        return;
    }
    if let Some(weight) = read(dest, &fields::IP_VS_DEST_WEIGHT) {
        out.weight = weight;
        out.have |= ipvs_conn::WEIGHT;
    }
    // Kernels that have cflags keep the bit there.
    let flags: Option<u32> =
        read(dest, &fields::IP_VS_DEST_CFLAGS).or_else(|| read(dest, &fields::IP_VS_DEST_FLAGS));
    if let Some(flags) = flags {
        out.available = flags & DEST_AVAILABLE;
        out.have |= ipvs_conn::AVAILABLE;
    }
}

/// An address of the client's family in a connection entry.
#[inline(always)]
pub(super) fn address_in(conn: u64, field: &impl Offset) -> Option<Addr> {
    let words: [u32; 4] = read(conn, field)?;
    match read::<u8>(conn, &fields::IP_VS_CONN_AF)? {
        AF_INET => Some(Addr::v4_word(words[0])),
        AF_INET6 => Some(Addr(words)),
        _ => None,
    }
}
