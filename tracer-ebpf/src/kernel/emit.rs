//! Writes records into the ring buffer.
//!
//! A record is filled in inside the ring buffer: the stack of a BPF program has 512 bytes.

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::RingBuf,
};
use tracer_common::{
    hook::Hook,
    record::{Header, OfKind, Phase, Record},
};
use zerocopy::{FromZeros, IntoBytes};

use super::{
    fields::{self, pointer, read},
    flow::FlowRef,
    lost,
    packet::Packet,
};

/// The ring buffer that carries all records to the user half. The loader may set another size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(16 * 1024 * 1024, 0);

/// Writes one record, or counts it as lost. `fill` gets header and payload as zeroes.
#[inline(always)]
pub(super) fn emit<P: OfKind + FromZeros + IntoBytes + 'static>(
    hook: Hook,
    fill: impl FnOnce(&mut Header, &mut P),
) {
    if !try_emit(fill) {
        lost::count(hook);
    }
}

/// Writes one record; `false` if there is no room for it.
#[inline(always)]
pub(super) fn try_emit<P: OfKind + FromZeros + IntoBytes + 'static>(
    fill: impl FnOnce(&mut Header, &mut P),
) -> bool {
    let Some(mut slot) = EVENTS.reserve::<Record<P>>(0) else {
        return false;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: the memory is reserved for this record alone, has its size and the alignment of the ring buffer's words,
    // and zeroes are a value of header and payload (`FromZeros`).
    let record = unsafe {
        fields::zero_words(record.cast(), Record::<P>::WORDS);
        &mut *record
    };
    fill(&mut record.header, &mut record.payload);
    record.header.kind = P::KIND as u8;
    slot.submit(0);
    true
}

/// Writes a record about a packet that has no payload.
#[inline(always)]
pub(super) fn packet(hook: Hook, packet: &Packet, flow: &FlowRef) {
    emit(hook, |header, (): &mut ()| describe(header, hook, packet, flow));
}

/// Fills in the header of a record about `packet` at a function's entry, with the packet's device.
#[inline(always)]
pub(super) fn describe(header: &mut Header, hook: Hook, packet: &Packet, flow: &FlowRef) {
    stamp(header, hook);
    header.flow = flow.flow;
    header.skb = packet.skb;
    header.tuple = packet.tuple;
    header.seq = packet.seq;
    header.ack = packet.ack;
    header.isn = flow.isn;
    header.tcp_flags = packet.flags;
    header.encapsulation = packet.encapsulation;
    header.outer_daddr = packet.outer_daddr;
    if let Some(device) = pointer(packet.skb, &fields::SK_BUFF_DEV) {
        set_device(header, device);
    }
}

/// Sets hook, time and CPU of a header, for a function's entry.
#[inline(always)]
pub(super) fn stamp(header: &mut Header, hook: Hook) {
    // SAFETY: the helpers take no pointers. The number of CPUs fits 16 bits (NR_CPUS is 8192 at most).
    unsafe {
        header.time_ns = bpf_ktime_get_ns();
        header.cpu = bpf_get_smp_processor_id() as u16;
    }
    header.hook = hook as u16;
    header.phase = Phase::Entry as u8;
    header.call = 0;
    header.verdict = 0;
}

/// Fills in device and network namespace from a `struct net_device`.
#[inline(always)]
pub(super) fn set_device(header: &mut Header, device: u64) {
    header.ifindex = read(device, &fields::NET_DEVICE_IFINDEX).unwrap_or(0);
    if let Some(name) = read(device, &fields::NET_DEVICE_NAME) {
        header.dev = name;
    }
    if let Some(net) = pointer(device, &fields::NET_DEVICE_NET) {
        header.netns = read(net, &fields::NET_INUM).unwrap_or(0);
    }
}

/// Fills in the network namespace from a `struct sock`, and clears the device: inside TCP, `skb->dev` shares its memory
/// with TCP's own bookkeeping.
#[inline(always)]
pub(super) fn set_socket_netns(header: &mut Header, sock: u64) {
    header.ifindex = 0;
    header.netns = 0;
    header.dev = [0; 16];
    if let Some(net) = pointer(sock, &fields::SOCK_NET) {
        header.netns = read(net, &fields::NET_INUM).unwrap_or(0);
    }
}
