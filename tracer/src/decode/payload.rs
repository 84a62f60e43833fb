//! What follows the front of a record, by its kind.

use bytes::Buf;
use tracer_common::record::{
    Chain, Clash, Conntrack, Drop, Egress, Icmp, IpvsConn, IpvsDest, IpvsDests, IpvsLimits, IpvsService,
    Kind, Listener, Neighbour, NftRule, PacketState, Reject, Route, Skipped, Socket, Stack, Table, TimeWait,
    TooBig, Vip,
};

use crate::decode::{
    bytes::{DecodeError, addr, array, tuple},
    event::What,
};

/// Decodes the payload; `None` for a kind that tells of no packet.
pub(super) fn what(kind: Kind, bytes: &mut &[u8]) -> Result<Option<What>, DecodeError> {
    match kind {
        Kind::Packet => Ok(Some(What::Packet)),
        _ => ipvs(kind, bytes),
    }
}

/// IPVS.
fn ipvs(kind: Kind, bytes: &mut &[u8]) -> Result<Option<What>, DecodeError> {
    Ok(Some(match kind {
        Kind::IpvsConn => What::IpvsConn(ipvs_conn(bytes)?),
        Kind::IpvsService => What::IpvsService(IpvsService {
            service: bytes.try_get_u64_le()?,
            num_dests: bytes.try_get_u32_le()?,
            reserved: bytes.try_get_u32_le()?,
            scheduler: array(bytes)?,
        }),
        Kind::IpvsDests => What::IpvsDests(Box::new(ipvs_dests(bytes)?)),
        Kind::IpvsLimits => What::IpvsLimits(IpvsLimits {
            have: bytes.try_get_u32_le()?,
            drop_rate: bytes.try_get_i32_le()?,
            conn_count: bytes.try_get_i32_le()?,
            conn_max: bytes.try_get_i32_le()?,
        }),
        Kind::Vip => What::Vip(Vip {
            conn: bytes.try_get_u64_le()?,
            addr: addr(bytes)?,
            port: bytes.try_get_u32_le()?,
            reserved: bytes.try_get_u32_le()?,
        }),
        _ => return rules(kind, bytes),
    }))
}

/// Rules of netfilter.
fn rules(kind: Kind, bytes: &mut &[u8]) -> Result<Option<What>, DecodeError> {
    Ok(Some(match kind {
        Kind::Chain => What::Chain(Chain {
            table: array(bytes)?,
            chain: array(bytes)?,
            nf_hook: bytes.try_get_u32_le()?,
            family: bytes.try_get_u32_le()?,
            seen: bytes.try_get_u32_le()?,
            code: bytes.try_get_i32_le()?,
            rule: nft_rule(bytes)?,
        }),
        Kind::Table => What::Table(Table {
            name: array(bytes)?,
            input: array(bytes)?,
            output: array(bytes)?,
            nf_hook: bytes.try_get_u32_le()?,
            have: bytes.try_get_u32_le()?,
            mark: bytes.try_get_u32_le()?,
            ctinfo: bytes.try_get_u32_le()?,
        }),
        Kind::Reject => What::Reject(Reject {
            table: array(bytes)?,
            target: bytes.try_get_u32_le()?,
            nf_hook: bytes.try_get_u32_le()?,
            rule: nft_rule(bytes)?,
        }),
        _ => return tcp(kind, bytes),
    }))
}

/// Sockets.
fn tcp(kind: Kind, bytes: &mut &[u8]) -> Result<Option<What>, DecodeError> {
    Ok(Some(match kind {
        Kind::Socket => What::Socket(Socket {
            sock: bytes.try_get_u64_le()?,
            ack_backlog: bytes.try_get_u32_le()?,
            max_ack_backlog: bytes.try_get_u32_le()?,
        }),
        Kind::Listener => What::Listener(Listener {
            sock: bytes.try_get_u64_le()?,
            ack_backlog: bytes.try_get_u32_le()?,
            max_ack_backlog: bytes.try_get_u32_le()?,
            syn_queue: bytes.try_get_u32_le()?,
            max_syn_backlog: bytes.try_get_u32_le()?,
            syncookies: bytes.try_get_u32_le()?,
            defer_accept: bytes.try_get_u32_le()?,
        }),
        Kind::TimeWait => What::TimeWait(TimeWait {
            sock: bytes.try_get_u64_le()?,
            have: bytes.try_get_u32_le()?,
            rcv_nxt: bytes.try_get_u32_le()?,
            ts_recent: bytes.try_get_u32_le()?,
            ts_recent_stamp: bytes.try_get_i32_le()?,
            substate: bytes.try_get_u32_le()?,
            options_len: bytes.try_get_u32_le()?,
            options: array(bytes)?,
        }),
        _ => return network(kind, bytes),
    }))
}

/// What lies between: conntrack, routes, neighbours, devices, and what is discarded there.
fn network(kind: Kind, bytes: &mut &[u8]) -> Result<Option<What>, DecodeError> {
    Ok(Some(match kind {
        Kind::Conntrack => What::Conntrack(conntrack(bytes)?),
        Kind::Clash => What::Clash(Box::new(Clash {
            holder: conntrack(bytes)?,
            direction: bytes.try_get_u32_le()?,
            status: bytes.try_get_u32_le()?,
        })),
        Kind::PacketState => What::PacketState(PacketState {
            ct: bytes.try_get_u64_le()?,
            info: bytes.try_get_u32_le()?,
            status: bytes.try_get_u32_le()?,
        }),
        Kind::Drop => What::Drop(Drop {
            location: bytes.try_get_u64_le()?,
            reason: bytes.try_get_u32_le()?,
            reserved: bytes.try_get_u32_le()?,
        }),
        Kind::Icmp => What::Icmp(Icmp {
            icmp_type: bytes.try_get_u32_le()?,
            code: bytes.try_get_u32_le()?,
        }),
        Kind::TooBig => What::TooBig(TooBig {
            mtu: bytes.try_get_u32_le()?,
            length: bytes.try_get_u32_le()?,
        }),
        Kind::Route => What::Route(route(bytes)?),
        Kind::Neighbour => What::Neighbour(Neighbour {
            address: addr(bytes)?,
            state: bytes.try_get_u32_le()?,
            reserved: bytes.try_get_u32_le()?,
        }),
        Kind::Stack => {
            let mut stack = Stack::default();
            for frame in &mut stack.frames {
                *frame = bytes.try_get_u64_le()?;
            }
            What::Stack(Box::new(stack))
        }
        Kind::Skipped => What::Skipped(Skipped {
            kprobe: bytes.try_get_u64_le()?,
            programs: bytes.try_get_u32_le()?,
            reserved: bytes.try_get_u32_le()?,
        }),
        Kind::Egress => What::Egress(Egress {
            gateway: addr(bytes)?,
            qdisc: array(bytes)?,
        }),
        _ => return Ok(None),
    }))
}

fn ipvs_conn(bytes: &mut &[u8]) -> Result<IpvsConn, DecodeError> {
    Ok(IpvsConn {
        conn: bytes.try_get_u64_le()?,
        have: bytes.try_get_u32_le()?,
        flags: bytes.try_get_u32_le()?,
        daddr: addr(bytes)?,
        dport: bytes.try_get_u16_le()?,
        state: bytes.try_get_u16_le()?,
        weight: bytes.try_get_i32_le()?,
        available: bytes.try_get_u32_le()?,
        conn_reuse_mode: bytes.try_get_i32_le()?,
        expire_nodest_conn: bytes.try_get_i32_le()?,
        ct_status: bytes.try_get_u32_le()?,
        ct_tcp_state: bytes.try_get_u32_le()?,
        reserved: bytes.try_get_u32_le()?,
    })
}

fn ipvs_dests(bytes: &mut &[u8]) -> Result<IpvsDests, DecodeError> {
    let mut out = IpvsDests {
        service: bytes.try_get_u64_le()?,
        counted: bytes.try_get_u32_le()?,
        complete: bytes.try_get_u32_le()?,
        with_weight: bytes.try_get_u32_le()?,
        overloaded: bytes.try_get_u32_le()?,
        ..IpvsDests::default()
    };
    for dest in &mut out.listed {
        *dest = IpvsDest {
            addr: addr(bytes)?,
            port: bytes.try_get_u16_le()?,
            have: bytes.try_get_u16_le()?,
            weight: bytes.try_get_i32_le()?,
            flags: bytes.try_get_u32_le()?,
            conns: bytes.try_get_u32_le()?,
            upper: bytes.try_get_u32_le()?,
        };
    }
    Ok(out)
}

fn conntrack(bytes: &mut &[u8]) -> Result<Conntrack, DecodeError> {
    Ok(Conntrack {
        ct: bytes.try_get_u64_le()?,
        original: tuple(bytes)?,
        reply: tuple(bytes)?,
        status: bytes.try_get_u32_le()?,
        tcp_state: bytes.try_get_u32_le()?,
    })
}

fn nft_rule(bytes: &mut &[u8]) -> Result<NftRule, DecodeError> {
    Ok(NftRule {
        handle: bytes.try_get_u64_le()?,
        next: bytes.try_get_u64_le()?,
    })
}

fn route(bytes: &mut &[u8]) -> Result<Route, DecodeError> {
    Ok(Route {
        have: bytes.try_get_u32_le()?,
        nf_hook: bytes.try_get_u32_le()?,
        kind: bytes.try_get_u32_le()?,
        error: bytes.try_get_i32_le()?,
        forwarding: bytes.try_get_i32_le()?,
        forwarding_all: bytes.try_get_i32_le()?,
        rp_filter: bytes.try_get_i32_le()?,
        rp_filter_all: bytes.try_get_i32_le()?,
        accept_local: bytes.try_get_u32_le()?,
        out_ifindex: bytes.try_get_u32_le()?,
        out_dev: array(bytes)?,
        gateway: addr(bytes)?,
    })
}
