//! Where a packet was to leave by when it was discarded.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tuple::Addr;

/// The way out of a packet that was discarded.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Egress {
    /// The next hop of the packet's route (`rtable.rt_gw4`): through a device of IPIP without an address of its own, the
    /// other node. Unset if the route has none, or it could not be read.
    pub gateway: Addr,
    /// The queueing discipline of the device's first queue (`Qdisc_ops.id`), NUL-terminated; empty if it could not be
    /// read, or the packet was for another queue.
    pub qdisc: [u8; 16],
}
