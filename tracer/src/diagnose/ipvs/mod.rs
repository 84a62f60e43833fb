//! What IPVS did with a SYN: one file for each part of it that can end a SYN's way.

mod affinity;
pub(crate) mod decision;
mod limits;
mod reuse;
pub(super) mod servers;
mod service;
mod transmit;

use super::catalogue::Row;

/// The rows of this subject. An old entry is met before a service is looked for.
pub(super) const ROWS: &[Row] = &[
    // An entry that affinity made is expired like others, but the next one is like it.
    affinity::AFFINITY_STALE,
    reuse::NODEST_EXPIRED,
    reuse::REUSE_DROPPED,
    reuse::DEST_UNAVAILABLE,
    reuse::REUSE_STALE_BACKEND,
    service::NO_SERVICE,
    service::NO_DESTINATION,
    servers::DEST_OVERLOADED,
    limits::DEFENSE_DROP,
    limits::CONN_ALLOC_FAILED,
    transmit::XMIT_NO_ROUTE,
    transmit::XMIT_TTL,
    transmit::XMIT_MTU,
];
