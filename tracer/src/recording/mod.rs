//! The recording: the kernel's own records in a file, with what else was known when flows were judged.
//!
//! `docs/recording.md` has the format and says what later versions may change. Writer and reader know nothing of files:
//! they take whatever can be written to or read from. Nothing that is read is trusted: every length is bounded, every
//! chunk is checked, and what is unknown or damaged is left out and counted.

pub mod change;
pub mod chunk;
pub mod error;
pub mod flight;
pub mod index;
pub mod item;
pub mod patch;
pub mod reader;
pub mod recorder;
pub mod rotate;
pub mod writer;

/// What a recording begins with. The first byte is no text, so that no tool takes it for one.
pub const MAGIC: [u8; 8] = *b"\x89TRACER\n";
/// A reader refuses a file with another major number.
pub const MAJOR: u16 = 1;
/// Grows when something is added that older readers can leave out.
pub const MINOR: u16 = 1;
/// Bytes before the first chunk: magic, major, minor, and four that are zero.
pub const PREAMBLE: usize = 16;
