//! The summary for people: numbers, causes, sentences for the ticket, advice.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{CauseSummary, Disagreement, Names, Several, Summary};
use crate::{
    diagnose::words,
    flow::fate::Fate,
    report::{
        escape::Text,
        time::{TimeUnit, clock, moment},
    },
};

/// The most causes with a sentence of their own.
const MOST_CAUSES: usize = 3;
/// The most names in a list.
const MOST_LISTED: usize = 4;

/// The summary as several lines of text.
#[must_use]
pub fn text(summary: &Summary) -> Text {
    let mut out = Text::default();
    numbers(&mut out, summary);
    if summary.causes.is_empty() {
        out.gap();
        out.line(summary.without_cause());
        disagreements(&mut out, summary);
        return out;
    }
    causes(&mut out, summary);
    disagreements(&mut out, summary);
    ticket(&mut out, summary);
    advice(&mut out, summary);
    out
}

fn numbers(out: &mut Text, summary: &Summary) {
    for host in &summary.hosts {
        out.line(format_args!("Recorded on {}, kernel {}", host.host, host.kernel));
    }
    if let Some(filtered) = summary.filtered() {
        out.line(format_args!("Filtered: {filtered}"));
    }
    if let (Some(first), Some(last)) = (&summary.first, &summary.last) {
        out.line(format_args!(
            "First flow {}, last flow {}",
            moment(first),
            moment(last)
        ));
    }
    out.line(format_args!(
        "{} from {}: {}",
        words::count(summary.flows, "flow"),
        words::count(summary.clients, "client"),
        fates(&summary.by_fate)
    ));
    if let Some(seen) = summary.several.as_ref().and_then(seen_by_several) {
        out.line(seen);
    }
    out.line(records(summary));
    for what in &summary.damage {
        out.line(format_args!("Incomplete: {what}"));
    }
    if let Some(skipped) = skipped(summary) {
        out.line(skipped);
    }
}

/// The number of records, and of lost records.
pub(in crate::report) fn records(summary: &Summary) -> String {
    let records = words::count(summary.records, "record");
    let records = match summary.lost {
        0 => format!("{records}, none lost"),
        lost => format!("{records}, {lost} lost: individual flows may be incomplete"),
    };
    match summary.evicted.total() {
        0 => records,
        _ => format!("{records}; {}", summary.evicted),
    }
}

/// The number of flows on whose path the kernel skipped probes; `None` if there are none.
pub(in crate::report) fn skipped(summary: &Summary) -> Option<String> {
    let skipped = Some(summary.probes_skipped).filter(|&skipped| skipped != 0)?;
    Some(format!(
        "The kernel skipped probes on the path of {} because another probe was running on the same CPU",
        words::count(skipped, "flow")
    ))
}

/// The number of connections that more than one run saw, and where; `None` if there are none.
pub(in crate::report) fn seen_by_several(several: &Several) -> Option<String> {
    if several.connections == 0 {
        return None;
    }
    let hosts: Vec<String> = several
        .seen_on
        .iter()
        .take(MOST_LISTED)
        .map(|seen| match seen.hosts.as_slice() {
            // Two runs on one node.
            [host] => format!("{} twice on {host}", seen.flows),
            hosts => format!("{} on {}", seen.flows, hosts.join(" and ")),
        })
        .collect();
    let others = match several.seen_on.len().saturating_sub(MOST_LISTED) {
        0 => "",
        _ => ", others elsewhere",
    };
    let explained = match several.explained {
        0 => String::new(),
        explained => format!("; the cause of {explained} was found on a later node"),
    };
    let on_one = several.seen_on.iter().any(|seen| seen.hosts.len() < 2);
    let place = if on_one {
        "in more than one recording"
    } else {
        "on more than one node"
    };
    Some(format!(
        "{} seen {place}, counted once: {}{others}{explained}",
        words::count(several.connections, "connection"),
        hosts.join(", ")
    ))
}

fn disagreements(out: &mut Text, summary: &Summary) {
    let Some(several) = summary
        .several
        .as_ref()
        .filter(|several| !several.disagreements.is_empty())
    else {
        return;
    };
    out.gap();
    out.line("Nodes disagree");
    for connection in &several.disagreements {
        out.line(format_args!("  {}", connection_of(connection)));
        for report in reports_of(connection) {
            out.line(format_args!("    {report}"));
        }
    }
    if let others @ 1.. = several.others {
        out.line(format_args!("  {others} more"));
    }
}

/// The connection on which nodes disagree.
pub(in crate::report) fn connection_of(connection: &Disagreement) -> String {
    format!(
        "{} -> {}, at {}",
        connection.client,
        connection.node,
        moment(&connection.start)
    )
}

/// The connection as each node reports it.
pub(in crate::report) fn reports_of(connection: &Disagreement) -> impl Iterator<Item = String> {
    connection.reports.iter().map(|report| {
        let cause = report
            .cause
            .map_or_else(String::new, |cause| format!(", {cause}"));
        format!(
            "{}: flow {}, {}{cause}: {}",
            report.host, report.id, report.fate, report.explanation
        )
    })
}

fn causes(out: &mut Text, summary: &Summary) {
    let width = summary
        .causes
        .iter()
        .map(|cause| cause.cause.name().len())
        .fold("cause".len(), usize::max);
    let unit = time_unit(&summary.causes);
    out.gap();
    out.line(format_args!(
        "{:<width$}  {:>7}  {:>7}  {:>9}  {:>9}  from      to",
        "cause", "flows", "clients", "time lost", "median"
    ));
    for cause in &summary.causes {
        out.line(format_args!(
            "{:<width$}  {:>7}  {:>7}  {:>9}  {:>9}  {}  {}",
            cause.cause.name(),
            cause.flows,
            cause.clients,
            unit.format(cause.lost_ms),
            unit.format(cause.median_lost_ms),
            clock(&cause.first),
            clock(&cause.last)
        ));
        for (what, names) in cause.names() {
            if let Some(list) = list(names) {
                out.line(format_args!("    {what:<11}  {list}"));
            }
        }
    }
    if let Some(widest) = widest(summary) {
        out.line(widest);
    }
}

/// The unit for the times of all causes.
pub(in crate::report) fn time_unit(causes: &[CauseSummary]) -> TimeUnit {
    TimeUnit::of(causes.iter().map(|cause| cause.lost_ms))
}

/// The cause that affected the most clients, if it is not the one that cost the most time.
pub(in crate::report) fn widest(summary: &Summary) -> Option<String> {
    let by_time = summary.causes.first().map(|cause| cause.cause);
    let widest = summary
        .by_clients
        .first()
        .filter(|&&widest| by_time != Some(widest))?;
    Some(format!("{widest} affected the most clients."))
}

fn ticket(out: &mut Text, summary: &Summary) {
    out.gap();
    out.line("For the ticket");
    for sentence in sentences(summary) {
        out.line(format_args!("  {sentence}"));
    }
}

/// The sentences for the ticket: how many connections failed or were delayed, and what each of the costliest causes did.
#[must_use]
pub fn sentences(summary: &Summary) -> Vec<String> {
    let mut out = vec![format!(
        "{} of {} on {} failed or {} delayed{}.",
        summary.failures,
        words::count(summary.flows, "NodePort connection"),
        summary.host_names(),
        was(summary.failures),
        summary.all_flows.map_or_else(String::new, |all| format!(
            " ({} of {} shown: {})",
            summary.flows,
            words::count(all, "connection"),
            summary.options
        ))
    )];
    out.extend(summary.causes.iter().take(MOST_CAUSES).map(sentence));
    let others: u64 = summary
        .causes
        .iter()
        .skip(MOST_CAUSES)
        .map(|cause| cause.flows)
        .sum();
    if others != 0 {
        out.push(format!(
            "{}: {}.",
            words::count(summary.causes.len().saturating_sub(MOST_CAUSES), "more cause"),
            words::count(others, "connection")
        ));
    }
    out
}

fn was(count: u64) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

fn sentence(cause: &CauseSummary) -> String {
    if cause.flows == 0 {
        let unit = TimeUnit::of([cause.lost_ms]);
        return format!(
            "{} with another cause lost {} to {} as well. {} -> {}: {}",
            words::count(cause.partly, "connection"),
            unit.format(cause.lost_ms),
            cause.cause,
            cause.example.client,
            cause.example.node,
            cause.example.explanation
        );
    }
    let to = list(&cause.services)
        .or_else(|| list(&cause.nodes))
        .unwrap_or_default();
    let mut out = format!(
        "{} from {} to {to} {} ({})",
        words::count(cause.flows, "connection"),
        words::count(cause.clients, "client"),
        outcome(cause),
        cause.cause
    );
    // Writing to a string cannot fail.
    let _ = match cause.flows {
        1 => write!(out, " at {}", moment(&cause.first)),
        _ => write!(out, " from {} to {}", moment(&cause.first), moment(&cause.last)),
    };
    if cause.lost_ms > 0.0 {
        // How long a client waited after its last SYN is not known.
        let is_known = |fate: &Fate| matches!(fate, Fate::Stalled | Fate::Refused);
        let up_to = if cause.by_fate.keys().all(is_known) {
            ""
        } else {
            "up to "
        };
        let unit = TimeUnit::of([cause.lost_ms]);
        let _ = write!(out, ": {up_to}{} lost", unit.format(cause.lost_ms));
        if cause.flows != 1 {
            let _ = write!(out, ", median {}", unit.format(cause.median_lost_ms));
        }
    }
    let _ = write!(
        out,
        ". {}{} -> {}{}: {}",
        if cause.flows == 1 { "" } else { "Example: " },
        cause.example.client,
        cause.example.node,
        match cause.example.flow {
            Some(flow) => format!(" (flow {flow})"),
            None => String::new(),
        },
        cause.example.explanation
    );
    out
}

/// The outcome of the flows of a cause, as a verb.
fn outcome(cause: &CauseSummary) -> String {
    let was = was(cause.flows);
    let mut fates = cause.by_fate.keys();
    match (fates.next(), fates.next()) {
        (Some(Fate::Established), None) => format!("{was} misdirected"),
        (Some(Fate::Stalled), None) => format!("{was} delayed"),
        (Some(Fate::Dropped), None) => format!("{was} dropped"),
        (Some(Fate::Refused), None) => format!("{was} refused"),
        (Some(Fate::Unanswered), None) => "got no answer".to_owned(),
        (Some(Fate::Pending), None) => format!("{was} still pending"),
        _ if cause.by_fate.contains_key(&Fate::Stalled) => "failed or were delayed".to_owned(),
        _ => "failed".to_owned(),
    }
}

fn advice(out: &mut Text, summary: &Summary) {
    let has_none = |cause: &CauseSummary| cause.advice.is_none() && cause.example.advice.is_none();
    if summary.causes.iter().all(has_none) {
        return;
    }
    out.gap();
    out.line("What to do");
    for cause in &summary.causes {
        let example = &cause.example;
        let Some(advice) = example.advice.as_deref().or(cause.advice) else {
            continue;
        };
        let flow = example.flow.filter(|_| example.advice.is_some());
        let of = flow.map_or_else(String::new, |flow| format!(" (for flow {flow})"));
        out.line(format_args!("  {}{of}: {advice}", cause.cause));
    }
}

/// Flows by fate.
pub(in crate::report) fn fates(by_fate: &BTreeMap<Fate, u64>) -> String {
    let fates: Vec<String> = by_fate
        .iter()
        .map(|(fate, count)| format!("{count} {fate}"))
        .collect();
    if fates.is_empty() {
        "none".to_owned()
    } else {
        fates.join(", ")
    }
}

/// The most frequent names; `None` without any.
pub(in crate::report) fn list(names: &Names) -> Option<String> {
    let (most, others) = names.first(MOST_LISTED);
    let mut listed: Vec<String> = most
        .iter()
        .map(|(name, count)| match count {
            1 => (*name).to_owned(),
            count => format!("{name} ({count})"),
        })
        .collect();
    if others != 0 {
        listed.push(format!("{others} more"));
    }
    (!listed.is_empty()).then(|| listed.join(", "))
}
