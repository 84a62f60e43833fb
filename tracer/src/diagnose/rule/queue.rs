//! Packets that a rule queued for a program, and that no program accepted.

use tracer_common::hook::Hook;

use super::{
    culprit::{Culprit, hook_name},
    site::Site,
    suspects::{self, Suspect},
};
use crate::{
    diagnose::{
        blame::Blame,
        case::Case,
        evidence::{Evidence, Key},
    },
    facts::{iptables::Outcome, nft::rule::Decides},
    flow::model::Step,
};

/// The iptables target that queues.
const NFQUEUE: &str = "NFQUEUE";

/// The rules that could have queued a packet that no program accepted. The kernel does not show which one it was.
pub(super) fn unclaimed<'a>(case: &Case<'a>) -> Option<(&'a Step, Culprit<'a>)> {
    let (step, site) = (case.dropped?, Site::of(case)?);
    if !site.is_queue {
        return None;
    }
    let nf_hook = site.nf_hook.map_or("unknown", hook_name);
    let mut evidence = vec![
        Evidence::seen(Key::NetfilterHook, nf_hook, Hook::KfreeSkb),
        Evidence::seen(
            Key::Verdict,
            "queue, for a program; none accepted it",
            Hook::KfreeSkb,
        ),
    ];
    let able: Vec<_> = suspects::loaded(case, step, &site)
        .into_iter()
        .filter(|(suspect, _)| queues(suspect))
        .collect();
    let mut blame = Blame::default();
    let which = match able.as_slice() {
        [] => String::new(),
        [(one, source)] => {
            blame = one.blame();
            evidence.push(Evidence::read(Key::Rule, one.to_string(), source));
            format!(": {one}")
        }
        [(_, source), ..] => {
            let list = suspects::list(able.iter().map(|(suspect, _)| suspect));
            evidence.push(Evidence::read(Key::Rule, format!("one of: {list}"), source));
            String::new()
        }
    };
    Some((
        step,
        Culprit {
            words: format!(
                "a rule at the {nf_hook} hook that queues packets for a program{which}. No program accepted it: none listens on that \
                 queue, or the queue is full"
            ),
            evidence,
            blame,
            known: None,
        },
    ))
}

fn queues(suspect: &Suspect<'_>) -> bool {
    match suspect {
        Suspect::Possible(rule) => match &rule.decides {
            Decides::Other(name) => name == "queue",
            Decides::Extension(name) => name == NFQUEUE,
            _ => false,
        },
        Suspect::Legacy(_, Outcome::Extension { name, .. }) => *name == NFQUEUE,
        _ => false,
    }
}
