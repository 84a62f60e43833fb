//! What IPVS did with a SYN: one file for each part of it that can end a SYN's way.

pub(crate) mod decision;
mod reuse;
mod service;

use super::catalogue::Row;

/// The rows of this subject. An old entry is met before a service is looked for.
pub(super) const ROWS: &[Row] = &[
    reuse::NODEST_EXPIRED,
    reuse::REUSE_DROPPED,
    reuse::DEST_UNAVAILABLE,
    reuse::REUSE_STALE_BACKEND,
    service::NO_SERVICE,
    service::NO_DESTINATION,
];
