//! The backend's TCP, when the backend is on this node.

use aya_ebpf::programs::ProbeContext;
use tracer_common::{hook::Hook, record::Socket, tcp::Part};

use super::{
    emit::{self, emit},
    fields::{self, read},
    flow::{self, FlowRef},
    packet::{self, Packet},
};

/// Writes a record about a packet and the socket that took it (0: none).
#[inline(always)]
fn tell(hook: Hook, packet: &Packet, flow: &FlowRef, sock: u64) {
    emit(hook, |header, socket: &mut Socket| {
        emit::describe(header, hook, packet, flow);
        if sock != 0 {
            emit::set_socket_netns(header, sock);
        }
        socket.sock = sock;
        socket.ack_backlog = read(sock, &fields::SOCK_ACK_BACKLOG).unwrap_or(u32::MAX);
        socket.max_ack_backlog = read(sock, &fields::SOCK_MAX_ACK_BACKLOG).unwrap_or(u32::MAX);
    });
}

/// `tcp_v4_conn_request(sk, skb)`: a listening socket took the SYN.
#[inline(always)]
pub(super) fn conn_request(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(1)?)?;
    let flow = flow::of(&packet)?;
    tell(hook, &packet, &flow, ctx.arg(0)?);
    Some(())
}

/// `tcp_v4_send_reset(sk, skb)`: TCP refuses `skb`; without a socket nothing listened on the port.
#[inline(always)]
pub(super) fn send_reset(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(1)?)?;
    let flow = flow::of(&packet)?;
    tell(hook, &packet, &flow, ctx.arg(0)?);
    Some(())
}

/// `tcp_v4_syn_recv_sock(sk, skb, …)`: the ACK arrived at the listener and a connection was made.
#[inline(always)]
pub(super) fn syn_recv_sock(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(1)?)?;
    if Part::of(packet.flags) != Part::Ack {
        return None;
    }
    let flow = flow::known(&packet.tuple, packet.seq.wrapping_sub(1))?;
    tell(hook, &packet, &flow, ctx.arg(0)?);
    Some(())
}
