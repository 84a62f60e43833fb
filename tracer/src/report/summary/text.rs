//! The summary for people: numbers, causes, what to write into the ticket, what to do.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{CauseSummary, Names, Otherwise, Several, Summary};
use crate::flow::fate::Fate;

/// So many causes have sentences of their own.
const MOST_CAUSES: usize = 3;

/// The summary as text of several lines.
#[must_use]
pub fn text(summary: &Summary) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = numbers(&mut out, summary);
    if summary.causes.is_empty() {
        let _ = writeln!(out, "\n{}", summary.without_cause());
        let _ = differences(&mut out, summary);
        return out;
    }
    let _ = causes(&mut out, summary);
    let _ = differences(&mut out, summary);
    let _ = ticket(&mut out, summary);
    let _ = advice(&mut out, summary);
    out
}

fn numbers(out: &mut String, summary: &Summary) -> std::fmt::Result {
    for host in &summary.hosts {
        writeln!(out, "Recorded on {}, kernel {}", host.host, host.kernel)?;
    }
    if let Some(only) = &summary.only {
        writeln!(out, "Only what was asked for: {only}")?;
    }
    if let (Some(first), Some(last)) = (&summary.first, &summary.last) {
        writeln!(out, "First flow {}, last flow {}", moment(first), moment(last))?;
    }
    writeln!(
        out,
        "{} of {}: {}",
        plural(summary.flows, "flow"),
        plural(summary.clients, "client"),
        fates(&summary.by_fate)
    )?;
    if let Some(seen) = summary.several.as_ref().and_then(seen_twice) {
        writeln!(out, "{seen}")?;
    }
    writeln!(out, "{}", records(summary))?;
    for what in &summary.damage {
        writeln!(out, "Not all of it could be read: {what}")?;
    }
    match skipped(summary) {
        Some(skipped) => writeln!(out, "{skipped}"),
        None => Ok(()),
    }
}

/// How many records there were, and how many of them were lost.
pub(in crate::report) fn records(summary: &Summary) -> String {
    match summary.lost {
        0 => format!("{} records, none lost", summary.records),
        lost => format!(
            "{} records, {lost} lost: what is said of single flows may be incomplete",
            summary.records
        ),
    }
}

/// Of how many flows the kernel skipped probes; `None` if of none.
pub(in crate::report) fn skipped(summary: &Summary) -> Option<String> {
    let skipped = usize::try_from(summary.probes_skipped)
        .ok()
        .filter(|&skipped| skipped != 0)?;
    Some(format!(
        "The kernel skipped probes on the way of {}, because another probe was at work on the same CPU",
        plural(skipped, "flow")
    ))
}

/// How many connections more than one run saw, and where; `None` if none.
pub(in crate::report) fn seen_twice(several: &Several) -> Option<String> {
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
        explained => format!("; of {explained} another node than the one that the client asked says why"),
    };
    let on_one = several.seen_on.iter().any(|seen| seen.hosts.len() < 2);
    let whereof = if on_one {
        "in more than one recording"
    } else {
        "on more than one node"
    };
    let verb = if several.connections == 1 { "was" } else { "were" };
    let count = usize::try_from(several.connections).unwrap_or(usize::MAX);
    Some(format!(
        "{} {verb} seen {whereof}, and counted once: {}{others}{explained}",
        plural(count, "connection"),
        hosts.join(", ")
    ))
}

fn differences(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let Some(several) = summary
        .several
        .as_ref()
        .filter(|several| !several.otherwise.is_empty())
    else {
        return Ok(());
    };
    writeln!(out, "\nSeen differently")?;
    for connection in &several.otherwise {
        writeln!(out, "  {}", connection_of(connection))?;
        for said in said_on(connection) {
            writeln!(out, "    {said}")?;
        }
    }
    match several.others {
        0 => Ok(()),
        others => writeln!(out, "  {others} more"),
    }
}

/// Which connection it is of which nodes say different things.
pub(in crate::report) fn connection_of(connection: &Otherwise) -> String {
    format!(
        "{} -> {}, at {}",
        connection.client,
        connection.node,
        moment(&connection.start)
    )
}

/// What each of them says.
pub(in crate::report) fn said_on(connection: &Otherwise) -> impl Iterator<Item = String> {
    connection.said.iter().map(|said| {
        let cause = said.cause.map_or_else(String::new, |cause| format!(", {cause}"));
        format!(
            "{}: flow {}, {}{cause}: {}",
            said.host, said.id, said.fate, said.explanation
        )
    })
}

fn causes(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let width = summary
        .causes
        .iter()
        .map(|cause| cause.cause.name().len())
        .fold("cause".len(), usize::max);
    writeln!(
        out,
        "\n{:<width$}  {:>7}  {:>7}  {:>9}  {:>9}  from      to",
        "cause", "flows", "clients", "lost", "median"
    )?;
    for cause in &summary.causes {
        writeln!(
            out,
            "{:<width$}  {:>7}  {:>7}  {:>9}  {:>9}  {}  {}",
            cause.cause.name(),
            cause.flows,
            cause.clients,
            time(cause.lost_ms),
            time(cause.median_lost_ms),
            clock(&cause.first),
            clock(&cause.last)
        )?;
        for (what, names) in cause.names() {
            if let Some(list) = list(names) {
                writeln!(out, "    {what:<11}  {list}")?;
            }
        }
    }
    match widest(summary) {
        Some(widest) => writeln!(out, "{widest}"),
        None => Ok(()),
    }
}

/// Which cause hit most clients, if that is not the one that cost most.
pub(in crate::report) fn widest(summary: &Summary) -> Option<String> {
    let by_time = summary.causes.first().map(|cause| cause.cause);
    let widest = summary
        .by_clients
        .first()
        .filter(|&&widest| by_time != Some(widest))?;
    Some(format!("Most clients were hit by {widest}."))
}

fn ticket(out: &mut String, summary: &Summary) -> std::fmt::Result {
    writeln!(out, "\nFor the ticket")?;
    for sentence in sentences(summary) {
        writeln!(out, "  {sentence}")?;
    }
    Ok(())
}

/// What to write into the ticket: how many connections did not go well, and for each of the causes that cost most what
/// it did.
#[must_use]
pub fn sentences(summary: &Summary) -> Vec<String> {
    let mut out = vec![format!(
        "{} of {} to NodePorts of {} did not go well.",
        summary.not_well(),
        plural(summary.flows, "connection"),
        summary.host_names()
    )];
    out.extend(summary.causes.iter().take(MOST_CAUSES).map(sentence));
    let others: u64 = summary
        .causes
        .iter()
        .skip(MOST_CAUSES)
        .map(|cause| cause.flows)
        .sum();
    if others != 0 {
        out.push(match summary.causes.len().saturating_sub(MOST_CAUSES) {
            1 => format!(
                "Another cause had {}.",
                plural(usize::try_from(others).unwrap_or(usize::MAX), "connection")
            ),
            causes => format!("{causes} other causes had {others} connections."),
        });
    }
    out
}

fn sentence(cause: &CauseSummary) -> String {
    let mut out = String::new();
    let to = list(&cause.services)
        .or_else(|| list(&cause.nodes))
        .unwrap_or_default();
    let connections = plural(usize::try_from(cause.flows).unwrap_or(usize::MAX), "connection");
    let when = if cause.flows == 1 { "at" } else { "from" };
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "{connections} of {} to {to} had {}, {when} {}",
        plural(cause.clients, "client"),
        cause.cause,
        moment(&cause.first)
    );
    if cause.flows != 1 {
        let _ = write!(out, " to {}", moment(&cause.last));
    }
    if cause.lost_ms > 0.0 {
        // How long a client went on waiting behind its last SYN is not known.
        let is_known = |fate: &Fate| matches!(fate, Fate::Stalled | Fate::Refused);
        let up_to = if cause.by_fate.keys().all(is_known) {
            ""
        } else {
            "up to "
        };
        let _ = write!(out, ", and lost {up_to}{} by it", time(cause.lost_ms));
        if cause.flows != 1 {
            let _ = write!(out, ", {} each at the median", time(cause.median_lost_ms));
        }
    }
    let _ = write!(
        out,
        ". {}{} -> {}{}: {}",
        if cause.flows == 1 { "" } else { "For instance " },
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

fn advice(out: &mut String, summary: &Summary) -> std::fmt::Result {
    if summary.causes.iter().all(|cause| cause.advice.is_none()) {
        return Ok(());
    }
    writeln!(out, "\nWhat to do")?;
    for cause in &summary.causes {
        if let Some(advice) = cause.advice {
            writeln!(out, "  {}: {advice}", cause.cause)?;
        }
    }
    Ok(())
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
    let mut told: Vec<String> = most
        .iter()
        .map(|(name, count)| match count {
            1 => (*name).to_owned(),
            count => format!("{name} ({count})"),
        })
        .collect();
    if others != 0 {
        told.push(format!("{others} more"));
    }
    (!told.is_empty()).then(|| told.join(", "))
}

const MOST_LISTED: usize = 4;

pub(in crate::report) fn plural(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// A time without its fraction.
pub(in crate::report) fn moment(rfc3339: &str) -> String {
    match rfc3339.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => rfc3339.to_owned(),
    }
}

/// The time of day.
pub(in crate::report) fn clock(rfc3339: &str) -> &str {
    rfc3339.get(11..19).unwrap_or(rfc3339)
}

pub(in crate::report) fn time(ms: f64) -> String {
    match ms {
        0.0..1_000.0 => format!("{ms:.0} ms"),
        1_000.0..600_000.0 => format!("{:.1} s", ms / 1_000.0),
        _ => format!("{:.0} min", ms / 60_000.0),
    }
}
