//! Members of a record out of its bytes. Nothing here trusts a length.

use bytes::{Buf as _, TryGetError};
use tracer_common::tuple::{Addr, Tuple};

/// Why a record could not be decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The record ends before its members do.
    #[error("a record is cut short: {0} more bytes were needed, {1} are left")]
    Short(usize, usize),
    /// The record's kind, hook or phase is unknown: written by a newer tracer.
    #[error("a record is of an unknown kind ({kind}) or hook ({hook})")]
    Unknown {
        /// Number of the kind.
        kind: u8,
        /// Number of the hook.
        hook: u16,
    },
}

impl From<TryGetError> for DecodeError {
    fn from(error: TryGetError) -> Self {
        Self::Short(error.requested, error.available)
    }
}

pub(super) fn tuple(bytes: &mut &[u8]) -> Result<Tuple, DecodeError> {
    Ok(Tuple {
        saddr: addr(bytes)?,
        daddr: addr(bytes)?,
        sport: bytes.try_get_u16_le()?,
        dport: bytes.try_get_u16_le()?,
    })
}

pub(super) fn addr(bytes: &mut &[u8]) -> Result<Addr, DecodeError> {
    let mut words = [0; 4];
    for word in &mut words {
        *word = bytes.try_get_u32_le()?;
    }
    Ok(Addr(words))
}

pub(super) fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let mut out = [0; N];
    bytes.try_copy_to_slice(&mut out)?;
    Ok(out)
}
