//! conntrack: the entry that goes into the table, with the whole NAT of a flow in its two tuples.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::PerCpuArray,
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::{
    hook::Hook,
    record::{Clash, Conntrack, PacketState, conntrack},
    tcp,
    tuple::{Addr, Tuple},
};

use super::{
    call,
    emit::{self, emit},
    fields::{self, address, read, read_at},
    flow::{self, FlowRef},
    packet::{self, Packet},
    route,
};

/// `sk_buff._nfct` carries the packet's state in its low three bits (`NFCT_PTRMASK`, since 4.11).
const STATE_BITS: u64 = 7;

/// Pointers from here on are errors (`IS_ERR()`).
const MAX_ERRNO: i64 = 4095;

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

/// The flow of a packet that is part of a handshake, also where it has a tuple that NAT has just made and that is no
/// name of the flow yet: up to the confirmation only the packet's conntrack entry joins the two.
#[inline(always)]
pub(super) fn flow_of(packet: &Packet) -> Option<FlowRef> {
    flow::of(packet).or_else(|| {
        if !flow::is_request(packet) || packet.is_encapsulated() {
            return None;
        }
        flow::known(&original_of(of(packet.skb)?)?, packet.seq)
    })
}

/// A SYN of ours leaves with a tuple that is no name of its flow: it met an entry that an earlier SYN has made, which
/// is confirmed already and will not be again. The entry is told, and its tuples become names of the flow.
#[inline(always)]
pub(super) fn adopt(hook: Hook, packet: &Packet, device: u64) -> Option<FlowRef> {
    if !flow::is_request(packet) || packet.is_encapsulated() {
        return None;
    }
    let ct = of(packet.skb)?;
    let original = original_of(ct)?;
    let flow = flow::known(&original, packet.seq)?;
    let reply = tuple_at(address(ct, &fields::NF_CONN_REPLY)?)?;
    alias(&original, &reply, &flow);
    emit(hook, |header, out: &mut Conntrack| {
        emit::describe(header, hook, packet, &flow);
        emit::set_device(header, device);
        let _ = read_entry(ct, out);
    });
    Some(flow)
}

/// Tells what conntrack had made of a packet that is discarded.
#[inline(always)]
pub(super) fn tell_state(hook: Hook, packet: &Packet, flow: &FlowRef) -> Option<()> {
    let tagged: u64 = read(packet.skb, &fields::SK_BUFF_NFCT)?;
    emit(hook, |header, out: &mut PacketState| {
        emit::describe(header, hook, packet, flow);
        out.ct = tagged & !STATE_BITS;
        out.info = (tagged & STATE_BITS) as u32;
        out.status = read(out.ct, &fields::NF_CONN_STATUS).unwrap_or(0);
    });
    Some(())
}

/// When this CPU last found the table full and nothing in it that could go; `bpf_ktime_get_ns()`.
#[map]
static FULL: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// `__nf_conntrack_alloc(net, zone, orig, repl, gfp, hash)`: a new connection needs an entry. Told only if it gets
/// none.
pub(super) mod alloc {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let tuple = tuple_at(ctx.arg(2)?)?;
        let flow = flow::latest(&tuple)?;
        let packet = Packet {
            skb: 0,
            tuple,
            seq: flow.isn,
            ack: 0,
            flags: tcp::SYN,
            encapsulation: 0,
            outer_daddr: 0,
        };
        // SAFETY: the helper takes no pointer.
        let now = unsafe { bpf_ktime_get_ns() };
        call::enter(hook, ctx, &packet, &flow, (ctx.arg(0)?, now), |_| ());
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            if !(-MAX_ERRNO..0).contains(&(ctx.ret::<u64>() as i64)) {
                return;
            }
            call.header.netns = read(call.first, &fields::NET_INUM).unwrap_or(0);
            // Found full within this very call.
            if FULL.get(0).is_some_and(|&full| full >= call.second) {
                emit(Hook::CtEarlyDrop, |header, (): &mut ()| {
                    *header = call.header;
                    header.hook = Hook::CtEarlyDrop as u16;
                    header.verdict = 0;
                });
            }
            call::emit_front(hook, &call.header);
        })
    }
}

/// `early_drop(net, hash)`: there are more entries than `nf_conntrack_max`; is there one that can go? Told by the
/// allocation inside of which it runs.
pub(super) mod early_drop {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(_: Hook, _: &ProbeContext) -> Option<()> {
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(_: Hook, ctx: &RetProbeContext) -> Option<()> {
        // A `bool`: what lies above its byte means nothing.
        if ctx.ret::<u64>() as u8 == 0 {
            // SAFETY: the entry belongs to this CPU, and the helper takes no pointer.
            unsafe { *FULL.get_ptr_mut(0)? = bpf_ktime_get_ns() };
        }
        Some(())
    }
}

/// `nf_conntrack_in(skb, state)` (since 4.20): which connection is this packet part of? Told only if it is part of none
/// and goes on nonetheless, which is what makes it INVALID. A packet that a rule has exempted from tracking carries
/// `IP_CT_UNTRACKED`.
pub(super) mod track {
    use super::*;

    /// `NF_ACCEPT`.
    const ACCEPT: i32 = 1;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let packet = packet::parse(ctx.arg(0)?)?;
        let flow = flow_of(&packet).or_else(|| flow::of_ack(&packet))?;
        call::enter(hook, ctx, &packet, &flow, (0, 0), |_| ());
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            let tagged: Option<u64> = read(call.header.skb, &fields::SK_BUFF_NFCT);
            if call.header.verdict == ACCEPT && tagged == Some(0) {
                call::emit_front(hook, &call.header);
            }
        })
    }
}

/// `nf_ct_resolve_clash(skb, h, reply_hash)` (since 5.7): the entry of `h` has a tuple that the packet's new entry wants.
/// For TCP that is the new entry's end.
#[inline(always)]
pub(super) fn clash(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(0)?)?;
    let flow = flow_of(&packet)?;
    let found: u64 = ctx.arg(1)?;
    let ct = of(packet.skb)?;
    // `h` is one of the two elements of `nf_conn.tuplehash`.
    let tuple = address(found, &fields::NF_CT_HASH_TUPLE)?;
    let KernelTuple { dir, .. } = read_at(tuple)?;
    let holder = match dir {
        0 => fields::base_of(tuple, &fields::NF_CONN_ORIGINAL)?,
        _ => fields::base_of(tuple, &fields::NF_CONN_REPLY)?,
    };
    emit(hook, |header, out: &mut Clash| {
        emit::describe(header, hook, &packet, &flow);
        let _ = read_entry(holder, &mut out.holder);
        out.direction = u32::from(dir);
        out.status = read(ct, &fields::NF_CONN_STATUS).unwrap_or(0);
    });
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
