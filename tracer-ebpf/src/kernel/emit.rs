//! Records into the ring buffer, and the count of those that did not fit.

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_kernel_buf},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use tracer_common::{
    hook::{Hook, NUMBERS},
    record::{Header, Kind, Phase, RawConn, Record},
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

/// The front of a record about `packet`, made at a function's entry, with the packet's device.
#[inline(always)]
pub(super) fn header(hook: Hook, packet: &Packet, flow: &FlowRef) -> Header {
    let mut header = Header {
        // SAFETY: the helpers take no pointers.
        time_ns: unsafe { bpf_ktime_get_ns() },
        flow: flow.flow,
        skb: packet.skb,
        tuple: packet.tuple,
        seq: packet.seq,
        ack: packet.ack,
        isn: flow.isn,
        hook: hook as u16,
        // SAFETY: as above. The number of CPUs fits 16 bits (NR_CPUS is 8192 at most).
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
        phase: Phase::Entry as u8,
        tcp_flags: packet.flags,
        ..Header::default()
    };
    if let Some(device) = pointer(packet.skb, &fields::SK_BUFF_DEV) {
        set_device(&mut header, device);
    }
    header
}

/// Makes a copied header one of `hook`, here and now.
#[inline(always)]
pub(super) fn restamp(header: &mut Header, hook: Hook) {
    // SAFETY: the helpers take no pointers.
    header.time_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: as above.
    header.cpu = unsafe { bpf_get_smp_processor_id() } as u16;
    header.hook = hook as u16;
    header.phase = Phase::Entry as u8;
    header.call = 0;
    header.verdict = 0;
}

/// Fills in device and network namespace from a `struct net_device`.
#[inline(always)]
pub(super) fn set_device(header: &mut Header, device: u64) {
    header.ifindex = read(device, &fields::NET_DEVICE_IFINDEX).unwrap_or(0);
    header.dev = read(device, &fields::NET_DEVICE_NAME).unwrap_or([0; 16]);
    if let Some(net) = pointer(device, &fields::NET_DEVICE_NET) {
        header.netns = read(net, &fields::NET_INUM).unwrap_or(0);
    }
}

/// Forgets what [`header`] read through `skb->dev`.
#[inline(always)]
pub(super) fn clear_device(header: &mut Header) {
    header.ifindex = 0;
    header.netns = 0;
    header.dev = [0; 16];
}

/// Fills in the network namespace from a `struct sock`.
#[inline(always)]
pub(super) fn set_socket_netns(header: &mut Header, sock: u64) {
    if let Some(net) = pointer(sock, &fields::SOCK_NET) {
        header.netns = read(net, &fields::NET_INUM).unwrap_or(0);
    }
}

/// Writes one record, or counts it as lost.
#[inline(always)]
pub(super) fn emit<P: 'static>(header: &Header, kind: Kind, payload: P) {
    let Some(mut slot) = EVENTS.reserve::<Record<P>>(0) else {
        count_lost(header);
        return;
    };
    slot.write(Record {
        header: Header {
            kind: kind as u8,
            ..*header
        },
        payload,
    });
    slot.submit(0);
}

/// Writes the memory of an IPVS connection entry and of what lies behind `dest`. Too large for the stack, so it is
/// read right into the ring buffer.
#[inline(always)]
pub(super) fn emit_raw_conn(header: &Header, conn: u64, dest: u64) {
    let Some(mut slot) = EVENTS.reserve::<Record<RawConn>>(0) else {
        count_lost(header);
        return;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: `record` points to reserved memory of the right size, and the helpers check the source addresses and
    // zero the target when they cannot read them.
    unsafe {
        (*record).header = Header {
            kind: Kind::RawConn as u8,
            ..*header
        };
        (*record).payload.conn = conn;
        let _ = bpf_probe_read_kernel_buf(conn as *const u8, &mut (*record).payload.bytes);
        let _ = bpf_probe_read_kernel_buf(dest as *const u8, &mut (*record).payload.dest);
    }
    slot.submit(0);
}

#[inline(always)]
fn count_lost(header: &Header) {
    if let Some(lost) = LOST.get_ptr_mut(u32::from(header.hook)) {
        // SAFETY: the entry belongs to this CPU.
        unsafe { *lost += 1 };
    }
}
