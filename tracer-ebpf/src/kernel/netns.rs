//! Tells network namespaces apart that have the same inode number one after the other.

use aya_ebpf::{macros::map, maps::LruHashMap};
use tracer_common::{hook::Hook, record::Netns};

use super::{
    emit::{self, emit_or_count},
    fields::{self, pointer, read},
    flow::FlowRef,
    packet::Packet,
};

/// Each network namespace that a traced flow came into, by inode number, as it was last recorded.
#[map]
static NETNS: LruHashMap<u32, Netns> = LruHashMap::with_max_entries(4096, 0);

/// Records which network namespace `device` is in, if its inode number is new or was another namespace's before. Comes before
/// the record of the packet itself.
#[inline(always)]
pub(super) fn emit_changed(hook: Hook, packet: &Packet, flow: &FlowRef, device: u64) -> Option<()> {
    let net = pointer(device, &fields::NET_DEVICE_NET)?;
    let inum: u32 = read(net, &fields::NET_INUM)?;
    let mut now = Netns {
        net,
        ..Netns::default()
    };
    now.cookie = read(net, &fields::NET_COOKIE).unwrap_or(0);
    now.hash_mix = read(net, &fields::NET_HASH_MIX).unwrap_or(0);
    // SAFETY: the value is plain bytes and is compared at once. Another CPU may write it in the meantime: then both record it.
    if unsafe { NETNS.get(&inum) }.is_some_and(|known| {
        known.net == now.net && known.cookie == now.cookie && known.hash_mix == now.hash_mix
    }) {
        return None;
    }
    let _ = NETNS.insert(&inum, &now, 0);
    let is_written = emit_or_count(hook, |header, out: &mut Netns| {
        emit::describe(header, hook, packet, flow);
        emit::set_device(header, device);
        *out = now;
    });
    if !is_written {
        // The next packet records it.
        let _ = NETNS.remove(&inum);
    }
    Some(())
}
