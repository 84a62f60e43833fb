//! Errors that make a recording impossible to read.

use std::io;

/// Why a recording cannot be read at all. Damage inside a recording is reported by [`super::reader::Damage`] instead.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Reading failed.
    #[error(transparent)]
    Read(io::Error),
    /// The input does not start like a recording.
    #[error("it is not a tracer recording")]
    NotARecording,
    /// The input is empty.
    #[error("it is empty (the recorder was killed or the disk was full before anything was written)")]
    Empty,
    /// The input ends before the end of the first chunk.
    #[error(
        "it is truncated within its first bytes (the recorder was killed, the disk was full, or the copy is \
         incomplete)"
    )]
    Truncated,
    /// The major number of the format is unknown.
    #[error("its format {0} is newer than this version of tracer can read; use a newer tracer")]
    TooNew(u16),
    /// The major number of the format is wrong, but the head says that this version can read the recording.
    #[error("its first bytes are damaged; copy the file again from the node")]
    Start,
    /// The major number of the format is unknown, and so is the head.
    #[error("its format {0} is unknown: the file is damaged, or a newer version of tracer wrote it")]
    UnknownFormat(u16),
    /// The layout of the kernel records is unknown.
    #[error("its record layout {0} is newer than this version of tracer can read; use a newer tracer")]
    NewRecords(u32),
    /// The first chunk is damaged.
    #[error("its header is damaged, so the rest cannot be read; copy the file again from the node")]
    Head,
    /// The first chunk is not the JSON of a head.
    #[error("its header is invalid")]
    HeadJson(#[source] serde_json::Error),
}
