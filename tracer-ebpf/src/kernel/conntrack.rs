//! conntrack: the entry of a flow, whose two tuples hold all of its NAT, and why there is none.

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
    uapi::{MAX_ERRNO, ctinfo, nfproto, verdict::NF_ACCEPT},
};

use super::{
    call,
    emit::{self, emit},
    fields::{self, address, read, read_at},
    flow::{self, FlowRef},
    packet::{self, Packet},
    route,
};

/// The conntrack entry attached to the packet.
#[inline(always)]
pub(super) fn of(skb: u64) -> Option<u64> {
    let tagged: u64 = read(skb, &fields::SK_BUFF_NFCT)?;
    Some(tagged & !ctinfo::MASK).filter(|&ct| ct != 0)
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
    const IPV4: u16 = nfproto::IPV4 as u16;
    const IPV6: u16 = nfproto::IPV6 as u16;
    let (saddr, daddr) = match l3num {
        IPV4 => (Addr::v4_word(saddr[0]), Addr::v4_word(daddr[0])),
        IPV6 => (Addr(saddr), Addr(daddr)),
        _ => return None,
    };
    Some(Tuple {
        saddr,
        daddr,
        sport: u16::from_be_bytes(sport),
        dport: u16::from_be_bytes(dport),
    })
}

/// The ORIGINAL tuple of an entry.
#[inline(always)]
pub(super) fn original_of(ct: u64) -> Option<Tuple> {
    tuple_at(address(ct, &fields::NF_CONN_ORIGINAL)?)
}

/// The REPLY tuple of an entry: how an answer must look to be translated back.
#[inline(always)]
pub(super) fn reply_of(ct: u64) -> Option<Tuple> {
    tuple_at(address(ct, &fields::NF_CONN_REPLY)?)
}

/// Reads the members of a `struct nf_conn` that a record holds.
#[inline(always)]
pub(super) fn read_entry(ct: u64, out: &mut Conntrack) -> Option<()> {
    out.ct = ct;
    out.status = read(ct, &fields::NF_CONN_STATUS).unwrap_or(0);
    out.tcp_state = read::<u8>(ct, &fields::NF_CONN_TCP_STATE).map_or(u32::MAX, u32::from);
    out.original = original_of(ct)?;
    out.reply = reply_of(ct)?;
    Some(())
}

/// The flow of a packet that is part of a handshake, even if NAT has just given it a tuple that is not yet an alias of the
/// flow: until the entry is confirmed, only the packet's conntrack entry connects the two.
#[inline(always)]
pub(super) fn flow_of(packet: &Packet) -> Option<FlowRef> {
    flow::of(packet).or_else(|| {
        if !flow::is_request(packet) || packet.is_encapsulated() {
            return None;
        }
        flow::known(&original_of(of(packet.skb)?)?, packet.seq)
    })
}

/// The flow of a SYN that leaves with a tuple that is not an alias of it: the SYN matched the entry of an earlier SYN,
/// which is confirmed already and is not confirmed again. Records the entry, and makes its tuples aliases of the flow.
#[inline(always)]
pub(super) fn adopt(hook: Hook, packet: &Packet, device: u64) -> Option<FlowRef> {
    if !flow::is_request(packet) || packet.is_encapsulated() {
        return None;
    }
    let ct = of(packet.skb)?;
    let original = original_of(ct)?;
    let flow = flow::known(&original, packet.seq)?;
    let reply = tuple_at(address(ct, &fields::NF_CONN_REPLY)?)?;
    alias(hook, &original, &reply, &flow);
    emit(hook, |header, out: &mut Conntrack| {
        emit::describe(header, hook, packet, &flow);
        emit::set_device(header, device);
        let _ = read_entry(ct, out);
    });
    Some(flow)
}

/// Records the conntrack state of a packet that is dropped.
#[inline(always)]
pub(super) fn emit_state(hook: Hook, packet: &Packet, flow: &FlowRef) -> Option<()> {
    let tagged: u64 = read(packet.skb, &fields::SK_BUFF_NFCT)?;
    emit(hook, |header, out: &mut PacketState| {
        emit::describe(header, hook, packet, flow);
        out.ct = tagged & !ctinfo::MASK;
        out.info = (tagged & ctinfo::MASK) as u32;
        out.status = read(out.ct, &fields::NF_CONN_STATUS).unwrap_or(0);
    });
    Some(())
}

/// When this CPU last found the table full and no entry to evict; `bpf_ktime_get_ns()`.
#[map]
static FULL: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// `__nf_conntrack_alloc(net, zone, orig, repl, gfp, hash)` allocates the entry of a new connection. Recorded only if it
/// fails.
pub(super) mod alloc {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let tuple = tuple_at(ctx.arg(2)?)?;
        let flow = flow::latest(&tuple)?;
        let packet = Packet::without_skb(tuple, flow.isn, tcp::SYN);
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
            call.header.netns = read(call.kept.0, &fields::NET_INUM).unwrap_or(0);
            // The table was found full during this call.
            if FULL.get(0).is_some_and(|&full| full >= call.kept.1) {
                emit(Hook::CtEarlyDrop, |header, (): &mut ()| {
                    *header = call.header;
                    header.hook = Hook::CtEarlyDrop as u16;
                    header.verdict = 0;
                });
            }
            call::emit_header(hook, &call.header);
        })
    }
}

/// `early_drop(net, hash)` looks for an entry to evict when the table has more than `nf_conntrack_max`. Recorded by the
/// allocation that calls it.
pub(super) mod early_drop {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(_: Hook, _: &ProbeContext) -> Option<()> {
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(_: Hook, ctx: &RetProbeContext) -> Option<()> {
        // A `bool`: the bits above its byte are undefined.
        if ctx.ret::<u64>() as u8 == 0 {
            // SAFETY: the value is this CPU's, a time that an interrupt can only make newer, and the helper takes no pointer.
            unsafe { *FULL.get_ptr_mut(0)? = bpf_ktime_get_ns() };
        }
        Some(())
    }
}

/// `nf_conntrack_in(skb, state)` (since 4.20) finds the packet's connection. Recorded only if it finds none and accepts the
/// packet anyway, which makes it INVALID. A packet that a rule exempted from tracking has `IP_CT_UNTRACKED`.
pub(super) mod track {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let packet = packet::parse(ctx.arg(0)?)?;
        // A packet that has an entry already is not looked up again, so there is none to connect it with its flow.
        let flow = flow::of(&packet).or_else(|| flow::of_ack(&packet))?;
        call::enter(hook, ctx, &packet, &flow, (0, 0), |_| ());
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            let tagged: Option<u64> = read(call.header.skb, &fields::SK_BUFF_NFCT);
            if call.header.verdict == NF_ACCEPT && tagged == Some(0) {
                call::emit_header(hook, &call.header);
            }
        })
    }
}

/// `nf_ct_resolve_clash(skb, h, reply_hash)` (since 5.7): the entry of `h` already uses a tuple of the packet's new entry.
/// For TCP the new entry is discarded.
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

/// Makes the tuples after DNAT and after SNAT, as a conntrack entry has them, aliases of the flow.
#[inline(always)]
pub(super) fn alias(hook: Hook, original: &Tuple, reply: &Tuple, flow: &FlowRef) {
    flow::alias(
        hook,
        &Tuple {
            daddr: reply.saddr,
            dport: reply.sport,
            ..*original
        },
        flow,
    );
    flow::alias(hook, &reply.reversed(), flow);
}

/// Makes the translations of the packet's conntrack entry aliases of the flow. For a SYN that matches the entry of an
/// earlier SYN, which is confirmed already and is not confirmed again.
#[inline(always)]
pub(super) fn alias_of(hook: Hook, packet: &Packet, flow: &FlowRef) -> Option<()> {
    let ct = of(packet.skb)?;
    let status: u32 = read(ct, &fields::NF_CONN_STATUS)?;
    let original = original_of(ct)?;
    if status & conntrack::CONFIRMED != 0 && original == packet.tuple {
        alias(hook, &original, &reply_of(ct)?, flow);
    }
    Some(())
}

/// `__nf_conntrack_confirm(skb)` inserts a new connection into the table; all NAT decisions are made by now.
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
        alias(hook, &original, &reply, &flow);
        call::enter(hook, ctx, &packet, &flow, (0, 0), |of_call| {
            route::emit_decision(hook, of_call, None);
            emit(hook, |header, out: &mut Conntrack| {
                *header = *of_call;
                let _ = read_entry(ct, out);
            });
        });
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| call::emit_header(hook, &call.header))
    }
}
