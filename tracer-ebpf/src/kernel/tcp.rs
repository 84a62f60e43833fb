//! TCP of a backend on this node.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_common::{
    hook::Hook,
    record::{Header, Listener, OPTIONS_LEN, Socket, TimeWait, time_wait},
};

use super::{
    call,
    emit::{self, emit},
    fields::{self, pointer, read, read_at, read_bytes},
    flow::{self, FlowRef},
    packet::{self, Packet},
    route,
};

/// Bytes of a TCP header without options.
const TCP_HEADER_LEN: u64 = 20;
/// Offset of the byte whose upper half is the header's length, in words of four bytes.
const DATA_OFFSET_AT: u64 = 12;

/// Fills in the socket that received the packet (0: none).
#[inline(always)]
fn fill(header: &mut Header, socket: &mut Socket, sock: u64) {
    if sock != 0 {
        emit::set_socket_netns(header, sock);
    }
    socket.sock = sock;
    socket.ack_backlog = read(sock, &fields::SOCK_ACK_BACKLOG).unwrap_or(u32::MAX);
    socket.max_ack_backlog = read(sock, &fields::SOCK_MAX_ACK_BACKLOG).unwrap_or(u32::MAX);
}

/// The packet, if it is of the function's family. An IPv6 socket receives IPv4 packets too: its function passes them to the
/// IPv4 function, which records them.
#[inline(always)]
fn of_own_family(hook: Hook, skb: u64) -> Option<Packet> {
    let packet = packet::parse(skb)?;
    (hook.ipv4_twin().is_some() == packet.tuple.is_v6()).then_some(packet)
}

/// The packet and its flow, if it is a traced SYN.
#[inline(always)]
fn traced_syn(skb: u64) -> Option<(Packet, FlowRef)> {
    let packet = packet::parse(skb)?;
    if !flow::is_request(&packet) {
        return None;
    }
    let flow = flow::of(&packet)?;
    Some((packet, flow))
}

/// `tcp_conn_request(rsk_ops, af_ops, sk, skb)`: a listening socket handles the SYN.
///
/// It always returns 0. The only trace of a SYN that it drops is in `sk_drops` of the listener, to which `tcp_listendrop`
/// adds (since 4.7). Other CPUs may add to it at the same time, so growth alone proves nothing; no growth proves that the
/// SYN was not dropped.
pub(super) mod conn_request {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let (packet, flow) = traced_syn(ctx.arg(3)?)?;
        let sock: u64 = ctx.arg(2)?;
        let drops = read::<u32>(sock, &fields::SOCK_DROPS).unwrap_or(0);
        call::enter(hook, ctx, &packet, &flow, (sock, u64::from(drops)), |of_call| {
            emit(hook, |header, listener: &mut Listener| {
                *header = *of_call;
                emit::set_socket_netns(header, sock);
                describe(listener, sock);
            });
        });
        Some(())
    }

    #[inline(always)]
    fn describe(listener: &mut Listener, sock: u64) {
        listener.sock = sock;
        listener.ack_backlog = read(sock, &fields::SOCK_ACK_BACKLOG).unwrap_or(u32::MAX);
        listener.max_ack_backlog = read(sock, &fields::SOCK_MAX_ACK_BACKLOG).unwrap_or(u32::MAX);
        listener.syn_queue = read(sock, &fields::SOCK_SYN_QUEUE).unwrap_or(u32::MAX);
        listener.defer_accept = read::<u8>(sock, &fields::SOCK_DEFER_ACCEPT).map_or(u32::MAX, u32::from);
        let net = pointer(sock, &fields::SOCK_NET).unwrap_or(0);
        listener.max_syn_backlog = read(net, &fields::NET_MAX_SYN_BACKLOG).unwrap_or(u32::MAX);
        listener.syncookies = read::<u8>(net, &fields::NET_SYNCOOKIES).map_or(u32::MAX, u32::from);
    }

    /// Records only growth: the verdict is by how much the listener's drop counter grew.
    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            if let Some(drops) = read::<u32>(call.kept.0, &fields::SOCK_DROPS) {
                let grown = drops.wrapping_sub(call.kept.1 as u32);
                if grown != 0 {
                    route::emit_answer_mark(hook, &call.header, call.kept.0);
                    call.header.verdict = grown as i32;
                    call::emit_header(hook, &call.header);
                }
            }
        })
    }
}

/// `tcp_v4_send_reset(sk, skb)` and `tcp_v6_send_reset`: TCP refuses `skb`. Without a socket, nothing listened on the port.
#[inline(always)]
pub(super) fn send_reset(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = of_own_family(hook, ctx.arg(1)?)?;
    let flow = flow::of(&packet).or_else(|| flow::of_ack(&packet))?;
    let sock: u64 = ctx.arg(0)?;
    emit(hook, |header, socket: &mut Socket| {
        emit::describe(header, hook, &packet, &flow);
        fill(header, socket, sock);
    });
    Some(())
}

/// `tcp_v4_syn_recv_sock(sk, skb, …)` and `tcp_v6_syn_recv_sock`: the ACK arrived at the listener. Returns the new
/// connection, or NULL.
pub(super) mod syn_recv_sock {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let packet = of_own_family(hook, ctx.arg(1)?)?;
        let flow = flow::of_ack(&packet)?;
        let sock: u64 = ctx.arg(0)?;
        call::enter(hook, ctx, &packet, &flow, (0, 0), |of_call| {
            emit(hook, |header, socket: &mut Socket| {
                *header = *of_call;
                fill(header, socket, sock);
            });
        });
        Some(())
    }

    /// Records only that there is no new connection.
    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            if ctx.ret::<u64>() == 0 {
                call::emit_header(hook, &call.header);
            }
        })
    }
}

/// `tcp_timewait_state_process(tw, skb, th, …)`: the `TIME_WAIT` socket of an earlier connection handles the SYN. Returns
/// what to do (`enum tcp_tw_status`).
pub(super) mod timewait {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let (packet, flow) = traced_syn(ctx.arg(1)?)?;
        let (sock, tcp): (u64, u64) = (ctx.arg(0)?, ctx.arg(2)?);
        call::enter(hook, ctx, &packet, &flow, (0, 0), |of_call| {
            emit(hook, |header, out: &mut TimeWait| {
                *header = *of_call;
                emit::set_socket_netns(header, sock);
                describe(out, sock, tcp);
            });
        });
        Some(())
    }

    #[inline(always)]
    fn describe(out: &mut TimeWait, sock: u64, tcp: u64) {
        out.sock = sock;
        if let Some(next) = read(sock, &fields::TIMEWAIT_RCV_NXT) {
            out.rcv_nxt = next;
            out.have |= time_wait::RCV_NXT;
        }
        if let (Some(recent), Some(stamp)) = (
            read(sock, &fields::TIMEWAIT_TS_RECENT),
            read(sock, &fields::TIMEWAIT_TS_RECENT_STAMP),
        ) {
            out.ts_recent = recent;
            out.ts_recent_stamp = stamp;
            out.have |= time_wait::TS_RECENT;
        }
        if let Some(state) = read::<u8>(sock, &fields::TIMEWAIT_SUBSTATE) {
            out.substate = u32::from(state);
            out.have |= time_wait::SUBSTATE;
        }
        if let Some(offset) = read_at::<u8>(tcp.wrapping_add(DATA_OFFSET_AT)) {
            let length = u32::from(offset >> 4) * 4;
            out.options_len = length.saturating_sub(TCP_HEADER_LEN as u32);
            // Reads past shorter options: the reader uses the length.
            const { assert!(OPTIONS_LEN == 40) };
            read_bytes(tcp.wrapping_add(TCP_HEADER_LEN), &mut out.options);
            out.have |= time_wait::OPTIONS;
        }
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| call::emit_header(hook, &call.header))
    }
}
