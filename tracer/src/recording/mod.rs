//! The recording: the kernel's unmodified records in a file, with the facts that were known when flows were judged.
//!
//! `docs/recording.md` describes the format and what later versions may change. Writer and reader are independent of
//! files: they use any `Write` or `Read`. Nothing that is read is trusted: every length is bounded, every chunk is
//! checked, and what is unknown or damaged is skipped and counted.

pub mod change;
pub mod chunk;
mod disk_sync;
pub mod error;
pub mod files;
pub mod flight_recorder;
pub mod index;
pub mod item;
pub mod memory;
pub mod output_file;
pub mod patch;
pub mod reader;
pub mod recorder;
pub mod writer;

/// The first bytes of a recording. The first one is not text, so that no tool takes the file for text.
pub const MAGIC: [u8; 8] = *b"\x89TRACER\n";
/// Major number of the format. A reader rejects a file with another one.
pub const MAJOR: u16 = 1;
/// Minor number of the format. It grows when something is added that older readers can skip.
pub const MINOR: u16 = 1;
/// Bytes before the first chunk: magic, major and minor number (little-endian), and four zeros.
pub const PREAMBLE: usize = 16;
