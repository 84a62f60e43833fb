//! The catalogue: one row for each cause, in the order in which they are tried.
//!
//! A row holds all that its cause owns. It is in the file of its subject, beside the function that looks for the proof.

use tracer_common::hook::Hook;

use super::{
    backend, bpf, bridge, cause::Cause, client, conntrack, device, ipvs, nat, neigh, netfilter, policy,
    return_path, route, row::Row, service, tcp, tunnel, unknown,
};

/// All rows by subject. The first row that finds its proof names the cause, so special cases come first.
const SUBJECTS: &[&[Row]] = &[
    ipvs::reply::ROWS,
    policy::ROWS,
    ipvs::ROWS,
    conntrack::pinned::ROWS,
    nat::ROWS,
    conntrack::ROWS,
    conntrack::invalid::ROWS,
    netfilter::ROWS,
    route::ROWS,
    neigh::ROWS,
    tunnel::ROWS,
    bridge::ROWS,
    bpf::ROWS,
    device::ROWS,
    tcp::checksum::ROWS,
    service::ROWS,
    tcp::no_listener::ROWS,
    tcp::ROWS,
    tcp::timewait::ROWS,
    tcp::old_connection::ROWS,
    return_path::ROWS,
    backend::ROWS,
    client::ROWS,
    unknown::ROWS,
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

/// The causes that are not detectable with the hooks that `has` knows, each with the hooks that it lacks.
pub fn undetectable(has: impl Fn(Hook) -> bool) -> Vec<(Cause, Vec<Hook>)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_one_row() {
        for cause in Cause::ALL {
            assert_eq!(rows().filter(|row| row.cause == *cause).count(), 1, "{cause}");
        }
    }

    #[test]
    fn what_light_proves_has_a_hook_at_rest() {
        for row in rows().filter(|row| row.light != crate::diagnose::row::Light::Hidden) {
            let hooks = || row.hooks.iter().flat_map(|group| group.iter());
            assert!(
                row.hooks.is_empty() || hooks().any(|hook| hook.is_at_rest()),
                "{}",
                row.cause
            );
        }
    }

    #[test]
    fn every_cause_but_unknown_has_advice() {
        for row in rows() {
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
    fn a_cause_is_undetectable_without_its_hook() {
        assert_eq!(undetectable(|_| true), []);
        let without_lookup = undetectable(|hook| hook != Hook::IpvsLookup);
        assert!(without_lookup.contains(&(Cause::IpvsReuseDropped, vec![Hook::IpvsLookup])));
        assert!(
            without_lookup
                .iter()
                .all(|(cause, _)| *cause != Cause::TcpNoListener)
        );
    }
}
