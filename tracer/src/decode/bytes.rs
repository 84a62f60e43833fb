//! Takes structs from the front of bytes, which may have any alignment and any length.

use zerocopy::FromBytes;

/// Why a record cannot be decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The record ends inside its header or payload: bytes needed, bytes left.
    #[error("a record is truncated: {0} B needed, {1} B left")]
    Short(usize, usize),
    /// The record's kind, hook or phase is unknown: a newer tracer wrote it.
    #[error("a record has an unknown kind ({kind}) or hook ({hook})")]
    Unknown {
        /// Number of the kind.
        kind: u8,
        /// Number of the hook.
        hook: u16,
    },
}

/// Takes a `T` from the front of `bytes`.
pub(super) fn take<T: FromBytes>(bytes: &mut &[u8]) -> Result<T, DecodeError> {
    let (value, rest) =
        T::read_from_prefix(bytes).map_err(|_| DecodeError::Short(size_of::<T>(), bytes.len()))?;
    *bytes = rest;
    Ok(value)
}
