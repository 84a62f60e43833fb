//! The backend's TCP, when the backend is on this node.

use aya_ebpf::programs::ProbeContext;
use tracer_common::{
    hook::Hook,
    record::{Kind, Socket},
    tcp::Part,
};

use super::{
    emit::{self, emit},
    fields::{self, read},
    flow, packet,
};

#[inline(always)]
fn read_socket(sock: u64) -> Socket {
    Socket {
        sock,
        ack_backlog: read(sock, &fields::SOCK_ACK_BACKLOG).unwrap_or(u32::MAX),
        max_ack_backlog: read(sock, &fields::SOCK_MAX_ACK_BACKLOG).unwrap_or(u32::MAX),
    }
}

/// `tcp_v4_conn_request(sk, skb)`: a listening socket took the SYN.
#[inline(always)]
pub(super) fn conn_request(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let sock: u64 = ctx.arg(0)?;
    let packet = packet::parse(ctx.arg(1)?)?;
    let flow = flow::of(&packet)?;
    let mut header = emit::header(hook, &packet, &flow);
    // skb->dev shares its place with TCP's own bookkeeping by now.
    emit::clear_device(&mut header);
    emit::set_socket_netns(&mut header, sock);
    emit(&header, Kind::Socket, read_socket(sock));
    Some(())
}

/// `tcp_v4_send_reset(sk, skb)`: TCP refuses `skb`; without a socket nothing listened on the port.
#[inline(always)]
pub(super) fn send_reset(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let sock: u64 = ctx.arg(0)?;
    let packet = packet::parse(ctx.arg(1)?)?;
    let flow = flow::of(&packet)?;
    let mut header = emit::header(hook, &packet, &flow);
    if sock != 0 {
        emit::clear_device(&mut header);
        emit::set_socket_netns(&mut header, sock);
    }
    emit(
        &header,
        Kind::Socket,
        Socket {
            sock,
            ..Socket::default()
        },
    );
    Some(())
}

/// `tcp_v4_syn_recv_sock(sk, skb, …)`: the ACK arrived at the listener and a connection was made.
#[inline(always)]
pub(super) fn syn_recv_sock(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let sock: u64 = ctx.arg(0)?;
    let packet = packet::parse(ctx.arg(1)?)?;
    if Part::of(packet.flags) != Part::Ack {
        return None;
    }
    let flow = flow::known(&packet.tuple, packet.seq.wrapping_sub(1))?;
    let mut header = emit::header(hook, &packet, &flow);
    emit::clear_device(&mut header);
    emit::set_socket_netns(&mut header, sock);
    emit(&header, Kind::Socket, read_socket(sock));
    Some(())
}
