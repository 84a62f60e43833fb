//! Lines for people.

use std::fmt::Write as _;

use super::{attempts, escape::Text, path};
use crate::{
    finding::{Finding, clock::milliseconds},
    flow::fate::Fate,
};

/// One line: time, host where several runs are merged, number, fate, client, NodePort and service, backend, time lost, and
/// the cause with its explanation. `replaces` is the fate on an earlier line of the flow. With `path`, the steps, evidence and
/// advice below it.
#[must_use]
pub fn flow(host: Option<&str>, finding: &Finding<'_>, replaces: Option<Fate>, with_path: bool) -> Text {
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
    let mut line = format!(
        "{:.3} {host}{:<5} {fate:<11} {} -> {}{service} -> {backend}",
        clock.at(flow.start_ns()),
        format!("#{}", flow.id),
        flow.client(),
        flow.node(),
    );
    // Writing to a string cannot fail.
    match (flow.stall_ns(), flow.connect_ns()) {
        (Some(_), _) => {
            let _ = write!(line, "  {:.0} ms lost", milliseconds(finding.lost_ns()));
        }
        (None, Some(connect)) => {
            let _ = write!(line, "  {:.1} ms", milliseconds(connect));
        }
        (None, None) => {
            let _ = write!(
                line,
                "  {} SYN{}",
                flow.attempts.len(),
                if flow.attempts.len() == 1 { "" } else { "s" }
            );
        }
    }
    match replaces {
        None => {}
        Some(earlier) if earlier == fate => line.push_str("  (updated)"),
        Some(earlier) => {
            let _ = write!(line, "  (updated; was {earlier})");
        }
    }
    if let Some(cause) = diagnosis.cause {
        let _ = write!(line, "  {cause}: {}", diagnosis.explanation);
    }
    let mut out = Text::default();
    out.line(line);
    if with_path {
        details(&mut out, finding);
    }
    out
}

fn details(out: &mut Text, finding: &Finding<'_>) {
    let diagnosis = finding.diagnosis;
    for step in path::steps(finding.flow, finding.facts) {
        let verdict = step
            .verdict
            .map_or_else(String::new, |verdict| format!(" = {verdict}"));
        let dev = step.dev.unwrap_or_default();
        out.line(format_args!(
            "    {:>10.3} ms  {:<24} {dev:<12} {}{verdict}",
            step.t_ms, step.hook, step.note
        ));
    }
    for attempt in attempts::lines(diagnosis) {
        out.line(format_args!("    {attempt}"));
    }
    for evidence in &diagnosis.evidence {
        out.line(format_args!(
            "    evidence: {}: {} [{}]",
            evidence.label(),
            evidence.value,
            evidence.source
        ));
    }
    if let Some(advice) = &diagnosis.advice {
        out.line(format_args!("    what to do: {advice}"));
    }
}
