//! Tells network namespaces apart that have the same inode number one after the other.

use aya_ebpf::{macros::map, maps::LruHashMap};
use tracer_common::{hook::Hook, record::Netns};

use super::{
    emit::{self, try_emit},
    fields::{self, pointer, read},
    flow::FlowRef,
    packet::Packet,
};

/// Each network namespace that a traced flow came into, by inode number, as it was last recorded.
#[map]
static NETNS: LruHashMap<u32, Netns> = LruHashMap::with_max_entries(4096, 0);

/// Records which network namespace `device` is in, if its inode number is new or was another namespace's before. Comes before
/// the record of the packet itself. Returns `false` if there was no room for it: then the packet's own record must not be
/// written either, or facts of the former namespace would be taken for those of this one.
#[inline(always)]
pub(super) fn is_recorded(hook: Hook, packet: &Packet, flow: &FlowRef) -> bool {
    record(hook, packet, flow).unwrap_or(true)
}

#[inline(always)]
fn record(hook: Hook, packet: &Packet, flow: &FlowRef) -> Option<bool> {
    let device = pointer(packet.skb, &fields::SK_BUFF_DEV)?;
    let net = pointer(device, &fields::NET_DEVICE_NET)?;
    let inum: u32 = read(net, &fields::NET_INUM)?;
    let now = Netns {
        net,
        cookie: read(net, &fields::NET_COOKIE).unwrap_or(0),
        hash_mix: read(net, &fields::NET_HASH_MIX).unwrap_or(0),
        reserved: 0,
    };
    // SAFETY: the value is plain bytes and is compared at once. Another CPU may write it in the meantime: then both record it.
    if unsafe { NETNS.get(&inum) }.is_some_and(|known| {
        known.net == now.net && known.cookie == now.cookie && known.hash_mix == now.hash_mix
    }) {
        return None;
    }
    let is_written = try_emit(|header, out: &mut Netns| {
        emit::describe(header, hook, packet, flow);
        *out = now;
    });
    if is_written {
        let _ = NETNS.insert(&inum, &now, 0);
    }
    Some(is_written)
}
