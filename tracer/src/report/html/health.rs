//! The recording: its size, what is missing, and its node.

use std::net::SocketAddr;

use maud::{Markup, html};
use tracer_common::hook::Hook;

use super::recorded::Recorded;
use crate::{
    diagnose::{catalogue, words},
    facts::{
        NetnsFacts,
        ipvs::{Listens, RealServer, Service},
    },
    finding::{
        clock::{milliseconds, rfc3339},
        hook_state::{HookState, State},
    },
    report::{
        summary::{Summary, text},
        time::{TimeUnit, moment},
    },
};

/// The most runs shown in full.
const MOST_RUNS: usize = 10;
/// The most lines of damage shown for one run, or for all runs that are not shown.
const MOST_DAMAGE: usize = 50;

/// The facts that a reader needs to judge the rest of the page.
pub(super) fn section(summary: &Summary, runs: &[Recorded]) -> Markup {
    html! {
        section id="recording" {
            h2 { "The recording" }
            p { (text::records(summary)) "." }
            @if let Some(skipped) = text::skipped(summary) {
                p { (skipped) ". A cause that depends on them is reported as " code { "unknown" } "." }
            }
            @for run in runs.iter().take(MOST_RUNS) {
                (of(run))
            }
            @if runs.len() > MOST_RUNS {
                p { (words::count(runs.len() - MOST_RUNS, "more run")) "." }
                (damage(runs.iter().skip(MOST_RUNS).flat_map(|run| &run.damage)))
            }
        }
    }
}

/// Damage of recordings.
fn damage<'a>(damage: impl IntoIterator<Item = &'a String>) -> Markup {
    let mut damage = damage.into_iter().take(MOST_DAMAGE).peekable();
    html! {
        @if damage.peek().is_some() {
            ul.damage {
                @for what in damage { li { (what) } }
            }
        }
    }
}

fn of(run: &Recorded) -> Markup {
    let head = &run.head;
    let patience = milliseconds(head.patience_ns);
    let patience = TimeUnit::of([patience]).format(patience);
    let lost: Vec<_> = run
        .health
        .lost_by_hook
        .iter()
        .filter(|(_, lost)| *lost != 0)
        .collect();
    html! {
        article.run {
            h3 { (head.host) ", from " (moment(&rfc3339(head.ready))) }
            (damage(&run.damage))
            dl.names {
                div { dt { "files" } dd { (run.names()) } }
                div { dt { "kernel" } dd { (head.kernel) " " (head.uname) } }
                div { dt { "boot" } dd { (head.boot_id) } }
                div { dt { "recorded by" } dd { "tracer " (head.tracer) } }
                div { dt { "read by" } dd { "tracer " (env!("CARGO_PKG_VERSION")) } }
                div { dt { "ports" } dd { (ranges(&head.ports)) } }
                div { dt { "clients" } dd { @if head.clients.is_empty() { "all" } @else { (head.clients.join(", ")) } } }
                div { dt { "patience" } dd { (patience) } }
                @if !lost.is_empty() {
                    div {
                        dt { "records lost at" }
                        dd { @for (index, (hook, count)) in lost.iter().enumerate() { @if index != 0 { ", " } (hook) " (" (count) ")" } }
                    }
                }
            }
            (hooks(run))
            @for (netns, facts) in &run.netns {
                (node(*netns, facts, run.services_omitted))
            }
        }
    }
}

fn hooks(run: &Recorded) -> Markup {
    let not_available: Vec<&HookState> = run
        .hooks
        .values()
        .filter(|hook| !hook.state.is_available())
        .collect();
    let attached = run
        .hooks
        .values()
        .filter(|hook| hook.state == State::Attached)
        .count();
    let is_available = |hook: Hook| {
        run.hooks
            .get(hook.name())
            .is_some_and(|hook| hook.state.is_available())
    };
    let undetectable = catalogue::undetectable(is_available);
    html! {
        details {
            summary { "Hooks: " (attached) " of " (run.hooks.len()) " attached, " (not_available.len()) " disabled or missing" }
            @for (at, why) in &run.changes {
                p { (moment(&rfc3339(*at))) ": " (why) }
            }
            @if run.changes_omitted != 0 {
                p { (words::count(run.changes_omitted, "more change")) }
            }
            @if !not_available.is_empty() {
                table.cards {
                    thead { tr { th scope="col" { "Hook" } th scope="col" { "State" } th scope="col" { "Why" } } }
                    tbody {
                        @for hook in not_available {
                            tr {
                                th scope="row" { code { (hook.name) } }
                                td data-label="State" { (hook.state) }
                                td data-label="Why" { (hook.why.as_deref().unwrap_or_default()) }
                            }
                        }
                    }
                }
            }
        }
        @if !run.hooks.is_empty() && !undetectable.is_empty() {
            details {
                summary { "Causes not detectable on this kernel, reported as unknown: " (undetectable.len()) }
                ul {
                    @for (cause, missing) in undetectable {
                        li {
                            code { (cause) } " (needs "
                            (missing.into_iter().map(Hook::name).collect::<Vec<_>>().join(", ")) ")"
                        }
                    }
                }
            }
        }
    }
}

fn node(netns: u32, facts: &NetnsFacts, omitted: usize) -> Markup {
    let settings = facts.sysctls.iter().count();
    html! {
        @if !facts.services.is_empty() {
            details {
                summary { "IPVS when the recording ended, netns " (netns) ": " (words::count(facts.services.len() + omitted, "service")) }
                table.cards {
                    thead {
                        tr {
                            th scope="col" { "Service" }
                            th scope="col" { "Real server" }
                            th scope="col" { "Forwarding" }
                            th.number scope="col" { "Weight" }
                            th.number scope="col" { "Active" }
                            th.number scope="col" { "Inactive" }
                        }
                    }
                    tbody {
                        @for service in &facts.services {
                            (servers(service))
                        }
                    }
                }
                @if omitted != 0 { p { (words::count(omitted, "more service")) } }
            }
        }
        @if settings != 0 {
            details {
                summary { "Settings, netns " (netns) ": " (settings) }
                table {
                    thead { tr { th scope="col" { "Setting" } th scope="col" { "Value" } } }
                    tbody {
                        @for (name, value) in facts.sysctls.iter() {
                            tr { th scope="row" { code { (name) } } td { (value) } }
                        }
                    }
                }
            }
        }
    }
}

fn servers(service: &Service) -> Markup {
    let name = match &service.listens {
        Listens::Address { address, .. } => address.to_string(),
        Listens::Mark(mark) => format!("mark {mark}"),
    };
    let row = |server: Option<&RealServer>| {
        let number = |value: fn(&RealServer) -> i64| {
            server.map_or_else(String::new, |server| value(server).to_string())
        };
        html! {
            tr {
                th scope="row" { (name) " " (service.scheduler) }
                td data-label="Real server" {
                    (server.map_or_else(|| "none".to_owned(), |server| SocketAddr::to_string(&server.address)))
                }
                td data-label="Forwarding" { (server.map_or("", |server| server.forward.as_str())) }
                td.number data-label="Weight" { (number(|server| server.weight.into())) }
                td.number data-label="Active" { (number(|server| server.active.into())) }
                td.number data-label="Inactive" { (number(|server| server.inactive.into())) }
            }
        }
    };
    html! {
        @if service.real_servers.is_empty() {
            (row(None))
        }
        @for server in &service.real_servers {
            (row(Some(server)))
        }
    }
}

/// Ports as ranges: `80, 30000-32767`.
fn ranges(ports: &[u16]) -> String {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    let mut out: Vec<String> = Vec::new();
    for range in ports.chunk_by(|one, next| one + 1 == *next) {
        match range {
            [first, .., last] => out.push(format!("{first}-{last}")),
            one => out.extend(one.iter().map(ToString::to_string)),
        }
    }
    if out.is_empty() {
        "none".to_owned()
    } else {
        out.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn ports_are_listed_as_ranges() {
        assert_eq!(
            ranges(&[30_001, 30_000, 80, 30_002, 65_535]),
            "80, 30000-30002, 65535"
        );
        assert_eq!(ranges(&[]), "none");
    }
}
