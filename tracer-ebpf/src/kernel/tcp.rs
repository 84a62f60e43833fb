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

/// The packet, and none if it is not of the function's family. A socket of IPv6 can take IPv4 packets too: then its
/// function hands them on to that of IPv4, which is where they are told.
#[inline(always)]
fn of_own_family(hook: Hook, skb: u64) -> Option<Packet> {
    let packet = packet::parse(skb)?;
    (hook.ipv4_twin().is_some() == packet.tuple.is_v6()).then_some(packet)
}

/// `tcp_v4_conn_request(sk, skb)`, `tcp_v6_conn_request` alike: a listening socket took the SYN.
#[inline(always)]
pub(super) fn conn_request(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = of_own_family(hook, ctx.arg(1)?)?;
    let flow = flow::of(&packet)?;
    tell(hook, &packet, &flow, ctx.arg(0)?);
    Some(())
}

/// `tcp_v4_send_reset(sk, skb)`, `tcp_v6_send_reset` alike: TCP refuses `skb`; without a socket nothing listened on the port.
#[inline(always)]
pub(super) fn send_reset(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = of_own_family(hook, ctx.arg(1)?)?;
    let flow = flow::of(&packet)?;
    tell(hook, &packet, &flow, ctx.arg(0)?);
    Some(())
}

/// `tcp_v4_syn_recv_sock(sk, skb, …)`, `tcp_v6_syn_recv_sock` alike: the ACK arrived at the listener and a connection was made.
#[inline(always)]
pub(super) fn syn_recv_sock(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = of_own_family(hook, ctx.arg(1)?)?;
    if Part::of(packet.flags) != Part::Ack {
        return None;
    }
    let flow = flow::known(&packet.tuple, packet.seq.wrapping_sub(1))?;
    tell(hook, &packet, &flow, ctx.arg(0)?);
    Some(())
}
