//! The call stack of a drop.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Number of frames in a [`Stack`].
pub const FRAMES: usize = 16;

/// The kernel's call stack when it dropped a packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Stack {
    /// Return addresses, the innermost first, including those of the tracepoint itself; 0 after the last.
    pub frames: [u64; FRAMES],
}
