//! The answer: discarded on its way back through this node, not translated, or gone another way.

use tracer_common::hook::Hook;

use super::{case::Proof, catalogue::Row, cause::Cause, evidence::Evidence};

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::ReturnDropped,
    says: "The SYN-ACK was discarded on this node; the cause of that drop is named inside.",
    proof: "The SYN-ACK was freed as discarded in the node's network namespace and went no further.",
    advice: Some("Look at the part of this node that is named as having discarded the answer."),
    occurs: "Every kernel and dataplane.",
    // What discarded the answer is asked for first, as for a SYN; `dropped` then puts this around it.
    hooks: &[&[Hook::KfreeSkb]],
    find: |_| None,
}];

/// Puts "the answer was discarded" around the cause of that.
pub(super) fn dropped(cause: Cause, inner: Proof) -> (Cause, Proof) {
    let mut evidence = vec![Evidence::seen(
        "cause of the answer's drop",
        cause.name(),
        Hook::KfreeSkb,
    )];
    evidence.extend(inner.evidence);
    let proof = Proof {
        explanation: format!(
            "The backend answered, but its SYN-ACK did not leave this node. {}",
            inner.explanation
        ),
        evidence,
    };
    (Cause::ReturnDropped, proof)
}
