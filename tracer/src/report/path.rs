//! The path of a flow, one line per step.

mod ipvs;
mod note;
mod socket;

use nix::errno::Errno;
use tracer_common::{
    hook::Hook,
    record,
    tcp::Part,
    uapi::verdict::{self, NF_ACCEPT, NF_DROP, NF_STOLEN},
};

use crate::{
    decode::event::Payload,
    facts::Facts,
    finding::clock::milliseconds,
    flow::model::{Flow, Step},
};

/// One step of a flow's path.
#[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
pub struct PathStep {
    /// Milliseconds since the flow's first SYN.
    pub t_ms: f64,
    /// Kernel function or tracepoint.
    pub hook: &'static str,
    /// Device, if known.
    pub dev: Option<String>,
    /// Inode number of the network namespace, if known.
    pub netns: Option<u32>,
    /// The CPU that ran it.
    pub cpu: u16,
    /// The function's return value, by name where it has one.
    pub verdict: Option<String>,
    /// The event, in words.
    pub note: String,
    /// Whether the packet is dropped here, or the function returned a verdict that drops it.
    #[serde(skip)]
    pub is_drop: bool,
    /// The packet's direction, if this step shows the packet itself.
    #[serde(skip)]
    pub heading: Option<Heading>,
}

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heading {
    /// To the backend.
    Inward,
    /// To the client.
    Back,
}

/// All steps in the order of their times.
#[must_use]
pub fn steps(flow: &Flow, facts: &Facts) -> Vec<PathStep> {
    numbered(flow, facts).into_iter().map(|(_, step)| step).collect()
}

/// The same, each with the index of its step in [`Flow::steps`]. A step can have more than one line.
#[must_use]
pub fn numbered(flow: &Flow, facts: &Facts) -> Vec<(usize, PathStep)> {
    let mut steps: Vec<(usize, &Step)> = flow.steps.iter().enumerate().collect();
    steps.sort_by_key(|(_, step)| step.event.time_ns);
    let mut path = Vec::with_capacity(steps.len());
    // The last routing decision: it shows at which netfilter hook a connection is confirmed.
    let mut decision: Option<&record::Route> = None;
    for (index, step) in steps {
        if let Payload::Route(route) = &step.event.payload {
            decision = Some(route);
            // IPVS runs after the routing decision, and what was read there shows it.
            if step.event.hook.is_ipvs_request() {
                let decided = PathStep {
                    verdict: None,
                    is_drop: false,
                    heading: None,
                    ..line(flow, step, note::decision(route))
                };
                path.push((index, decided));
            }
        }
        path.push((index, line(flow, step, note::of(flow, step, decision, facts))));
    }
    path
}

/// Whether the packet is dropped at this step, or a netfilter function returned a verdict there that drops it.
#[must_use]
fn is_drop(step: &Step) -> bool {
    matches!(step.event.payload, Payload::Drop(_))
        || (step.event.hook.returns_verdict() && step.verdict.is_some_and(verdict::is_drop))
}

/// The packet's direction; `None` for a step that shows a decision about the packet.
fn heading(step: &Step) -> Option<Heading> {
    let hook = step.event.hook;
    let shows_packet = match &step.event.payload {
        Payload::Packet | Payload::Skipped(_) | Payload::Arrival(_) => !note::is_decision(hook),
        Payload::Route(_) => hook.is_ipvs_request(),
        _ => false,
    };
    match step.event.part {
        Part::Syn | Part::Ack if shows_packet => Some(Heading::Inward),
        Part::SynAck | Part::Rst if shows_packet => Some(Heading::Back),
        _ => None,
    }
}

fn line(flow: &Flow, step: &Step, note: String) -> PathStep {
    let event = &step.event;
    let inside = event
        .outer
        .map_or_else(String::new, |outer| format!(" (in {outer})"));
    let skipped = if step.probes_skipped {
        "; the kernel skipped the probes that follow: another probe was running on this CPU"
    } else {
        ""
    };
    PathStep {
        t_ms: milliseconds(event.time_ns.saturating_sub(flow.start_ns())),
        hook: event.function(),
        dev: event.dev.get(),
        netns: (event.netns != 0).then_some(event.netns),
        cpu: event.cpu,
        verdict: step.verdict.and_then(|verdict| verdict_name(step, verdict)),
        note: note + &inside + skipped,
        is_drop: is_drop(step),
        heading: heading(step),
    }
}

/// The verdict's name, for functions that return one.
fn verdict_name(step: &Step, verdict: i32) -> Option<String> {
    let hook = step.event.hook;
    if hook == Hook::IpvsTcpSchedule {
        return Some(if verdict == 0 { "stop" } else { "continue" }.to_owned());
    }
    if hook == Hook::CtAlloc {
        return Some(Errno::from_raw(-verdict).desc().to_owned());
    }
    hook.returns_verdict().then(|| match verdict::code(verdict) {
        NF_DROP => "NF_DROP".to_owned(),
        NF_ACCEPT => "NF_ACCEPT".to_owned(),
        NF_STOLEN if verdict::is_drop_reason(verdict) => "NF_DROP_REASON".to_owned(),
        NF_STOLEN => "NF_STOLEN".to_owned(),
        _ => verdict.to_string(),
    })
}
