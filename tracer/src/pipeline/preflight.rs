//! What every tracing command does first: is this kernel fit, are we allowed, and what is there to follow?

use std::{collections::BTreeSet, fs};

use anyhow::Context as _;

use super::error::PipelineError;
use crate::{
    facts::ipvs::Listens,
    finding,
    node::ipvs,
    probe::{
        attach::{self, AttachError, Selection},
        btf::BtfError,
        kernel_info::{KernelInfo, KernelInfoError},
        kernel_watch::KernelWatch,
        offsets::Offsets,
    },
};

/// The NodePort range of a cluster that sets no other.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// What is needed to attach.
pub struct Ready {
    /// The kernel as it is.
    pub kernel: KernelInfo,
    /// What tells when that changes.
    pub watch: KernelWatch,
}

/// What was said to be unreadable, so that it is said once.
#[derive(Default)]
pub struct Unreadable(BTreeSet<&'static str>);

impl Unreadable {
    /// Says on stderr how much of the kernel's state cannot be read here, and why: what depends on it will be unknown.
    pub fn tell(&mut self, offsets: &Offsets) {
        for (why, paths) in self.take_new(offsets) {
            eprintln!(
                "tracer: {} members of the kernel's structs cannot be read ({why}): a cause that rests on them alone is \
                 `unknown`; `tracer hooks` names them",
                paths.len()
            );
        }
    }

    /// Names them.
    pub fn name(&mut self, offsets: &Offsets) {
        for (why, paths) in self.take_new(offsets) {
            eprintln!(
                "tracer: cannot read {}: {why}; causes that only they prove are `unknown`",
                paths.join(", ")
            );
        }
    }

    /// What was not said yet, by the reason.
    fn take_new<'a>(&mut self, offsets: &'a Offsets) -> Vec<(&'a str, Vec<&'static str>)> {
        let mut out: Vec<_> = offsets.unknown().into_iter().collect();
        for (_, paths) in &mut out {
            paths.retain(|path| self.0.insert(path));
        }
        out.retain(|(_, paths)| !paths.is_empty());
        out
    }
}

/// Looks at privileges and kernel.
pub fn prepare() -> Result<Ready, PipelineError> {
    if !attach::has_kprobes() {
        return Err(unsupported(&AttachError::NoKprobes.to_string()));
    }
    privileges()?;
    let watch = KernelWatch::new();
    let kernel = watch.read_kernel().map_err(|error| match error {
        KernelInfoError::Btf(BtfError::Read { .. }) => unsupported(
            "this kernel has no BTF (CONFIG_DEBUG_INFO_BTF is off), so its structs cannot be read",
        ),
        other => PipelineError::Failed(other.into()),
    })?;
    Ok(Ready { kernel, watch })
}

fn unsupported(why: &str) -> PipelineError {
    PipelineError::Unsupported(format!(
        "{why}; trace on another node of the path, or look at `ipvsadm -Lnc` and `nstat` here"
    ))
}

/// Capabilities by bit (uapi/linux/capability.h).
const CAPABILITIES: [(&str, u32); 4] = [
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYSLOG", 34),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// `CAP_SYS_ADMIN` does for all of it; since 5.8, `CAP_BPF` and `CAP_PERFMON` do, with `CAP_SYSLOG` for the addresses
/// of functions.
fn privileges() -> Result<(), PipelineError> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .context("/proc/self/status does not tell the capabilities")?;
    let missing: Vec<&str> = CAPABILITIES
        .into_iter()
        .filter(|(_, bit)| effective >> bit & 1 == 0)
        .map(|(name, _)| name)
        .collect();
    if !missing.contains(&"CAP_SYS_ADMIN") {
        return Ok(());
    }
    if missing == ["CAP_SYS_ADMIN"] {
        // Debian's and Ubuntu's kernels have levels above mainline's 2 at which CAP_PERFMON does not do.
        let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
        return match level.trim().parse::<i32>() {
            Ok(level) if level > 2 => Err(PipelineError::Privilege(format!(
                "tracing needs CAP_SYS_ADMIN where kernel.perf_event_paranoid is {level}: run it as root, for \
                 instance with sudo"
            ))),
            _ => Ok(()),
        };
    }
    let needed: Vec<&str> = missing
        .into_iter()
        .filter(|name| *name != "CAP_SYS_ADMIN")
        .collect();
    Err(PipelineError::Privilege(format!(
        "tracing needs {} (or CAP_SYS_ADMIN): run it as root, for instance with sudo",
        needed.join(", ")
    )))
}

/// The ports to follow: those asked for, or the NodePort range and the services that IPVS has here.
#[must_use]
pub fn selection(selection: &finding::selection::Selection) -> Selection {
    let mut ports: BTreeSet<u16> = selection.ports.iter().cloned().flatten().collect();
    if ports.is_empty() {
        ports.extend(NODE_PORTS);
        ports.extend(ipvs::services().unwrap_or_default().iter().filter_map(
            |service| match service.listens {
                Listens::Address { address, .. } if address.port() != 0 => Some(address.port()),
                _ => None,
            },
        ));
    }
    Selection {
        ports: ports.into_iter().collect(),
        clients: selection.clients.clone(),
    }
}

/// The host's name and the kernel's release.
pub(super) fn names() -> (String, String) {
    (kernel("hostname"), kernel("osrelease"))
}

/// The kernel's version and machine, as `uname -vm` prints them.
pub(super) fn uname() -> String {
    format!("{} {}", kernel("version"), std::env::consts::ARCH)
}

/// What tells this boot from all others.
pub(super) fn boot_id() -> String {
    kernel("random/boot_id")
}

fn kernel(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/kernel/{name}"))
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
