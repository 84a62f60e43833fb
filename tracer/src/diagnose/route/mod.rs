//! Packets that the routing layer dropped: their source was refused, or they could not be forwarded.

mod destination;
pub(super) mod freed;
pub(super) mod hops;
mod source;

use super::row::Row;

/// The rows of this subject.
pub(super) const ROWS: &[Row] = &[
    hops::LOOP,
    hops::TTL_EXCEEDED,
    source::RP_FILTER,
    source::MARTIAN,
    destination::FORWARDING_OFF,
    destination::UNREACHABLE,
];
