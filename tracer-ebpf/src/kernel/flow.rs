//! Which packets are ours: the flows that are followed, by every tuple under which they are seen.
//!
//! A flow is known by its tuples in the direction of the SYN: as the client sent it, after DNAT, after masquerade.
//! An answer is looked up by its reversed tuple. The initial sequence number goes unchanged through NAT and is
//! compared each time, so a tuple that was used again, or that two flows pass through, joins nothing wrongly: a
//! packet that does not fit is left out.

use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
};
use tracer_common::{tcp::Part, tuple::Tuple};

use super::packet::Packet;

/// A flow as one of its tuples leads to it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct FlowRef {
    /// Number of the flow, unique while the object is loaded.
    pub(super) flow: u64,
    /// Initial sequence number of its SYN.
    pub(super) isn: u32,
    /// 1 for the tuple that the client sent, 0 for one made by NAT.
    original: u16,
    /// 1 once the ACK that ends the handshake came in: the rest of the connection is not looked at.
    finished: u16,
}

impl FlowRef {
    /// Was the flow found by the tuple that the client sent?
    #[inline(always)]
    pub(super) fn is_original(&self) -> bool {
        self.original != 0
    }
}

/// Bounded: the oldest flows are forgotten first.
#[map]
static FLOWS: LruHashMap<Tuple, FlowRef> = LruHashMap::with_max_entries(131_072, 0);

/// A SYN, whichever of its copies.
#[repr(C)]
#[derive(Clone, Copy)]
struct Syn {
    tuple: Tuple,
    isn: u32,
}

/// The numbers of the flows that SYNs have begun. Copies of one SYN can come in on two CPUs at once, and only the first to
/// write here begins a flow. What is older than some thousand SYNs is forgotten.
#[map]
static SYNS: LruHashMap<Syn, u64> = LruHashMap::with_max_entries(16_384, 0);

/// Bit set of the destination ports that are followed; set by the loader.
#[map]
static PORTS: Array<u64> = Array::with_max_entries(1024, 0);

/// Client networks, as mapped IPv6 prefixes: 1 for those that are followed, 0 for what is left out of a wider one.
/// Looked at only if [`CLIENT_FILTER`] is set.
#[map]
static CLIENTS: LpmTrie<[u32; 4], u8> = LpmTrie::with_max_entries(256, 1);

/// 1 if only the clients in [`CLIENTS`] are followed.
#[unsafe(no_mangle)]
static CLIENT_FILTER: Global<u32> = Global::new(0);

/// The number of flows that each CPU has begun.
#[map]
static BEGUN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The flow of a packet that is part of a handshake.
#[inline(always)]
pub(super) fn of(packet: &Packet) -> Option<FlowRef> {
    match Part::of(packet.flags) {
        Part::Syn => known(&packet.tuple, packet.seq),
        Part::SynAck => known(&packet.tuple.reversed(), packet.ack.wrapping_sub(1)),
        Part::Rst => known(&packet.tuple.reversed(), packet.ack.wrapping_sub(1))
            .or_else(|| known(&packet.tuple, packet.seq.wrapping_sub(1))),
        Part::Ack | Part::Other => None,
    }
}

/// The flow of a packet that comes in: a SYN to a followed port begins one, and the client's ACK ends the work.
#[inline(always)]
pub(super) fn of_arrival(packet: &Packet) -> Option<FlowRef> {
    match Part::of(packet.flags) {
        Part::Syn => of_request(packet),
        Part::Ack => finish(packet),
        _ => of(packet),
    }
}

/// The flow of a SYN, begun if its port is followed. Only for hooks that see the SYN as the client sent it.
#[inline(always)]
pub(super) fn of_request(packet: &Packet) -> Option<FlowRef> {
    // SAFETY: the entry is copied at once.
    if let Some(found) = unsafe { FLOWS.get(&packet.tuple) } {
        if found.isn == packet.seq {
            return Some(*found);
        }
        if found.original == 0 {
            return None;
        }
    }
    if !is_selected(&packet.tuple) {
        return None;
    }
    let flow = FlowRef {
        flow: next_number()?,
        isn: packet.seq,
        original: 1,
        finished: 0,
    };
    let syn = Syn {
        tuple: packet.tuple,
        isn: packet.seq,
    };
    if SYNS.insert(&syn, &flow.flow, u64::from(BPF_NOEXIST)).is_ok() {
        FLOWS.insert(&packet.tuple, &flow, 0).ok()?;
        return Some(flow);
    }
    // SAFETY: the entry is copied at once.
    let number = unsafe { SYNS.get(&syn) }.copied()?;
    let flow = FlowRef { flow: number, ..flow };
    // Either another CPU is about to say whose the tuple is, or a later flow has it by now: it stays with that one. But of
    // many flows this one's tuple may have been forgotten.
    let _ = FLOWS.insert(&packet.tuple, &flow, u64::from(BPF_NOEXIST));
    Some(flow)
}

/// A number for a flow that begins.
#[inline(always)]
fn next_number() -> Option<u64> {
    let begun = BEGUN.get_ptr_mut(0)?;
    // SAFETY: the entry belongs to this CPU, and a value lost to an interrupt only skips a number.
    let number = unsafe {
        *begun += 1;
        *begun
    };
    // SAFETY: the helper takes no pointer.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    Some(cpu << 48 | number)
}

/// Is this packet a SYN that asks for a connection?
#[inline(always)]
pub(super) fn is_request(packet: &Packet) -> bool {
    Part::of(packet.flags) == Part::Syn
}

/// Makes `tuple`, in the direction of the SYN, another name of the flow.
#[inline(always)]
pub(super) fn alias(tuple: &Tuple, flow: &FlowRef) {
    // SAFETY: the entry is only compared.
    if let Some(known) = unsafe { FLOWS.get(tuple) }
        && known.flow == flow.flow
    {
        return;
    }
    let _ = FLOWS.insert(tuple, &FlowRef { original: 0, ..*flow }, 0);
}

/// The flow with this tuple, in the direction of the SYN, and this initial sequence number.
#[inline(always)]
pub(super) fn known(tuple: &Tuple, isn: u32) -> Option<FlowRef> {
    // SAFETY: the entry is copied at once.
    unsafe { FLOWS.get(tuple) }
        .filter(|found| found.isn == isn)
        .copied()
}

/// The flow whose handshake this packet may end: an ACK with the first sequence number behind the SYN's.
#[inline(always)]
pub(super) fn of_ack(packet: &Packet) -> Option<FlowRef> {
    if Part::of(packet.flags) != Part::Ack {
        return None;
    }
    known(&packet.tuple, packet.seq.wrapping_sub(1))
}

/// The flow that was begun last with this tuple, as long as its handshake goes on. For hooks that see no packet.
#[inline(always)]
pub(super) fn latest(tuple: &Tuple) -> Option<FlowRef> {
    // SAFETY: the entry is copied at once.
    unsafe { FLOWS.get(tuple) }
        .filter(|found| found.original != 0 && found.finished == 0)
        .copied()
}

#[inline(always)]
fn finish(packet: &Packet) -> Option<FlowRef> {
    // Most packets of a busy node are ACKs: those to other ports must cost no more than this.
    if !is_port_selected(packet.tuple.dport) {
        return None;
    }
    let found = FLOWS.get_ptr_mut(&packet.tuple)?;
    // SAFETY: the pointer is valid until the program ends.
    let found = unsafe { &mut *found };
    if found.original == 0 || found.finished != 0 || found.isn != packet.seq.wrapping_sub(1) {
        return None;
    }
    found.finished = 1;
    Some(*found)
}

/// Is this a destination port that is followed?
#[inline(always)]
pub(super) fn is_port_selected(port: u16) -> bool {
    PORTS
        .get(u32::from(port >> 6))
        .is_some_and(|word| word >> (port & 63) & 1 == 1)
}

#[inline(always)]
fn is_selected(tuple: &Tuple) -> bool {
    is_port_selected(tuple.dport)
        && (CLIENT_FILTER.load() == 0
            || CLIENTS
                .get(&Key::new(128, tuple.saddr.0))
                .is_some_and(|&followed| followed != 0))
}
