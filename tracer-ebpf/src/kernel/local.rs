//! Clients on the node itself. Their SYN arrives from no device, and NAT rules may change its destination before it leaves:
//! only the socket knows which address the client connects to.
//!
//! All of these run once per connection, or only for a retransmission or a refusal.

use aya_ebpf::programs::{ProbeContext, RawTracePointContext};
use tracer_common::{
    flow_number::Origin,
    hook::Hook,
    tcp::{RST, SYN},
    tuple::{Addr, Tuple},
    uapi::{self, TCP_SYN_SENT},
};

use super::{
    answer,
    emit::{self, emit},
    fields::{self, pointer, read},
    flow::{self, FlowRef},
    node,
    packet::{self, Packet},
};

/// Values of `sock.skc_family`.
const AF_INET: u16 = uapi::AF_INET as u16;
const AF_INET6: u16 = uapi::AF_INET6 as u16;

/// Whether the socket is in the node's network namespace, not in a pod's.
#[inline(always)]
fn is_on_node(sock: u64) -> bool {
    let node = node::netns();
    node != 0 && pointer(sock, &fields::SOCK_NET).and_then(|net| read(net, &fields::NET_INUM)) == Some(node)
}

/// The addresses and ports of the socket's connection, if it goes to a traced port.
#[inline(always)]
fn tuple_of(sock: u64) -> Option<Tuple> {
    let dport = u16::from_be(read(sock, &fields::SOCK_DPORT)?);
    if !flow::is_port_selected(dport) {
        return None;
    }
    tuple_to(sock, dport)
}

/// The addresses and ports of the socket's connection, which goes to port `dport`.
#[inline(always)]
fn tuple_to(sock: u64, dport: u16) -> Option<Tuple> {
    let (saddr, daddr) = match read::<u16>(sock, &fields::SOCK_FAMILY)? {
        AF_INET => (
            Addr::v4_word(read(sock, &fields::SOCK_RCV_SADDR)?),
            Addr::v4_word(read(sock, &fields::SOCK_DADDR)?),
        ),
        // For an IPv4 connection an IPv6 socket has mapped addresses, as `Addr` does.
        AF_INET6 => (
            Addr(read(sock, &fields::SOCK_V6_RCV_SADDR)?),
            Addr(read(sock, &fields::SOCK_V6_DADDR)?),
        ),
        _ => return None,
    };
    Some(Tuple {
        saddr,
        daddr,
        sport: read(sock, &fields::SOCK_NUM)?,
        dport,
    })
}

/// Records a packet with the network namespace of its socket.
#[inline(always)]
fn emit_packet(hook: Hook, sock: u64, packet: &Packet, flow: &FlowRef) {
    emit(hook, |header, (): &mut ()| {
        emit::describe(header, hook, packet, flow);
        emit::set_socket_netns(header, sock);
    });
}

/// `tcp_connect(sk)`: the first SYN is about to be built. Addresses, ports and sequence number are final.
#[inline(always)]
pub(super) fn connect(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let sock: u64 = ctx.arg(0)?;
    let dport = u16::from_be(read(sock, &fields::SOCK_DPORT)?);
    let from_traced = flow::is_port_selected(read(sock, &fields::SOCK_NUM)?);
    if !from_traced && !flow::is_port_selected(dport) || !is_on_node(sock) {
        return None;
    }
    let tuple = tuple_to(sock, dport)?;
    let packet = Packet::without_skb(tuple, read(sock, &fields::TCP_SOCK_WRITE_SEQ)?, SYN);
    if from_traced {
        answer::note_opened(&packet.tuple, packet.seq);
    }
    let flow = flow::of_request(hook, &packet, Origin::Kprobe)?;
    emit_packet(hook, sock, &packet, &flow);
    Some(())
}

/// The tuple, SYN sequence number and flow of a socket on the node that is still waiting for an answer to its SYN.
#[inline(always)]
fn waiting(sock: u64) -> Option<(Tuple, u32, FlowRef)> {
    if read::<u8>(sock, &fields::SOCK_STATE)? != TCP_SYN_SENT {
        return None;
    }
    let tuple = tuple_of(sock)?;
    if !is_on_node(sock) {
        return None;
    }
    let isn = read(sock, &fields::TCP_SOCK_SND_UNA)?;
    let flow = flow::known(&tuple, isn)?;
    Some((tuple, isn, flow))
}

/// `tcp:tcp_retransmit_skb(sk, skb)`: a SYN is retransmitted.
#[inline(always)]
pub(super) fn retransmit(hook: Hook, ctx: &RawTracePointContext) -> Option<()> {
    let sock: u64 = ctx.arg(0);
    let (tuple, isn, flow) = waiting(sock)?;
    emit_packet(hook, sock, &Packet::without_skb(tuple, isn, SYN), &flow);
    Some(())
}

/// `tcp:tcp_receive_reset(sk)`: the client receives a RST.
#[inline(always)]
pub(super) fn reset(hook: Hook, ctx: &RawTracePointContext) -> Option<()> {
    let sock: u64 = ctx.arg(0);
    let (tuple, _, flow) = waiting(sock)?;
    emit_packet(hook, sock, &Packet::without_skb(tuple.reversed(), 0, RST), &flow);
    Some(())
}

/// `tcp_finish_connect(sk, skb)`: the client accepts the SYN-ACK `skb`.
#[inline(always)]
pub(super) fn finish(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let sock: u64 = ctx.arg(0)?;
    let packet = packet::parse(ctx.arg(1)?)?;
    let flow = flow::of(&packet)?;
    if !is_on_node(sock) || !flow.is_original() {
        return None;
    }
    emit_packet(hook, sock, &packet, &flow);
    Some(())
}
