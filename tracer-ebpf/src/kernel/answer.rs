//! Answers to connections that the node itself opens, which IPVS handles as requests.
//!
//! IPVS schedules a SYN-ACK like a SYN: `tcp_conn_schedule` does not look at the ACK flag
//! (`net/netfilter/ipvs/ip_vs_proto_tcp.c`, 3.10 to 7.3). So if a process opens a connection from a port that is also a
//! NodePort, the answer goes to a real server and never to the socket.
//!
//! Such a flow has the tuples of the connection that the node opens, and the sequence number of its SYN. It begins once IPVS
//! handles the answer, so other connections from such ports cost one entry in a map.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::LruHashMap};
use tracer_common::{
    flow_number::Origin,
    hook::Hook,
    record::{Header, OwnConnection, Phase},
    tcp::Part,
    tuple::Tuple,
};

use super::{
    emit::{self, emit},
    flow::{self, FlowRef},
    node,
    packet::Packet,
};

/// A connection that a socket of the node opened.
#[repr(C)]
#[derive(Clone, Copy)]
struct Opened {
    /// `bpf_ktime_get_ns()`.
    time_ns: u64,
    /// Initial sequence number of its SYN.
    isn: u32,
    /// Always 0.
    reserved: u32,
}

/// Connections that sockets of the node opened from traced ports, by the tuple of their SYN. The oldest are evicted first.
#[map]
static OPENED: LruHashMap<Tuple, Opened> = LruHashMap::with_max_entries(4096, 0);

/// Notes that a socket of the node opens a connection from a traced port.
#[inline(always)]
pub(super) fn note_opened(tuple: &Tuple, isn: u32) {
    let opened = Opened {
        // SAFETY: the helper takes no pointer.
        time_ns: unsafe { bpf_ktime_get_ns() },
        isn,
        reserved: 0,
    };
    let _ = OPENED.insert(tuple, &opened, 0);
}

/// The SYN that a packet answers, by tuple and sequence number, if it is a SYN-ACK to a traced port.
#[inline(always)]
fn answered(tuple: &Tuple, flags: u8, ack: u32) -> Option<(Tuple, u32)> {
    if Part::of(flags) != Part::SynAck || !flow::is_port_selected(tuple.dport) {
        return None;
    }
    Some((tuple.reversed(), ack.wrapping_sub(1)))
}

/// When the node sent the SYN with this tuple and sequence number; `None` if that was not seen.
#[inline(always)]
fn opened_ns(tuple: &Tuple, isn: u32) -> Option<u64> {
    // SAFETY: the value is plain bytes and is copied at once. Another CPU may evict the entry and reuse its memory in the
    // meantime; the sequence number is compared.
    let opened = unsafe { OPENED.get(tuple) }.copied()?;
    (opened.isn == isn).then_some(opened.time_ns)
}

/// The flow of a SYN-ACK that IPVS has handled as a request before.
#[inline(always)]
pub(super) fn known(packet: &Packet) -> Option<FlowRef> {
    let (tuple, isn) = answered(&packet.tuple, packet.flags, packet.ack)?;
    flow::known(&tuple, isn).filter(FlowRef::is_own_connection)
}

/// The flow of a SYN-ACK that IPVS may handle as a request; one without a number until IPVS does so.
#[inline(always)]
pub(super) fn candidate(packet: &Packet) -> Option<FlowRef> {
    let (tuple, isn) = answered(&packet.tuple, packet.flags, packet.ack)?;
    let known = flow::known(&tuple, isn).filter(FlowRef::is_own_connection);
    known.or_else(|| opened_ns(&tuple, isn).map(|_| FlowRef::unnumbered(isn)))
}

/// The flow of a SYN-ACK that IPVS handles as a request here. Begins one if there is none, and records that.
///
/// A client on the node whose own SYN goes to a traced port already has a flow. That flow gets this one record.
#[inline(always)]
pub(super) fn taken(hook: Hook, packet: &Packet) -> Option<FlowRef> {
    let (tuple, isn) = answered(&packet.tuple, packet.flags, packet.ack)?;
    begin(hook, &tuple, isn, |header, flow| {
        emit::describe(header, hook, packet, flow)
    })
}

/// Begins the flow of a call that was kept without one, now that IPVS handles the SYN-ACK as a request.
#[inline(always)]
pub(super) fn taken_in_call(hook: Hook, call: &mut Header) -> Option<()> {
    if call.flow == 0 {
        let (tuple, isn) = answered(&call.tuple, call.tcp_flags, call.ack)?;
        let flow = begin(hook, &tuple, isn, |header, flow| {
            *header = *call;
            header.flow = flow.flow;
            header.phase = Phase::Entry as u8;
            header.call = 0;
            header.verdict = 0;
        })?;
        call.flow = flow.flow;
    }
    Some(())
}

#[inline(always)]
fn begin(
    hook: Hook,
    tuple: &Tuple,
    isn: u32,
    describe: impl FnOnce(&mut Header, &FlowRef),
) -> Option<FlowRef> {
    let known = flow::known(tuple, isn);
    if known.as_ref().is_some_and(FlowRef::is_own_connection) {
        return known;
    }
    let opened_ns = opened_ns(tuple, isn)?;
    let flow = match known {
        Some(flow) => flow,
        None => flow::begin_own_connection(hook, tuple, isn, Origin::Kprobe)?,
    };
    emit(hook, |header, out: &mut OwnConnection| {
        describe(header, &flow);
        // A SYN-ACK of the node itself has no device yet.
        header.netns = node::netns();
        out.opened_ns = opened_ns;
    });
    known.is_none().then_some(flow)
}
