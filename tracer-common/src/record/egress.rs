//! Next hop and queueing discipline of a packet that was dropped.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tuple::Addr;

/// Next hop and queueing discipline of a packet that was dropped.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Egress {
    /// The gateway of the packet's route (`rtable.rt_gw4`, `rt6_info.rt6i_gateway`): on an IPIP device without a remote
    /// address, the other node. Unset if the route has none, or it could not be read. Older recordings have none for
    /// IPv6.
    pub gateway: Addr,
    /// The queueing discipline of the device's first queue (`Qdisc_ops.id`), NUL-terminated; empty if it could not be
    /// read, or the packet was in another queue.
    pub qdisc: [u8; 16],
}
