//! The catalogue: one row for each cause, in the order in which they are asked for.
//!
//! A row is the one place to read what proves a cause, what is said, what is advised, and where it can occur; it
//! stands in the file of its subject, beside the function that looks for the proof.

use tracer_common::hook::Hook;

use super::{
    backend,
    case::{Case, Proof},
    cause::Cause,
    client, conntrack, device, invalid, ipvs, lost, nat, neigh, netfilter, old_connection, pinned, policy,
    return_path, route, tcp, timewait, tunnel,
};

/// One cause.
pub struct Row {
    /// Which.
    pub cause: Cause,
    /// What happened, in one sentence, whatever the flow.
    pub says: &'static str,
    /// What must have been seen before it is named.
    pub proof: &'static str,
    /// What to do about it; none for [`Cause::Unknown`].
    pub advice: Option<&'static str>,
    /// On which kernels and dataplanes it can occur, and where its proof cannot be seen.
    pub occurs: &'static str,
    /// The hooks that show the proof: one of each group must be attached. What a group lists second does the same
    /// work on another kernel or for another family.
    pub hooks: &'static [&'static [Hook]],
    /// Looks for the proof.
    pub(super) find: fn(&Case<'_>) -> Option<Proof>,
}

/// All rows by subject. The first row that finds its proof names the cause, so what is more special stands first.
const SUBJECTS: &[&[Row]] = &[
    policy::ROWS,
    ipvs::ROWS,
    pinned::ROWS,
    nat::ROWS,
    conntrack::ROWS,
    invalid::ROWS,
    netfilter::ROWS,
    route::ROWS,
    neigh::ROWS,
    tunnel::ROWS,
    device::ROWS,
    tcp::ROWS,
    timewait::ROWS,
    old_connection::ROWS,
    return_path::ROWS,
    backend::ROWS,
    client::ROWS,
    lost::ROWS,
];

/// All rows, in order.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    SUBJECTS.iter().flat_map(|rows| rows.iter())
}

/// The row of a cause.
#[must_use]
pub fn row(cause: Cause) -> Option<&'static Row> {
    rows().find(|row| row.cause == cause)
}

/// The causes that a hook helps to prove, in the order of the rows. An IPv6 twin serves those of its IPv4 function.
pub fn causes_of(hook: Hook) -> impl Iterator<Item = Cause> {
    let role = hook.role();
    let names = move |row: &&Row| {
        row.hooks
            .iter()
            .flat_map(|group| group.iter())
            .any(|hook| hook.role() == role)
    };
    rows().filter(names).map(|row| row.cause)
}

/// The causes that cannot be told where only the hooks that `has` knows are attached, each with the hooks that are
/// missing for it.
pub fn untold(has: impl Fn(Hook) -> bool) -> Vec<(Cause, Vec<Hook>)> {
    rows()
        .filter_map(|row| {
            let missing: Vec<Hook> = row
                .hooks
                .iter()
                .filter(|group| !group.iter().any(|&hook| has(hook)))
                .filter_map(|group| group.first().copied())
                .collect();
            (!missing.is_empty()).then_some((row.cause, missing))
        })
        .collect()
}

/// Where netfilter asks IPVS about a SYN.
pub(super) const ASKED: &[Hook] = &[Hook::IpvsIn, Hook::IpvsRemoteRequest, Hook::IpvsLocalRequest];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cause_has_two_rows_and_all_but_unknown_have_advice() {
        for (index, row) in rows().enumerate() {
            assert!(
                rows().take(index).all(|other| other.cause != row.cause),
                "{}",
                row.cause
            );
            assert_eq!(row.advice.is_none(), row.cause == Cause::Unknown, "{}", row.cause);
        }
    }

    #[test]
    fn every_hook_that_a_row_names_serves_its_cause() {
        for row in rows() {
            for &hook in row.hooks.iter().flat_map(|group| group.iter()) {
                for hook in [hook, hook.for_ipv6()] {
                    assert!(
                        causes_of(hook).any(|cause| cause == row.cause),
                        "{} does not serve {}",
                        hook.name(),
                        row.cause
                    );
                }
            }
        }
        let first = rows()
            .find_map(|row| row.hooks.first()?.first())
            .expect("a row with a hook");
        assert!(causes_of(*first).count() < rows().count());
    }

    #[test]
    fn an_ipv6_twin_serves_the_causes_of_its_ipv4_function() {
        let v4: Vec<Cause> = causes_of(Hook::TcpSendReset).collect();
        assert_eq!(causes_of(Hook::TcpSendReset6).collect::<Vec<_>>(), v4);
        assert!(v4.contains(&Cause::TcpNoListener));
    }

    #[test]
    fn a_cause_whose_hook_is_missing_cannot_be_told() {
        assert_eq!(untold(|_| true), []);
        let without_lookup = untold(|hook| hook != Hook::IpvsLookup);
        assert!(without_lookup.contains(&(Cause::IpvsReuseDropped, vec![Hook::IpvsLookup])));
        assert!(
            without_lookup
                .iter()
                .all(|(cause, _)| *cause != Cause::TcpNoListener)
        );
    }
}
