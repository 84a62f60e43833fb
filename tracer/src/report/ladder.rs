//! One flow, step by step, for a terminal.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{Clock, milliseconds, path, rfc3339};
use crate::{
    diagnose::Diagnosis,
    flow::{fate::Fate, model::Flow},
    node::facts::Facts,
};

/// The flow: what became of it and why, and its way with a column for each network namespace.
#[must_use]
pub fn flow(flow: &Flow, fate: Fate, diagnosis: &Diagnosis, facts: &Facts, clock: &Clock) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = front(&mut out, flow, fate, diagnosis, facts, clock);
    let _ = steps(&mut out, flow, facts);
    let _ = reasons(&mut out, diagnosis);
    out
}

fn front(
    out: &mut String,
    flow: &Flow,
    fate: Fate,
    diagnosis: &Diagnosis,
    facts: &Facts,
    clock: &Clock,
) -> std::fmt::Result {
    let cause = diagnosis
        .cause
        .map_or_else(String::new, |cause| format!("  {cause}"));
    writeln!(out, "flow {}  {fate}{cause}", flow.id)?;
    writeln!(out, "{}", rfc3339(clock.at(flow.start_ns())))?;
    let service = facts
        .service(flow)
        .map_or_else(String::new, |service| format!(" ({service})"));
    let backend = flow
        .backend()
        .map_or_else(|| "no backend".to_owned(), |backend| backend.to_string());
    let dataplane = diagnosis
        .dataplane
        .map_or_else(String::new, |dataplane| format!(" by {}", dataplane.name()));
    writeln!(
        out,
        "{} -> {}{service} -> {backend}{dataplane}",
        flow.client(),
        flow.node()
    )?;
    let mut times = vec![
        format!("SYNs {}", flow.attempts.len()),
        format!("SYN-ACKs {}", flow.synacks),
    ];
    if let Some(connect) = flow.connect_ns() {
        times.push(format!("connected after {:.1} ms", milliseconds(connect)));
    }
    if let Some(stall) = flow.stall_ns() {
        times.push(format!("{:.0} ms lost", milliseconds(stall)));
    }
    writeln!(out, "{}", times.join(", "))?;
    if let Some(earlier) = &flow.earlier {
        writeln!(
            out,
            "the client's port was used before: flow {}, {}, {:.1} s earlier{}",
            earlier.id,
            earlier.fate,
            milliseconds(flow.start_ns().saturating_sub(earlier.start_ns)) / 1_000.0,
            earlier
                .backend
                .map_or_else(String::new, |backend| format!(", to {backend}"))
        )?;
    }
    Ok(())
}

fn steps(out: &mut String, flow: &Flow, facts: &Facts) -> std::fmt::Result {
    let steps = path::steps(flow, facts);
    // The node first, then others in the order in which the packet came to them.
    let mut lanes: BTreeMap<u32, usize> = BTreeMap::from([(flow.netns, 0)]);
    for step in &steps {
        let next = lanes.len();
        lanes.entry(step.netns.unwrap_or(flow.netns)).or_insert(next);
    }
    let mut names: Vec<(usize, u32)> = lanes.iter().map(|(&netns, &lane)| (lane, netns)).collect();
    names.sort_unstable();
    let names: Vec<String> = names
        .iter()
        .map(|(lane, netns)| match lane {
            0 => format!("column 1: the node (netns {netns})"),
            lane => format!("{}: netns {netns}", lane + 1),
        })
        .collect();
    writeln!(out, "\n{}\n", names.join(", "))?;
    let hook_width = steps.iter().map(|step| step.hook.len()).max().unwrap_or(0);
    let mut before = 0.0;
    let syns: Vec<f64> = flow
        .attempts
        .iter()
        .map(|attempt| milliseconds(attempt.time_ns.saturating_sub(flow.start_ns())))
        .collect();
    let mut told = 0;
    for step in &steps {
        while syns.get(told).is_some_and(|syn| *syn <= step.t_ms) {
            told += 1;
            writeln!(out, "{:>12} --- SYN {told}", "")?;
        }
        let lane = lanes
            .get(&step.netns.unwrap_or(flow.netns))
            .copied()
            .unwrap_or_default();
        let rungs: String = (0..lanes.len())
            .map(|column| if column == lane { "o " } else { "| " })
            .collect();
        let dev = step.dev.as_deref().unwrap_or_default();
        let verdict = step
            .verdict
            .as_deref()
            .map_or_else(String::new, |verdict| format!(" = {verdict}"));
        writeln!(
            out,
            "{:>12.3} {:>+10.3}  {rungs} {:<hook_width$} {dev:<10} {}{verdict}",
            step.t_ms,
            step.t_ms - before,
            step.hook,
            step.note
        )?;
        before = step.t_ms;
    }
    Ok(())
}

fn reasons(out: &mut String, diagnosis: &Diagnosis) -> std::fmt::Result {
    writeln!(out, "\n{}", diagnosis.explanation)?;
    for evidence in &diagnosis.evidence {
        writeln!(out, "  {}: {} [{}]", evidence.what, evidence.value, evidence.hook)?;
    }
    if let Some(advice) = diagnosis.advice {
        writeln!(out, "\nWhat to do: {advice}")?;
    }
    Ok(())
}
