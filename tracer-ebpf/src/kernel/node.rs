//! The node itself, as opposed to the pods on it.

use aya_ebpf::Global;

/// Inode number of the node's network namespace, set by the loader; 0 if unknown: then no client counts as one on the node.
#[unsafe(no_mangle)]
static NODE_NETNS: Global<u32> = Global::new(0);

/// Inode number of the node's network namespace; 0 if unknown.
#[inline(always)]
pub(super) fn netns() -> u32 {
    NODE_NETNS.load()
}
