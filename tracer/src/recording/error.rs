//! Why a recording could not be written or read at all.

use std::io;

/// See the module. Damage inside a recording is no error: [`super::reader::Damage`] tells of it.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The system could not read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// The system could not write.
    #[error("cannot write it")]
    Write(#[source] io::Error),
    /// It does not begin as a recording does.
    #[error("it is no recording of tracer's")]
    NotARecording,
    /// There is nothing in it.
    #[error("it is empty: the recorder ended, or the disk was full, before anything was written")]
    Empty,
    /// It ends before its first chunk does.
    #[error(
        "it ends within its head, so nothing of it can be read: the recorder was killed, the disk was full, or it was \
             not copied in full"
    )]
    Cut,
    /// It is of a format that this version does not know.
    #[error("it is of format {0}, which this version of tracer cannot read; take a newer one")]
    TooNew(u16),
    /// It holds kernel records in layouts that this version does not know.
    #[error("it holds records in layout {0}, which this version of tracer cannot read; take a newer one")]
    NewRecords(u32),
    /// What it says of itself is damaged.
    #[error("its head is damaged")]
    Head,
    /// What it says of itself makes no sense.
    #[error("its head cannot be understood")]
    HeadText(#[source] serde_json::Error),
}
