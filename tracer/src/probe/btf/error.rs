//! Why BTF could not be read, or has no answer.

use std::path::PathBuf;

/// Why BTF could not be read, or has no answer.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The bytes are not BTF, or contradict themselves.
    #[error("malformed BTF: {0}")]
    Malformed(&'static str),
    /// The bytes contain a kind of type that this version does not know.
    #[error("BTF kind {kind} is newer than this version of tracer can read; use a newer tracer")]
    UnknownKind {
        /// Number of the kind (`BTF_KIND_*`).
        kind: u32,
    },
    /// There is no such struct, union or typedef.
    #[error("this kernel has no type `{0}`")]
    NoType(String),
    /// The type is known but has no such member.
    #[error("`{within}` has no member `{member}` on this kernel")]
    NoMember {
        /// The type or the path so far.
        within: String,
        /// The missing member.
        member: String,
    },
    /// The type before the member is not a struct or union.
    #[error("`{0}` is neither a struct nor a union")]
    NotAggregate(String),
    /// The type before the index is not an array, or the index is out of range.
    #[error("`{within}` has no element {index}")]
    NoElement {
        /// The path so far.
        within: String,
        /// The index.
        index: u32,
    },
    /// Several types of this name have the member at different offsets.
    #[error("`{0}` is ambiguous: this kernel has several types of that name")]
    Ambiguous(String),
    /// The path is not of the form `type.member[1].member`.
    #[error("`{0}` is not a path to a member")]
    BadPath(String),
}
