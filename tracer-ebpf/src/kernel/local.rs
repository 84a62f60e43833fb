//! Clients on the node itself. Their SYN comes in by no device, and with NAT by rules it leaves with another
//! destination: only their sockets know what they asked for.
//!
//! All of these run once a connection, or only when something is repeated or refused.

use aya_ebpf::{
    Global,
    programs::{ProbeContext, RawTracePointContext},
};
use tracer_common::{
    hook::Hook,
    tcp::{RST, SYN},
    tuple::{Addr, Tuple},
};

use super::{
    emit::{self, emit},
    fields::{self, pointer, read},
    flow::{self, FlowRef},
    packet::{self, Packet},
};

/// Inode number of the node's network namespace, set by the loader; 0 if it is not known: then no client is taken for
/// one on the node.
#[unsafe(no_mangle)]
static NODE_NETNS: Global<u32> = Global::new(0);

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `TCP_SYN_SENT` (`include/net/tcp_states.h`).
const SYN_SENT: u8 = 2;

/// Is it a socket of the node, and not of a pod?
#[inline(always)]
fn is_on_node(sock: u64) -> bool {
    let node = NODE_NETNS.load();
    node != 0 && pointer(sock, &fields::SOCK_NET).and_then(|net| read(net, &fields::NET_INUM)) == Some(node)
}

/// Where the socket connects from and to.
#[inline(always)]
fn tuple_of(sock: u64) -> Option<Tuple> {
    let dport = u16::from_be(read(sock, &fields::SOCK_DPORT)?);
    if !flow::is_port_selected(dport) {
        return None;
    }
    let (saddr, daddr) = match read::<u16>(sock, &fields::SOCK_FAMILY)? {
        AF_INET => (
            Addr::v4_word(read(sock, &fields::SOCK_RCV_SADDR)?),
            Addr::v4_word(read(sock, &fields::SOCK_DADDR)?),
        ),
        // Mapped addresses are what an IPv6 socket has for an IPv4 connection.
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

#[inline(always)]
fn tell(hook: Hook, sock: u64, packet: &Packet, flow: &FlowRef) {
    emit(hook, |header, (): &mut ()| {
        emit::describe(header, hook, packet, flow);
        emit::set_socket_netns(header, sock);
    });
}

/// `tcp_connect(sk)`: the first SYN is about to be made. Address, ports and sequence number are settled.
#[inline(always)]
pub(super) fn connect(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let sock: u64 = ctx.arg(0)?;
    let tuple = tuple_of(sock)?;
    if !is_on_node(sock) {
        return None;
    }
    let packet = Packet::without_skb(tuple, read(sock, &fields::TCP_SOCK_WRITE_SEQ)?, SYN);
    let flow = flow::of_request(&packet)?;
    tell(hook, sock, &packet, &flow);
    Some(())
}

/// The flow of a socket on the node that still waits for an answer to its SYN, and the SYN's number.
#[inline(always)]
fn waiting(sock: u64) -> Option<(Tuple, u32, FlowRef)> {
    if read::<u8>(sock, &fields::SOCK_STATE)? != SYN_SENT {
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

/// `tcp:tcp_retransmit_skb(sk, skb)`: a SYN is sent again.
#[inline(always)]
pub(super) fn retransmit(hook: Hook, ctx: &RawTracePointContext) -> Option<()> {
    let sock: u64 = ctx.arg(0);
    let (tuple, isn, flow) = waiting(sock)?;
    tell(hook, sock, &Packet::without_skb(tuple, isn, SYN), &flow);
    Some(())
}

/// `tcp:tcp_receive_reset(sk)`: the client is told no.
#[inline(always)]
pub(super) fn reset(hook: Hook, ctx: &RawTracePointContext) -> Option<()> {
    let sock: u64 = ctx.arg(0);
    let (tuple, _, flow) = waiting(sock)?;
    tell(hook, sock, &Packet::without_skb(tuple.reversed(), 0, RST), &flow);
    Some(())
}

/// `tcp_finish_connect(sk, skb)`: the client takes the SYN-ACK `skb`.
#[inline(always)]
pub(super) fn finish(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let sock: u64 = ctx.arg(0)?;
    let packet = packet::parse(ctx.arg(1)?)?;
    let flow = flow::of(&packet)?;
    if !is_on_node(sock) || !flow.is_original() {
        return None;
    }
    tell(hook, sock, &packet, &flow);
    Some(())
}
