//! Lines for people.

use std::fmt::Write as _;

use super::{attempts, path};
use crate::finding::{Finding, clock::milliseconds};

/// One line: time, host where several runs are merged, fate, client, NodePort and service, backend, time lost, and the
/// cause with its explanation. With `path`, the steps, evidence and advice below it.
#[must_use]
pub fn flow(host: Option<&str>, finding: &Finding<'_>, with_path: bool) -> String {
    let Finding {
        flow,
        fate,
        diagnosis,
        clock,
        ..
    } = *finding;
    let backend = flow
        .backend()
        .map_or_else(|| "no backend".to_owned(), |backend| backend.to_string());
    let service = finding
        .service()
        .map_or_else(String::new, |service| format!(" ({service})"));
    let host = host.map_or_else(String::new, |host| format!("{host} "));
    let mut out = format!(
        "{:.3} {host}{fate:<11} {} -> {}{service} -> {backend}",
        clock.at(flow.start_ns()),
        flow.client(),
        flow.node(),
    );
    // Writing to a string cannot fail.
    match (flow.stall_ns(), flow.connect_ns()) {
        (Some(_), _) => {
            let _ = write!(out, "  {:.0} ms lost", milliseconds(finding.lost_ns()));
        }
        (None, Some(connect)) => {
            let _ = write!(out, "  {:.1} ms", milliseconds(connect));
        }
        (None, None) => {
            let _ = write!(
                out,
                "  {} SYN{}",
                flow.attempts.len(),
                if flow.attempts.len() == 1 { "" } else { "s" }
            );
        }
    }
    if let Some(cause) = diagnosis.cause {
        let _ = write!(out, "  {cause}: {}", diagnosis.explanation);
    }
    if with_path {
        details(&mut out, finding);
    }
    out
}

fn details(out: &mut String, finding: &Finding<'_>) {
    let diagnosis = finding.diagnosis;
    for step in path::steps(finding.flow, finding.facts) {
        let verdict = step
            .verdict
            .map_or_else(String::new, |verdict| format!(" = {verdict}"));
        let dev = step.dev.unwrap_or_default();
        let _ = write!(
            out,
            "\n    {:>10.3} ms  {:<24} {dev:<12} {}{verdict}",
            step.t_ms, step.hook, step.note
        );
    }
    for attempt in attempts::lines(diagnosis) {
        let _ = write!(out, "\n    {attempt}");
    }
    for evidence in &diagnosis.evidence {
        let _ = write!(
            out,
            "\n    evidence: {}: {} [{}]",
            evidence.label(),
            evidence.value,
            evidence.source
        );
    }
    if let Some(advice) = &diagnosis.advice {
        let _ = write!(out, "\n    what to do: {advice}");
    }
}
