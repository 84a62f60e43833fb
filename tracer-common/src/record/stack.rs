//! Which functions had called one another when a packet was discarded.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many callers a [`Stack`] holds.
pub const FRAMES: usize = 16;

/// The stack of the kernel when it discarded a packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Stack {
    /// Return addresses, the innermost first, those of the tracepoint itself among them; 0 behind the last.
    pub frames: [u64; FRAMES],
}
