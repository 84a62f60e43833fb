//! The traced flows, by every tuple under which their packets appear.
//!
//! A flow is known by its tuples in the direction of the SYN: as the client sent it, after DNAT, after masquerade.
//! An answer is looked up by its reversed tuple. NAT does not change the initial sequence number, and it is compared
//! each time. So a tuple that is reused, or that two flows share, adds no packet to the wrong flow: a packet that does
//! not match is ignored.

use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
};
use tracer_common::{
    flow_number::{self, Origin},
    flow_table::{Count, ENTRIES},
    hook::Hook,
    lost::Counter,
    proof,
    tcp::Part,
    tuple::Tuple,
};

use super::{lost, packet::Packet};

/// The flow of a tuple: the value in [`FLOWS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct FlowRef {
    /// Number of the flow, unique while the object is loaded.
    pub(super) flow: u64,
    /// Initial sequence number of its SYN.
    pub(super) isn: u32,
    /// Bits of [`mark`].
    marks: u16,
    /// [`Self::finished_mark`] once the ACK that ends the handshake arrived: the rest of the connection is ignored. 0
    /// before that.
    finished: u16,
}

/// Marks of a [`FlowRef`].
mod mark {
    /// The tuple is the one that the client sent, not one made by NAT.
    pub(super) const ORIGINAL: u16 = 1;
    /// The node itself opened the connection, and IPVS handles the answer as a request: see [`super::super::answer`].
    pub(super) const OWN_CONNECTION: u16 = 2;
}

impl FlowRef {
    /// Whether the flow was found by the tuple that the client sent.
    #[inline(always)]
    pub(super) fn is_original(&self) -> bool {
        self.marks & mark::ORIGINAL != 0
    }

    /// Whether the node itself opened the connection, and IPVS handles the answer as a request.
    #[inline(always)]
    pub(super) fn is_own_connection(&self) -> bool {
        self.marks & mark::OWN_CONNECTION != 0
    }

    /// A flow that has not begun, for a connection that the node opened.
    #[inline(always)]
    pub(super) fn unnumbered(isn: u32) -> Self {
        Self {
            flow: 0,
            isn,
            marks: mark::ORIGINAL | mark::OWN_CONNECTION,
            finished: 0,
        }
    }

    /// The mark of a finished handshake, never 0. It is made of the flow's sequence number: the entry may be removed and
    /// its memory reused just before the mark is written, and there it must not finish another flow.
    #[inline(always)]
    fn finished_mark(&self) -> u16 {
        (self.isn ^ self.isn >> 16) as u16 | 1
    }

    #[inline(always)]
    fn is_finished(&self) -> bool {
        self.finished == self.finished_mark()
    }
}

/// Flows by tuple. Bounded, and nothing is displaced: the user half removes entries of flows that are over. The loader may set
/// another size.
#[map]
static FLOWS: HashMap<Tuple, FlowRef> = HashMap::with_max_entries(ENTRIES, 0);

/// What was added to [`FLOWS`], and what found no room there, by [`Count`].
#[map]
static FLOW_COUNTS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(Count::COUNT, 0);

/// Adds one to a counter of the table.
#[inline(always)]
fn count(what: Count) {
    if let Some(counter) = FLOW_COUNTS.get_ptr_mut(what as u32) {
        // SAFETY: the value is this CPU's, aligned, and valid while the program runs.
        unsafe { tracer_common::lost::count(counter, || ()) };
    }
}

/// A SYN and all copies of it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Syn {
    tuple: Tuple,
    isn: u32,
}

/// Flow numbers by SYN. Copies of one SYN can arrive on two CPUs at the same time, and only the first to write here begins
/// a flow. The oldest entries are evicted first.
#[map]
static SYNS: LruHashMap<Syn, u64> = LruHashMap::with_max_entries(16_384, 0);

/// Bit set of the traced destination ports; set by the loader.
#[map]
static PORTS: Array<u64> = Array::with_max_entries(1024, 0);

/// Client networks as mapped IPv6 prefixes: 1 for those that are traced, 0 for an exception inside a wider one. Used only
/// if [`CLIENT_FILTER`] is set.
#[map]
static CLIENTS: LpmTrie<[u32; 4], u8> = LpmTrie::with_max_entries(256, 1);

/// 1 if only the clients in [`CLIENTS`] are traced.
#[unsafe(no_mangle)]
static CLIENT_FILTER: Global<u32> = Global::new(0);

/// How many flows each CPU has begun, by [`Origin`].
#[map]
static BEGUN: PerCpuArray<u64> = PerCpuArray::with_max_entries(Origin::COUNT, 0);

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

/// The flow of a packet that arrives from a device: a SYN to a traced port begins one, and the client's ACK finishes it.
#[inline(always)]
pub(super) fn of_arrival(hook: Hook, packet: &Packet) -> Option<FlowRef> {
    match Part::of(packet.flags) {
        Part::Syn => of_request(hook, packet, Origin::Tracepoint),
        Part::Ack => finish(packet),
        _ => of(packet),
    }
}

/// The flow of a SYN; begins one if its port is traced. Only for hooks that see the SYN as the client sent it. A SYN for which
/// the maps have no room counts as lost at `hook`.
#[inline(always)]
pub(super) fn of_request(hook: Hook, packet: &Packet, origin: Origin) -> Option<FlowRef> {
    if let Some(found) = flow_at(&packet.tuple) {
        if found.isn == packet.seq {
            return Some(found);
        }
        if !found.is_original() {
            return None;
        }
    }
    if !is_selected(&packet.tuple) {
        return None;
    }
    begin(hook, &packet.tuple, packet.seq, mark::ORIGINAL, origin)
}

/// Begins the flow of a connection that the node opens, if its port is traced and its peer is selected as a client.
#[inline(always)]
pub(super) fn begin_own_connection(hook: Hook, tuple: &Tuple, isn: u32, origin: Origin) -> Option<FlowRef> {
    if !is_selected(&tuple.reversed()) {
        return None;
    }
    begin(hook, tuple, isn, mark::ORIGINAL | mark::OWN_CONNECTION, origin)
}

/// Begins the flow of the SYN with this tuple and sequence number.
#[inline(always)]
fn begin(hook: Hook, tuple: &Tuple, isn: u32, marks: u16, origin: Origin) -> Option<FlowRef> {
    let flow = FlowRef {
        flow: next_number(origin)?,
        isn,
        marks,
        finished: 0,
    };
    let syn = Syn { tuple: *tuple, isn };
    if SYNS.insert(&syn, &flow.flow, u64::from(BPF_NOEXIST)).is_ok() {
        return admit(hook, tuple, flow, 0);
    }
    // SAFETY: the value is one aligned word and is copied at once.
    let Some(number) = unsafe { SYNS.get(&syn) }.copied() else {
        lost::count(hook);
        return None;
    };
    let flow = FlowRef { flow: number, ..flow };
    // Another CPU is about to write the entry of the tuple, or a later flow has it by now: both keep it. It is missing only
    // if it was removed, or found no room.
    if flow_at(tuple).is_some() {
        return Some(flow);
    }
    admit(hook, tuple, flow, u64::from(BPF_NOEXIST))
}

/// Adds a flow to the table. One for which there is no room counts as lost at `hook`.
#[inline(always)]
fn admit(hook: Hook, tuple: &Tuple, flow: FlowRef, flags: u64) -> Option<FlowRef> {
    if FLOWS.insert(tuple, &flow, flags).is_ok() {
        count(Count::Added);
        return Some(flow);
    }
    if flags != 0 && flow_at(tuple).is_some() {
        return Some(flow);
    }
    count(Count::FlowRefused);
    lost::count(hook);
    None
}

/// The number of a new flow.
#[inline(always)]
fn next_number(origin: Origin) -> Option<u64> {
    let begun = BEGUN.get_ptr_mut(origin as u32)?;
    // SAFETY: the value is this CPU's, and nothing that interrupts this program writes it: see `Origin`.
    let value = unsafe {
        *begun += 1;
        *begun
    };
    // SAFETY: the helper takes no pointer.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    Some(flow_number::of(cpu, origin, value))
}

/// The flow that has this tuple now.
#[inline(always)]
fn flow_at(tuple: &Tuple) -> Option<FlowRef> {
    // SAFETY: the value is plain bytes and is copied at once. The entry may be removed and its memory reused in the meantime;
    // callers compare the sequence number.
    unsafe { FLOWS.get(tuple) }.copied()
}

/// Whether this packet is a SYN without ACK.
#[inline(always)]
pub(super) fn is_request(packet: &Packet) -> bool {
    Part::of(packet.flags) == Part::Syn
}

/// Makes `tuple`, in the direction of the SYN, an alias of the flow. If there is no room, what follows under that tuple is not
/// seen: it counts as lost at `hook`.
#[inline(always)]
pub(super) fn alias(hook: Hook, tuple: &Tuple, flow: &FlowRef) {
    if flow_at(tuple).is_some_and(|known| known.flow == flow.flow) {
        return;
    }
    let alias = FlowRef {
        marks: flow.marks & !mark::ORIGINAL,
        ..*flow
    };
    if FLOWS.insert(tuple, &alias, 0).is_ok() {
        count(Count::Added);
    } else {
        count(Count::AliasRefused);
        lost::count(hook);
    }
}

/// The flow with this tuple, in the direction of the SYN, and this initial sequence number.
#[inline(always)]
pub(super) fn known(tuple: &Tuple, isn: u32) -> Option<FlowRef> {
    flow_at(tuple).filter(|found| found.isn == isn)
}

/// The flow whose handshake this packet may end: an ACK with the first sequence number after the SYN's.
#[inline(always)]
pub(super) fn of_ack(packet: &Packet) -> Option<FlowRef> {
    if Part::of(packet.flags) != Part::Ack {
        return None;
    }
    known(&packet.tuple, packet.seq.wrapping_sub(1))
}

/// The latest flow with this tuple, until its handshake is finished. For hooks that have no packet.
#[inline(always)]
pub(super) fn latest(tuple: &Tuple) -> Option<FlowRef> {
    flow_at(tuple).filter(|found| found.is_original() && !found.is_finished())
}

#[inline(always)]
fn finish(packet: &Packet) -> Option<FlowRef> {
    // Most packets of a busy node are ACKs: those to other ports must cost no more than this.
    if !is_port_selected(packet.tuple.dport) {
        return None;
    }
    let entry = FLOWS.get_ptr_mut(&packet.tuple)?;
    // SAFETY: the value is plain bytes, valid while the program runs, and is copied at once.
    let mut found = unsafe { *entry };
    if !found.is_original() || found.is_finished() || found.isn != packet.seq.wrapping_sub(1) {
        return None;
    }
    found.finished = found.finished_mark();
    // SAFETY: as above; an aligned 16-bit word. What it means to another flow that has the memory by now: see
    // `finished_mark`.
    unsafe { (&raw mut (*entry).finished).write_volatile(found.finished) };
    Some(found)
}

/// Whether this destination port is traced.
#[inline(always)]
pub(super) fn is_port_selected(port: u16) -> bool {
    PORTS
        .get(u32::from(port >> 6))
        .is_some_and(|word| word >> (port & 63) & 1 == 1)
}

/// Whether connections with this tuple, as their client sends it, are traced.
#[inline(always)]
fn is_selected(tuple: &Tuple) -> bool {
    is_port_selected(tuple.dport)
        && !proof::is_request(tuple)
        && (CLIENT_FILTER.load() == 0
            || CLIENTS
                .get(&Key::new(128, tuple.saddr.0))
                .is_some_and(|&traced| traced != 0))
}
