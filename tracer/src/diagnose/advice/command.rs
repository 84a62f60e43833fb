//! Commands and settings for advice.

use std::{fmt::Write as _, net::IpAddr};

use tracer_common::tuple::Tuple;

use crate::{
    diagnose::{
        case::{Case, Proof},
        evidence::Key,
    },
    facts::{NetnsFacts, route_lookup::RouteLookup},
    flow::model::Step,
};

impl Proof {
    /// The value of the first evidence of this kind.
    pub(super) fn value(&self, key: Key) -> Option<&str> {
        let fact = self.evidence.iter().find(|fact| fact.key == key)?;
        Some(&fact.value)
    }

    /// The number with which that value begins.
    pub(super) fn number(&self, key: Key) -> Option<i64> {
        let value = self.value(key)?;
        let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        value[..end].parse().ok()
    }
}

/// The current value of a sysctl, compared with the one to set.
enum Setting {
    /// The sysctl has that value already.
    HasIt,
    /// The sysctl has this value.
    Is(String),
    /// This kernel lacks the sysctl, or its value is unknown.
    Absent,
}

impl Setting {
    fn of(netns: Option<&NetnsFacts>, name: &str, value: &str) -> Self {
        match netns.and_then(|netns| netns.sysctls.get(name)) {
            Some(now) if now == value => Self::HasIt,
            Some(now) => Self::Is(now.to_owned()),
            None => Self::Absent,
        }
    }
}

/// The command that sets a sysctl of the node's netns, with its current value. `None` if it has the new value already, if this
/// kernel lacks it, or if its value is unknown.
pub(super) fn set(case: &Case<'_>, name: &str, value: &str) -> Option<String> {
    match Setting::of(case.netns(), name, value) {
        Setting::Is(now) => Some(format!("`sysctl -w {name}={value}` (now {now})")),
        Setting::HasIt | Setting::Absent => None,
    }
}

/// Like [`set`], with the value in the evidence where that of the node's netns is unknown.
pub(super) fn set_seen(case: &Case<'_>, proof: &Proof, key: Key, name: &str, value: &str) -> Option<String> {
    if setting(case, name).is_some() {
        return set(case, name, value);
    }
    let now = proof.value(key).filter(|&now| now != value)?;
    Some(format!("`sysctl -w {name}={value}` (now {now})"))
}

/// Whether a sysctl of the node's netns is known to have this value.
pub(super) fn has(case: &Case<'_>, name: &str, value: &str) -> bool {
    matches!(Setting::of(case.netns(), name, value), Setting::HasIt)
}

/// The value of a sysctl of the node's netns, if it is known.
pub(in crate::diagnose) fn setting<'a>(case: &Case<'a>, name: &str) -> Option<&'a str> {
    case.netns()?.sysctls.get(name)
}

/// A command to run in a network namespace: unchanged on the node, elsewhere with `nsenter` and a process of that namespace.
pub(super) fn run(case: &Case<'_>, netns: u32, command: &str) -> String {
    if netns == case.flow.netns || netns == 0 {
        return format!("`{command}`");
    }
    match case.facts.pids.get(&netns) {
        Some(pid) => format!("`nsenter -t {pid} -n {command}`"),
        None => {
            format!("`nsenter -n -t $(lsns -rno pid {netns} | head -1) {command}`")
        }
    }
}

/// The device at which a step happened.
pub(super) fn device(case: &Case<'_>, step: &Step) -> Option<String> {
    step.event.dev.get().or_else(|| {
        let link = case
            .facts
            .netns
            .get(&step.event.netns)?
            .link(step.event.ifindex)?;
        Some(link.name.clone())
    })
}

/// The netns of a step.
pub(super) fn netns_of(step: &Step) -> u32 {
    if step.event.netns == 0 {
        step.netns
    } else {
        step.event.netns
    }
}

/// The command that shows the route to an address.
pub(super) fn route_to(address: IpAddr) -> String {
    format!("ip route get {address}")
}

/// The command that shows the route of a lookup. Packets usually carry a mark for policy rules, which may also match the source
/// and the input device.
pub(super) fn route_of(case: &Case<'_>, lookup: &RouteLookup) -> String {
    let mut command = route_to(lookup.to);
    let (Some(from), Some(mark @ 1..)) = (lookup.from, lookup.mark) else {
        return command;
    };
    let _ = write!(command, " from {from}");
    let input = lookup.input.filter(|_| !lookup.is_reverse);
    let link = input.and_then(|index| case.facts.netns.get(&lookup.netns)?.link(index));
    if let Some(link) = link {
        let _ = write!(command, " iif {}", link.name);
    }
    let _ = write!(command, " mark {mark:#x}");
    command
}

/// The endpoints of the flow's service, with the command that lists them.
pub(super) fn endpoints(case: &Case<'_>) -> String {
    let node = case.flow.node();
    match case
        .facts
        .service(case.flow.netns, node)
        .and_then(|service| service.split_once('/'))
    {
        Some((namespace, name)) => format!(
            "the endpoints of {namespace}/{name} and their readiness (`kubectl -n {namespace} get endpointslices -l \
             kubernetes.io/service-name={name}`)"
        ),
        None => format!(
            "the endpoints of the service of port {} and their readiness",
            node.port()
        ),
    }
}

/// Selects the conntrack entry of a connection by its tuple in the original direction.
pub(super) fn entry(original: &Tuple) -> String {
    let (from, to) = (original.source(), original.destination());
    let family = if original.is_v6() { "-f ipv6 " } else { "" };
    format!(
        "{family}-p tcp -s {} --sport {} -d {} --dport {}",
        from.ip(),
        from.port(),
        to.ip(),
        to.port()
    )
}

/// The command that deletes the conntrack entry with this tuple in the original direction, and no other.
pub(in crate::diagnose) fn delete_entry(original: &Tuple) -> String {
    format!("`conntrack -D {}`", entry(original))
}

/// The command that lists that conntrack entry.
pub(super) fn list_entry(original: &Tuple) -> String {
    format!("`conntrack -L {}`", entry(original))
}
