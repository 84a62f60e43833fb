//! Which SYNs were watched by all hooks.

use super::model::Flow;
use crate::decode::watch::Gaps;

/// Marks the SYNs of a flow during which not all hooks were attached: from each to the next, and from the last until the
/// fate is known.
pub(super) fn mark(flow: &mut Flow, gaps: &Gaps) {
    if gaps.is_empty() {
        return;
    }
    let end = flow
        .decided_ns()
        .unwrap_or_else(|| flow.last_syn_ns().saturating_add(flow.patience_ns));
    for index in 0..flow.attempts.len() {
        let begin = flow.attempts[index].time_ns;
        let until = flow.attempts.get(index + 1).map_or(end, |next| next.time_ns);
        flow.attempts[index].is_watched = gaps.is_watched(begin, until.max(begin));
    }
}
