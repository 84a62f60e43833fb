//! Packets that a rule queued for a program, and that no program took.

use tracer_common::hook::Hook;

use super::{
    Blame, hook_name,
    site::Site,
    suspects::{self, Suspect},
};
use crate::{
    diagnose::{case::Case, evidence::Evidence},
    facts::{iptables::Outcome, nft::rule::Decides},
    flow::model::Step,
};

/// The target of iptables that queues.
const NFQUEUE: &str = "NFQUEUE";

/// The rules that can have queued the packet. Which one it was the kernel does not show.
pub(super) fn nobody_took<'a>(case: &Case<'a>) -> Option<(&'a Step, Blame<'a>)> {
    let (step, site) = (case.discarded?, Site::of(case)?);
    if !site.is_queue {
        return None;
    }
    let nf_hook = site.nf_hook.map_or("unknown", hook_name);
    let mut evidence = vec![
        Evidence::seen("netfilter hook", nf_hook, Hook::KfreeSkb),
        Evidence::seen("verdict", "queue, for a program; none took it", Hook::KfreeSkb),
    ];
    let able = suspects::loaded(case, step, &site);
    let able: Vec<_> = able.into_iter().filter(|(suspect, _)| queues(suspect)).collect();
    let which = match able.as_slice() {
        [] => String::new(),
        [(one, source)] => {
            evidence.push(Evidence::read("rule", one.to_string(), source));
            format!(": {one}")
        }
        [(_, source), ..] => {
            let list = suspects::list(able.iter().map(|(suspect, _)| suspect));
            evidence.push(Evidence::read("rule", format!("one of: {list}"), source));
            String::new()
        }
    };
    Some((
        step,
        Blame {
            words: format!(
                "a rule at the {nf_hook} hook that queues packets for a program{which}. No program took it: none \
                 listens on that queue, or the queue is full"
            ),
            evidence,
            rule: None,
        },
    ))
}

fn queues(suspect: &Suspect<'_>) -> bool {
    match suspect {
        Suspect::Perhaps(rule) => match &rule.decides {
            Decides::Other(name) => name == "queue",
            Decides::Extension(name) => name == NFQUEUE,
            _ => false,
        },
        Suspect::Legacy(_, Outcome::Extension { name, .. }) => *name == NFQUEUE,
        _ => false,
    }
}
