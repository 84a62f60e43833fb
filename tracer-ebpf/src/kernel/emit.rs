//! Records into the ring buffer, and the count of those that did not fit.
//!
//! A record is filled in where it lies: the stack of a BPF program has 512 bytes.

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use tracer_common::{
    hook::{Hook, NUMBERS},
    record::{Header, Payload, Phase, Record},
};

use super::{
    fields::{self, pointer, read},
    flow::FlowRef,
    packet::Packet,
};

/// Everything that goes to the user half. The loader may set another size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(16 * 1024 * 1024, 0);

/// Records that did not fit, by hook and CPU.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(NUMBERS, 0);

/// Writes one record, or counts it as lost. `fill` gets header and payload all zeroes.
#[inline(always)]
pub(super) fn emit<P: Payload + 'static>(hook: Hook, fill: impl FnOnce(&mut Header, &mut P)) {
    let Some(mut slot) = EVENTS.reserve::<Record<P>>(0) else {
        if let Some(lost) = LOST.get_ptr_mut(hook as u32) {
            // SAFETY: the entry belongs to this CPU.
            unsafe { *lost += 1 };
        }
        return;
    };
    let record = slot.as_mut_ptr();
    const { assert!(size_of::<Record<P>>().is_multiple_of(8)) };
    // SAFETY: the memory is reserved for this record alone, in the ring buffer's words, and zeroes are a value of every
    // header and payload.
    let record = unsafe {
        fields::zero_words(record.cast(), size_of::<Record<P>>() / 8);
        &mut *record
    };
    fill(&mut record.header, &mut record.payload);
    record.header.kind = P::KIND as u8;
    slot.submit(0);
}

/// A record about a packet of which the header says all.
#[inline(always)]
pub(super) fn packet(hook: Hook, packet: &Packet, flow: &FlowRef) {
    emit(hook, |header, (): &mut ()| describe(header, hook, packet, flow));
}

/// Fills in the front of a record about `packet`, made at a function's entry, with the packet's device.
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

/// Makes a header one of `hook`, here and now.
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

/// Fills in the network namespace from a `struct sock`, and forgets the device: inside TCP, `skb->dev` shares its
/// place with TCP's own bookkeeping.
#[inline(always)]
pub(super) fn set_socket_netns(header: &mut Header, sock: u64) {
    header.ifindex = 0;
    header.netns = 0;
    header.dev = [0; 16];
    if let Some(net) = pointer(sock, &fields::SOCK_NET) {
        header.netns = read(net, &fields::NET_INUM).unwrap_or(0);
    }
}
