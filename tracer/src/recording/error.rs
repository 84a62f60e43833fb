//! Errors that make a recording impossible to write or read.

use std::io;

/// Why a recording cannot be written or read at all. Damage inside a recording is reported by
/// [`super::reader::Damage`] instead.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Reading failed.
    #[error("cannot read the recording")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("cannot write the recording")]
    Write(#[source] io::Error),
    /// The input does not start like a recording.
    #[error("not a tracer recording")]
    NotARecording,
    /// The input is empty.
    #[error("empty: the recorder was killed or the disk was full before anything was written")]
    Empty,
    /// The input ends before the end of the first chunk.
    #[error(
        "truncated within its first bytes, nothing can be read: the recorder was killed, the disk was full, or the \
         copy is incomplete"
    )]
    Truncated,
    /// The major number of the format is unknown.
    #[error("format {0} is newer than this version of tracer can read; use a newer tracer")]
    TooNew(u16),
    /// The layout of the kernel records is unknown.
    #[error("record layout {0} is newer than this version of tracer can read; use a newer tracer")]
    NewRecords(u32),
    /// The first chunk is damaged.
    #[error("damaged: its header cannot be read")]
    Head,
    /// The first chunk is not the JSON that it should be.
    #[error("damaged: its header is not valid")]
    HeadJson(#[source] serde_json::Error),
}
