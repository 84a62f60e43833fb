//! Hazards of the kernel itself, and of tracing on it.

use super::hazard::{Hazard, Severity, State, Tested, setting};
use crate::facts::node_state::NodeState;

pub(super) const HAZARDS: [Hazard; 3] = [
    Hazard {
        id: "tracing",
        title: "tracer cannot trace on this kernel",
        severity: Severity::Informs,
        detect: "/sys/kernel/btf/vmlinux is missing, or lockdown is in confidentiality mode (/sys/kernel/security/lockdown).",
        why: "`tracer live` and `tracer record` need BTF and BPF. `tracer check` does not.",
        reference: "grafana/beyla#132",
        cause: None,
        tested: Tested::Fixture,
        judge: tracing,
    },
    Hazard {
        id: "paranoid",
        title: "Tracing needs CAP_SYS_ADMIN",
        severity: Severity::Informs,
        detect: "kernel.perf_event_paranoid is above 2.",
        why: "Kernels of Debian and Ubuntu then refuse perf events to CAP_PERFMON.",
        reference: "falcosecurity/falco#2487",
        cause: None,
        tested: Tested::Fixture,
        judge: paranoid,
    },
    Hazard {
        id: "kernel-eol",
        title: "The distribution gets no fixes any more",
        severity: Severity::Informs,
        detect: "ID and VERSION_ID in os-release are those of a release whose maintenance has ended.",
        why: "Known bugs of its kernel stay.",
        reference: "https://endoflife.date",
        cause: None,
        tested: Tested::Fixture,
        judge: end_of_life,
    },
];

/// Releases whose free maintenance has ended: `ID`, `VERSION_ID` up to the first dot, and when it ended.
const ENDED: [(&str, &str, &str); 9] = [
    ("centos", "6", "2020-11-30"),
    ("centos", "7", "2024-06-30"),
    ("centos", "8", "2021-12-31"),
    ("rhel", "7", "2024-06-30"),
    ("debian", "9", "2022-06-30"),
    ("debian", "10", "2024-06-30"),
    ("ubuntu", "16.04", "2021-04-30"),
    ("ubuntu", "18.04", "2023-05-31"),
    ("ubuntu", "20.04", "2025-05-31"),
];

fn tracing(node: &NodeState) -> State {
    let tracing = &node.tracing;
    if tracing.lockdown.as_deref() == Some("confidentiality") {
        return State::armed(
            "`tracer live` cannot run: lockdown is in confidentiality mode",
            ["lockdown = confidentiality".to_owned()],
            "use `tracer check`; boot with lockdown=integrity to trace",
        );
    }
    if !tracing.has_btf {
        return State::armed(
            format!("`tracer live` cannot run: kernel {} has no BTF", node.kernel),
            ["/sys/kernel/btf/vmlinux is missing".to_owned()],
            "use `tracer check`; to trace, boot a kernel built with CONFIG_DEBUG_INFO_BTF, for example of RHEL 8.5 or later",
        );
    }
    let ipvs = node.modules.contains("ip_vs") && !tracing.has_ipvs_btf;
    State::fine(if ipvs {
        "the kernel has BTF; ip_vs has none, and tracer proves its layout when it starts"
    } else {
        "the kernel has BTF"
    })
}

fn paranoid(node: &NodeState) -> State {
    let name = "kernel.perf_event_paranoid";
    match node.number(name) {
        None => State::unknown(format!("{name} is not readable")),
        Some(level) if level <= 2 => State::fine(format!("{name} is {level}")),
        Some(level) => State::armed(
            format!("{name} is {level}: tracing needs CAP_SYS_ADMIN, CAP_PERFMON is not enough"),
            [setting(node, name)],
            "run tracer as root, or sysctl -w kernel.perf_event_paranoid=2",
        ),
    }
}

fn end_of_life(node: &NodeState) -> State {
    let found = &node.distribution;
    if found.id.is_empty() {
        return State::unknown("os-release is not readable");
    }
    let is_it = |version: &str| found.version == version || found.version.starts_with(&format!("{version}."));
    match ENDED
        .iter()
        .find(|(id, version, _)| *id == found.id && is_it(version))
    {
        None => State::fine(format!("no end of maintenance is known for {}", found.name)),
        Some((_, _, ended)) => State::armed(
            format!(
                "{} has had no fixes since {ended}; its kernel is {}",
                found.name, node.kernel
            ),
            [format!("ID = {}, VERSION_ID = {}", found.id, found.version)],
            "plan the change to a maintained release",
        ),
    }
}
