//! Structs from the front of bytes that may have any alignment and any length.

use zerocopy::FromBytes;

use super::error::DecodeError;

/// Takes a `T` from the front of `bytes`.
pub(super) fn take<T: FromBytes>(bytes: &mut &[u8]) -> Result<T, DecodeError> {
    let (value, rest) =
        T::read_from_prefix(bytes).map_err(|_| DecodeError::Short(size_of::<T>(), bytes.len()))?;
    *bytes = rest;
    Ok(value)
}
