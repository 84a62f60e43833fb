//! IPVS: which connection entry a SYN matched, what was decided, and where it was sent.

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::LruHashMap,
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::{
    flow_number::Origin,
    hook::Hook,
    record::{Header, IpvsConn, IpvsDests, IpvsLimits, IpvsService, Route, Vip, ipvs_limits},
    tcp::SYN,
    tuple::Tuple,
    uapi::MAX_ERRNO,
};

use super::{
    answer, call, conntrack, dests,
    emit::{self, emit},
    fields::{self, address, pointer, read, read_text},
    flow::{self, FlowRef},
    ipvs_conn::{address_in, read_conn, real_server},
    log::debug,
    packet::{self, Packet},
    route,
};

/// Upper limit of the time from a lookup until IPVS uses the entry in the same call. It takes microseconds, more under
/// emulation.
const SAME_CALL_NS: u64 = 20_000_000;

/// The SYN for which a lookup last returned a connection entry, by the entry's address. For hooks that get the entry
/// without the packet.
#[map]
static LOOKED_UP: LruHashMap<u64, Header> = LruHashMap::with_max_entries(8192, 0);

/// The entry that a function returned; `None` for NULL and error values.
#[inline(always)]
fn valid(pointer: u64) -> Option<u64> {
    (pointer != 0 && (pointer as i64) < -MAX_ERRNO).then_some(pointer)
}

/// The packet and its flow, if it is a traced SYN, or a SYN-ACK that IPVS handles as one. Most hooks check this first.
#[inline(always)]
fn traced(skb: u64) -> Option<(Packet, FlowRef)> {
    let packet = packet::parse(skb)?;
    let flow = if flow::is_request(&packet) {
        flow::known(&packet.tuple, packet.seq)?
    } else {
        answer::known(&packet)?
    };
    Some((packet, flow))
}

/// The same for a SYN-ACK that IPVS may come to handle as a SYN, too. Until it does, its flow has no number.
#[inline(always)]
fn traced_or_candidate(skb: u64) -> Option<(Packet, FlowRef)> {
    let packet = packet::parse(skb)?;
    let flow = if flow::is_request(&packet) {
        flow::known(&packet.tuple, packet.seq)?
    } else {
        answer::candidate(&packet)?
    };
    Some((packet, flow))
}

/// `ip_vs_in_hook(priv, skb, state)` and its predecessors: netfilter hands the packet to IPVS.
pub(super) mod request {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let packet = packet::parse(ctx.arg(1)?)?;
        let flow = if flow::is_request(&packet) {
            // A client on the node itself may first appear here.
            flow::of_request(hook, &packet, Origin::Kprobe)?
        } else {
            answer::known(&packet)?
        };
        // After DNAT the packet passes the local output hook again, where IPVS accepts it at once.
        if !flow.is_original() {
            return None;
        }
        debug!(
            ctx,
            "flow {}: IPVS gets the SYN with sequence number {}", flow.flow, packet.seq
        );
        let state: u64 = ctx.arg(2)?;
        call::enter(hook, ctx, &packet, &flow, (0, 0), |of_call| {
            emit(hook, |header, out: &mut Route| {
                *header = *of_call;
                let nf_hook = read(state, &fields::NF_HOOK_STATE_HOOK);
                route::read_decision(of_call.skb, of_call.tuple.is_v6(), nf_hook, out);
                // A packet that the node itself sends has no device yet.
                if header.netns == 0
                    && let Some(net) = pointer(state, &fields::NF_HOOK_STATE_NET)
                {
                    header.netns = read(net, &fields::NET_INUM).unwrap_or(0);
                }
            });
        });
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| call::emit_header(hook, &call.header))
    }
}

/// `ip_vs_conn_in_get_proto(ipvs, af, skb, iph)` (since 4.4) returns the entry of an earlier connection, or NULL.
pub(super) mod lookup {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let (packet, flow) = traced_or_candidate(ctx.arg(2)?)?;
        call::enter(hook, ctx, &packet, &flow, (0, 0), |_| ());
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            let found = valid(ctx.ret());
            if found.is_some() {
                let _ = answer::taken_in_call(hook, &mut call.header);
            }
            if call.header.flow == 0 {
                return;
            }
            if let Some(conn) = found {
                let _ = LOOKED_UP.insert(&conn, &call.header, 0);
            }
            emit(hook, |header, out: &mut IpvsConn| {
                *header = call.header;
                if let Some(conn) = found {
                    read_conn(conn, call.header.skb, out);
                }
            });
        })
    }
}

/// `ip_vs_conn_expire_now(cp)`: recorded if it is the entry that a lookup for a traced SYN just returned. Where no lookup
/// was seen, recorded if the entry has the client's own tuple of a flow whose handshake is not finished.
#[inline(always)]
pub(super) fn expire_now(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let conn: u64 = ctx.arg(0)?;
    // SAFETY: the value is plain bytes and is copied at once. Another CPU may evict the entry and reuse its memory in the
    // meantime; the copy then has that CPU's number.
    let Some(looked_up) = unsafe { LOOKED_UP.get(&conn) }.copied() else {
        return expire_without_lookup(hook, conn);
    };
    // SAFETY: the helpers take no pointers.
    let (now, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id() as u16) };
    // The memory may be another entry by now: only what follows in the same call belongs to the SYN.
    if looked_up.cpu == cpu && now.wrapping_sub(looked_up.time_ns) <= SAME_CALL_NS {
        emit(hook, |header, out: &mut IpvsConn| {
            *header = looked_up;
            emit::stamp(header, hook);
            read_conn(conn, looked_up.skb, out);
        });
    } else {
        debug!(
            ctx,
            "expired an entry {} ns after its lookup: not for that SYN",
            now - looked_up.time_ns
        );
    }
    LOOKED_UP.remove(&conn).ok()
}

/// Records an entry that expires at once although no lookup of it was seen: the hook for lookups is not attached, or this is
/// not about a packet (a flush, `drop_entry`). The record has no packet buffer.
#[inline(always)]
fn expire_without_lookup(hook: Hook, conn: u64) -> Option<()> {
    let tuple = Tuple {
        saddr: address_in(conn, &fields::IP_VS_CONN_CADDR)?,
        daddr: address_in(conn, &fields::IP_VS_CONN_VADDR)?,
        sport: u16::from_be(read(conn, &fields::IP_VS_CONN_CPORT)?),
        dport: u16::from_be(read(conn, &fields::IP_VS_CONN_VPORT)?),
    };
    let flow = flow::latest(&tuple)?;
    let packet = Packet::without_skb(tuple, flow.isn, SYN);
    emit(hook, |header, out: &mut IpvsConn| {
        emit::describe(header, hook, &packet, &flow);
        read_conn(conn, 0, out);
    });
    Some(())
}

/// `tcp_conn_schedule(ipvs, af, skb, pd, verdict, cpp, iph)` (since 4.4) returns 0 if it has set the verdict. The limits
/// that may be the reason are recorded then.
pub(super) mod tcp_schedule {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let (packet, flow) = traced_or_candidate(ctx.arg(2)?)?;
        // Recorded at entry, so that the path shows what happens inside after it.
        call::enter(hook, ctx, &packet, &flow, (ctx.arg(0)?, 0), |of_call| {
            if of_call.flow != 0 {
                call::emit_header(hook, of_call);
            }
        });
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            if call.header.verdict == 0 {
                let _ = answer::taken_in_call(hook, &mut call.header);
            }
            if call.header.flow == 0 {
                return;
            }
            if call.header.verdict != 0 {
                return call::emit_header(hook, &call.header);
            }
            emit(hook, |header, out: &mut IpvsLimits| {
                *header = call.header;
                read_limits(call.kept.0, out);
            });
        })
    }

    #[inline(always)]
    fn read_limits(ipvs: u64, out: &mut IpvsLimits) {
        if let Some(rate) = read(ipvs, &fields::NETNS_IPVS_DROP_RATE) {
            out.drop_rate = rate;
            out.have |= ipvs_limits::DROP_RATE;
        }
        if let Some(count) = read(ipvs, &fields::NETNS_IPVS_CONN_COUNT) {
            out.conn_count = count;
            out.have |= ipvs_limits::CONN_COUNT;
        }
        if let Some(most) = read(ipvs, &fields::NETNS_IPVS_CONN_MAX) {
            out.conn_max = most;
            out.have |= ipvs_limits::CONN_MAX;
        }
    }
}

/// `ip_vs_schedule(svc, skb, pd, ignored, iph)` returns the new entry, or NULL.
pub(super) mod schedule {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let (packet, flow) = traced_or_candidate(ctx.arg(1)?)?;
        let service: u64 = ctx.arg(0)?;
        call::enter(hook, ctx, &packet, &flow, (0, 0), |of_call| {
            if of_call.flow != 0 {
                emit(hook, |header, out: &mut IpvsService| {
                    *header = *of_call;
                    read_service(service, out);
                });
            }
        });
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            let created = valid(ctx.ret());
            if created.is_some() {
                let _ = answer::taken_in_call(hook, &mut call.header);
            }
            if call.header.flow == 0 {
                return;
            }
            if let Some(conn) = created {
                let _ = alias_of_new(hook, conn, &call.header);
            }
            emit(hook, |header, out: &mut IpvsConn| {
                *header = call.header;
                if let Some(conn) = created {
                    read_conn(conn, 0, out);
                }
            });
        })
    }
}

/// Makes the tuple after DNAT an alias of the flow of a new entry: the function that translates the SYN may have no hook.
#[inline(always)]
fn alias_of_new(hook: Hook, conn: u64, of_call: &Header) -> Option<()> {
    // A SYN, not an answer that IPVS handles as one.
    let flow = flow::known(&of_call.tuple, of_call.isn)?;
    let (daddr, dport) = real_server(conn)?;
    let after = Tuple {
        daddr,
        dport,
        ..of_call.tuple
    };
    flow::alias(hook, &after, &flow);
    Some(())
}

#[inline(always)]
fn read_service(service: u64, out: &mut IpvsService) {
    out.service = service;
    out.num_dests = read(service, &fields::IP_VS_SERVICE_NUM_DESTS).unwrap_or(u32::MAX);
    if let Some(name) = pointer(service, &fields::IP_VS_SERVICE_SCHEDULER)
        .and_then(|scheduler| pointer(scheduler, &fields::IP_VS_SCHEDULER_NAME))
    {
        read_text(name, &mut out.scheduler);
    }
}

/// `ip_vs_leave(svc, skb, pd, iph)`: the scheduler found no real server. Records which ones the service has.
#[inline(always)]
pub(super) fn leave(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(1)?)?;
    let flow = if flow::is_request(&packet) {
        flow::known(&packet.tuple, packet.seq)?
    } else {
        answer::taken(hook, &packet)?
    };
    let service: u64 = ctx.arg(0)?;
    emit(hook, |header, out: &mut IpvsService| {
        emit::describe(header, hook, &packet, &flow);
        read_service(service, out);
    });
    let destinations = address(service, &fields::IP_VS_SERVICE_DESTINATIONS)?;
    emit(hook, |header, out: &mut IpvsDests| {
        emit::describe(header, hook, &packet, &flow);
        out.service = service;
        dests::read_all(destinations, out);
    });
    Some(())
}

/// `ip_vs_nat_xmit(skb, cp, pp, ipvsh)` and `ip_vs_nat_xmit_v6`: the SYN goes to the real server of `cp`. The return value
/// adds nothing: it is `NF_STOLEN` whether the packet left or was freed.
#[inline(always)]
pub(super) fn nat_xmit(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let (packet, flow) = traced(ctx.arg(0)?)?;
    let conn: u64 = ctx.arg(1)?;
    let _ = conntrack::alias_of(hook, &packet, &flow);
    // Even if the record does not fit into the ring buffer: what follows must be seen, or counted as lost.
    if let Some((daddr, dport)) = real_server(conn) {
        let mut after = Tuple {
            daddr,
            dport,
            ..packet.tuple
        };
        if flow.is_own_connection() {
            after = after.reversed();
        }
        flow::alias(hook, &after, &flow);
    }
    emit(hook, |header, out: &mut IpvsConn| {
        emit::describe(header, hook, &packet, &flow);
        read_conn(conn, packet.skb, out);
    });
    Some(())
}

/// `ip_vs_dr_xmit(skb, cp, pp, ipvsh)`, `ip_vs_tunnel_xmit`, and both with `_v6`: the SYN goes to the real server of `cp`
/// unmodified, on the wire or in a tunnel. Its tuple stays the same, so there is no alias to add.
#[inline(always)]
pub(super) fn plain_xmit(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let (packet, flow) = traced(ctx.arg(0)?)?;
    let conn: u64 = ctx.arg(1)?;
    emit(hook, |header, out: &mut IpvsConn| {
        emit::describe(header, hook, &packet, &flow);
        read_conn(conn, packet.skb, out);
    });
    Some(())
}

/// `handle_response(af, skb, pd, cp, iph, hooknum)`: the answer matches the entry that translates it
/// back.
#[inline(always)]
pub(super) fn reply(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(1)?)?;
    let flow = flow::of(&packet)?;
    let conn: u64 = ctx.arg(3)?;
    emit(hook, |header, out: &mut IpvsConn| {
        emit::describe(header, hook, &packet, &flow);
        read_conn(conn, packet.skb, out);
    });
    emit_other_service(hook, conn, &packet, &flow)
}

/// Records the virtual service that the answer is translated back to, if the client addressed another one.
#[inline(always)]
fn emit_other_service(hook: Hook, conn: u64, packet: &Packet, flow: &FlowRef) -> Option<()> {
    if flow.is_own_connection() {
        return None;
    }
    let addr = address_in(conn, &fields::IP_VS_CONN_VADDR)?;
    let port = u16::from_be(read(conn, &fields::IP_VS_CONN_VPORT)?);
    let request = Tuple {
        saddr: packet.tuple.daddr,
        sport: packet.tuple.dport,
        daddr: addr,
        dport: port,
    };
    if flow::known(&request, flow.isn).is_some() {
        return None;
    }
    emit(hook, |header, out: &mut Vip| {
        emit::describe(header, hook, packet, flow);
        out.conn = conn;
        out.addr = addr;
        out.port = u32::from(port);
    });
    Some(())
}
