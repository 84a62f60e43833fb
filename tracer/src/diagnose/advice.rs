//! Advice about one flow: commands with its real addresses, and settings only where they do not have that value yet.
//!
//! Nothing about the node is assumed: without the facts it needs, [`of`] returns `None`, and the general advice of the
//! catalogue applies.

pub(super) mod command;
mod conntrack;
mod ends;
mod ipvs;
mod network;
mod rules;
mod service;
mod tcp;

use super::{
    case::{Case, Proof},
    cause::Cause,
};

/// The advice for this flow and cause. For a dropped SYN-ACK, `cause` is that of the drop.
pub(super) fn of(cause: Cause, case: &Case<'_>, proof: &Proof) -> Option<String> {
    ipvs::of(cause, case, proof)
        .or_else(|| rules::of(cause, case, proof))
        .or_else(|| service::of(cause, case, proof))
        .or_else(|| conntrack::of(cause, case, proof))
        .or_else(|| network::of(cause, case, proof))
        .or_else(|| tcp::of(cause, case, proof))
        .or_else(|| ends::of(cause, case, proof))
}
