//! Causes in IPVS: one file for each part of it that can end a SYN's path.

mod affinity;
mod at_rest;
pub(super) mod decision;
mod limits;
mod loopback;
pub(super) mod reply;
mod reuse;
mod servers;
pub(super) mod service;
mod transmit;
pub(super) mod untracked;

use super::row::Row;

/// The rows of this subject. IPVS finds an old entry before it looks for a service.
pub(super) const ROWS: &[Row] = &[
    // First, because IPVS expires an entry of a persistence template like any other, but the template then recreates it.
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
    loopback::LOOPBACK_CLIENT,
    transmit::XMIT_NO_ROUTE,
    transmit::XMIT_TTL,
    transmit::XMIT_MTU,
];
