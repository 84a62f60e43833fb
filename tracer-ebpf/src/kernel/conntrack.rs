//! conntrack: the entry that goes into the table, with the whole NAT of a flow in its two tuples.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_common::{
    hook::Hook,
    record::{Conntrack, conntrack},
    tuple::{Addr, Tuple},
};

use super::{
    call,
    emit::emit,
    fields::{self, address, read, read_at},
    flow::{self, FlowRef},
    packet::{self, Packet},
    route,
};

/// `sk_buff._nfct` carries the packet's state in its low three bits (`NFCT_PTRMASK`, since 4.11).
const STATE_BITS: u64 = 7;

/// Values of `nf_conntrack_tuple.src.l3num` (`uapi/linux/netfilter.h`).
const NFPROTO_IPV4: u16 = 2;
const NFPROTO_IPV6: u16 = 10;

/// The conntrack entry that the packet carries.
#[inline(always)]
pub(super) fn of(skb: u64) -> Option<u64> {
    let tagged: u64 = read(skb, &fields::SK_BUFF_NFCT)?;
    Some(tagged & !STATE_BITS).filter(|&ct| ct != 0)
}

/// `struct nf_conntrack_tuple`: the same from 3.10 to 7.3. Addresses and ports are in network byte order; an IPv4
/// address is the first word of its four.
#[repr(C)]
#[derive(Clone, Copy)]
struct KernelTuple {
    saddr: [u32; 4],
    sport: [u8; 2],
    l3num: u16,
    daddr: [u32; 4],
    dport: [u8; 2],
    protonum: u8,
    dir: u8,
}

#[inline(always)]
fn tuple_at(at: u64) -> Option<Tuple> {
    let KernelTuple {
        saddr,
        sport,
        l3num,
        daddr,
        dport,
        ..
    } = read_at(at)?;
    let (saddr, daddr) = match l3num {
        NFPROTO_IPV4 => (Addr::v4_word(saddr[0]), Addr::v4_word(daddr[0])),
        NFPROTO_IPV6 => (Addr(saddr), Addr(daddr)),
        _ => return None,
    };
    Some(Tuple {
        saddr,
        daddr,
        sport: u16::from_be_bytes(sport),
        dport: u16::from_be_bytes(dport),
    })
}

/// The tuple of the packet that the entry began with.
#[inline(always)]
pub(super) fn original_of(ct: u64) -> Option<Tuple> {
    tuple_at(address(ct, &fields::NF_CONN_ORIGINAL)?)
}

/// The tuple of the packet that is to answer it.
#[inline(always)]
pub(super) fn reply_of(ct: u64) -> Option<Tuple> {
    tuple_at(address(ct, &fields::NF_CONN_REPLY)?)
}

/// Reads what matters of a `struct nf_conn`.
#[inline(always)]
pub(super) fn read_entry(ct: u64, out: &mut Conntrack) -> Option<()> {
    out.ct = ct;
    out.status = read(ct, &fields::NF_CONN_STATUS).unwrap_or(0);
    out.tcp_state = read::<u8>(ct, &fields::NF_CONN_TCP_STATE).map_or(u32::MAX, u32::from);
    out.original = original_of(ct)?;
    out.reply = reply_of(ct)?;
    Some(())
}

/// Both translations of a flow, as its conntrack entry has them, become names of it.
#[inline(always)]
pub(super) fn alias(original: &Tuple, reply: &Tuple, flow: &FlowRef) {
    flow::alias(
        &Tuple {
            daddr: reply.saddr,
            dport: reply.sport,
            ..*original
        },
        flow,
    );
    flow::alias(&reply.reversed(), flow);
}

/// Takes over the translations of the entry that the packet carries. For a SYN that meets the entry of an earlier one,
/// which is confirmed already and will not be again.
#[inline(always)]
pub(super) fn alias_of(packet: &Packet, flow: &FlowRef) -> Option<()> {
    let ct = of(packet.skb)?;
    let status: u32 = read(ct, &fields::NF_CONN_STATUS)?;
    let original = original_of(ct)?;
    if status & conntrack::CONFIRMED != 0 && original == packet.tuple {
        alias(&original, &reply_of(ct)?, flow);
    }
    Some(())
}

/// `__nf_conntrack_confirm(skb)`: a new connection goes into the table; every NAT decision is made by now.
pub(super) mod confirm {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let packet = packet::parse(ctx.arg(0)?)?;
        if !flow::is_request(&packet) {
            return None;
        }
        let ct = of(packet.skb)?;
        let original = original_of(ct)?;
        let flow = flow::known(&original, packet.seq)?;
        let reply = reply_of(ct)?;
        alias(&original, &reply, &flow);
        call::enter(hook, ctx, &packet, &flow, (0, 0), |front| {
            route::tell_decision(hook, front, None);
            emit(hook, |header, out: &mut Conntrack| {
                *header = *front;
                let _ = read_entry(ct, out);
            });
        });
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| call::emit_front(hook, &call.header))
    }
}
