//! Finds the cause of one SYN's end: the first row of the catalogue that finds its proof, unless something was missed.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    advice,
    case::{Case, Proof, Situation},
    catalogue,
    cause::Cause,
    evidence::{self, Evidence, Key},
    nat, return_path,
    row::Absence,
};
use crate::{
    facts::Facts,
    flow::{fate::Fate, model::Flow},
};

/// A cause that was found, with its proof.
pub(super) struct Found {
    pub(super) cause: Cause,
    /// Why the SYN-ACK was dropped.
    pub(super) inner: Option<Cause>,
    pub(super) proof: Proof,
}

/// The cause of one SYN's end; `None` while nothing is wrong with the flow.
pub(super) fn of_syn(flow: &Flow, fate: Fate, facts: &Facts, sent: usize) -> Option<Found> {
    let case = Case::of(flow, fate, facts, sent)?;
    let mut found = note_depth(&case, check_gaps(&case, explain(&case)?));
    let cause = found.inner.unwrap_or(found.cause);
    if found.cause != Cause::Unknown && found.proof.advice.is_none() {
        found.proof.advice = advice::of(cause, &case, &found.proof);
    }
    Some(found)
}

/// Explains a case by its SYN, or by a later one that was dropped at the same place.
fn explain(case: &Case<'_>) -> Option<Found> {
    let first = detect(case)?;
    let is_known = |found: &Found| found.cause != Cause::Unknown;
    if is_known(&first) {
        return Some(first);
    }
    let later = case.later().find_map(|later| detect(&later).filter(is_known));
    Some(later.map_or(first, |mut found| {
        found.proof.evidence.push(Evidence::seen(
            Key::EarlierSyn,
            "dropped at the same place, before the hooks that show the cause were attached",
            Hook::KfreeSkb,
        ));
        found
    }))
}

/// The first row of the catalogue that finds its proof.
fn detect(case: &Case<'_>) -> Option<Found> {
    let is_established = case.situation == Situation::Established;
    let mut rows = catalogue::rows()
        .filter(|row| !is_established || row.cause.misdirects())
        .filter(|row| row.is_provable(case));
    let (cause, mut proof) = rows.find_map(|row| Some((row.cause, (row.detect)(case)?)))?;
    if let Some(outer) = case.dropped.and_then(|step| step.event.outer) {
        proof
            .evidence
            .push(Evidence::seen(Key::Outer, outer.to_string(), Hook::KfreeSkb));
    }
    proof.evidence.extend(nat::rule_of(case));
    let is_answer_dropped = case.situation == Situation::Dropped
        && cause != Cause::ReturnNotTranslated
        && case.dropped.is_some_and(|step| step.event.part == Part::SynAck);
    Some(if is_answer_dropped {
        Found {
            cause: Cause::ReturnDropped,
            inner: Some(cause),
            proof: return_path::dropped(case, cause, proof),
        }
    } else {
        Found {
            cause,
            inner: None,
            proof,
        }
    })
}

/// Adds to an unknown cause that not all hooks were attached during this SYN, and what to do.
fn note_depth(case: &Case<'_>, mut found: Found) -> Found {
    if found.cause == Cause::Unknown && !case.is_watched() {
        found.proof.explanation.push_str(
            " tracer watched this SYN at depth light, so it did not see the whole path. Trace with --depth full to see it.",
        );
        found.proof.evidence.push(Evidence::read(
            Key::Depth,
            "light: hooks that run for every packet were not attached",
            "tracer",
        ));
    }
    found
}

/// The consequence of a gap in the records, as the end of a sentence.
fn so(found: &Found, stays: bool) -> &'static str {
    if stays || found.cause == Cause::Unknown {
        "this may be incomplete"
    } else {
        "this is not proven"
    }
}

/// Adds a note if records were lost during the flow, or probes were skipped for this SYN. A cause that relies on what
/// may have been missed becomes unknown: what was not watched is not "did not happen".
fn check_gaps(case: &Case<'_>, mut found: Found) -> Found {
    let absence = catalogue::row(found.cause).map_or(Absence::Nothing, |row| row.absence);
    let unknown = |found: Found| Found {
        cause: Cause::Unknown,
        inner: None,
        proof: Proof {
            // The advice is for the cause that is no longer proven.
            advice: None,
            ..found.proof
        },
    };
    let were_lost = case
        .facts
        .lost_ns
        .is_some_and(|lost| lost >= case.flow.start_ns());
    if were_lost || case.flow.was_unfollowed {
        let so = so(&found, absence == Absence::Nothing);
        let (what, place) = if were_lost {
            ("Records were lost during this flow", "ring buffer")
        } else {
            (
                "The table of flows was too full to follow this flow all the time",
                "table of flows",
            )
        };
        let note = format!(" {what}, so {so}.");
        found.proof.explanation.push_str(&note);
        found
            .proof
            .evidence
            .push(Evidence::read(Key::RecordsLost, "during this flow", place));
        return if absence == Absence::Nothing {
            found
        } else {
            unknown(found)
        };
    }
    // Tracepoints are not skipped.
    let skipped = case.steps().find(|step| step.probes_skipped);
    let Some(step) = skipped.filter(|_| absence == Absence::Probes || found.cause == Cause::Unknown) else {
        return found;
    };
    let note = format!(
        " The kernel skipped tracer's probes for part of the path, because another kprobe was running on the same CPU, so {}.",
        so(&found, false)
    );
    found.proof.explanation.push_str(&note);
    found.proof.evidence.push(Evidence::seen(
        Key::ProbesSkipped,
        format!("from {} on", evidence::place(step)),
        step.event.hook,
    ));
    unknown(found)
}
