//! The checks that start every tracing command: kernel, privileges, and the ports to trace.

use std::{collections::BTreeSet, fs};

use anyhow::Context as _;

use super::{error::PipelineError, surroundings};
use crate::{
    facts::ipvs::Listens,
    finding,
    node::ipvs,
    probe::{
        attach::{self, AttachError, Selection},
        btf::BtfError,
        flow_table,
        kernel_info::{KernelInfo, KernelInfoError},
        kernel_watch::KernelWatch,
        offsets::Offsets,
    },
    report::escape::note,
};

/// The default NodePort range of a cluster.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The prerequisites of attaching.
pub struct Ready {
    /// The kernel's functions, types and modules.
    pub kernel: KernelInfo,
    /// Reports modules that are loaded or unloaded.
    pub module_watch: KernelWatch,
}

/// Reports each unreadable member of a kernel struct once.
#[derive(Default)]
pub struct Unreadable(BTreeSet<&'static str>);

impl Unreadable {
    /// Prints on stderr how many members cannot be read, and why.
    pub fn count(&mut self, offsets: &Offsets) {
        for (why, paths) in self.take_new(offsets) {
            note(format_args!(
                "cannot read {} of the kernel's struct members ({why}); causes that need them are reported as \
                 `unknown`; `tracer hooks` lists them",
                paths.len()
            ));
        }
    }

    /// Prints on stderr which members cannot be read, and why.
    pub fn list(&mut self, offsets: &Offsets) {
        for (why, paths) in self.take_new(offsets) {
            note(format_args!(
                "cannot read {}: {why}; causes that need them are reported as `unknown`",
                paths.join(", ")
            ));
        }
    }

    /// The findings not yet reported, by reason.
    fn take_new<'a>(&mut self, offsets: &'a Offsets) -> Vec<(&'a str, Vec<&'static str>)> {
        let mut out: Vec<_> = offsets.unknown().into_iter().collect();
        for (_, paths) in &mut out {
            paths.retain(|path| self.0.insert(path));
        }
        out.retain(|(_, paths)| !paths.is_empty());
        out
    }
}

/// Checks privileges and reads what the kernel offers.
pub fn prepare() -> Result<Ready, PipelineError> {
    if !attach::has_kprobes() {
        return Err(unsupported(&AttachError::NoKprobes.to_string()));
    }
    if surroundings::is_confidential() {
        return Err(unsupported(
            "this kernel is locked down (lockdown=confidentiality), which forbids kprobes and reading kernel memory: boot \
             it with lockdown=integrity or without lockdown",
        ));
    }
    privileges()?;
    surroundings::warn();
    let module_watch = KernelWatch::new();
    let kernel = module_watch.read_kernel().map_err(|error| match error {
        KernelInfoError::Btf(BtfError::Read { .. }) => unsupported(
            "this kernel has no BTF (CONFIG_DEBUG_INFO_BTF is off): tracer cannot read its structs",
        ),
        other => PipelineError::Failed(other.into()),
    })?;
    Ok(Ready { kernel, module_watch })
}

fn unsupported(why: &str) -> PipelineError {
    PipelineError::Unsupported(format!(
        "{why}; run `tracer check` here, which needs no BPF, or trace on another node on the path"
    ))
}

/// The error of a kernel half that could not be attached.
#[must_use]
pub fn cannot_attach(error: AttachError) -> PipelineError {
    if attach::is_beyond_memlock(&error) {
        return PipelineError::Privilege(
            "tracing needs more locked memory than this process may have: run `ulimit -l unlimited` first, or add \
             CAP_SYS_RESOURCE"
                .to_owned(),
        );
    }
    PipelineError::Failed(anyhow::Error::from(error).context("cannot attach hooks"))
}

/// Capabilities by bit (uapi/linux/capability.h).
const CAPABILITIES: [(&str, u32); 4] = [
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYSLOG", 34),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// Checks that this process may trace. `CAP_SYS_ADMIN` covers everything; since 5.8 `CAP_BPF` and `CAP_PERFMON` do too, with
/// `CAP_SYSLOG` for the addresses of functions.
fn privileges() -> Result<(), PipelineError> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .context("cannot parse CapEff in /proc/self/status")?;
    let missing: Vec<&str> = CAPABILITIES
        .into_iter()
        .filter(|(_, bit)| effective >> bit & 1 == 0)
        .map(|(name, _)| name)
        .collect();
    if !missing.contains(&"CAP_SYS_ADMIN") {
        return Ok(());
    }
    if missing == ["CAP_SYS_ADMIN"] {
        // Debian's and Ubuntu's kernels have levels above mainline's 2, where CAP_PERFMON does not suffice.
        let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
        return match level.trim().parse::<i32>() {
            Ok(level) if level > 2 => Err(PipelineError::Privilege(format!(
                "tracing needs CAP_SYS_ADMIN because kernel.perf_event_paranoid is {level}: {}",
                surroundings::how_to_get_privileges()
            ))),
            _ => Ok(()),
        };
    }
    let needed: Vec<&str> = missing
        .into_iter()
        .filter(|name| *name != "CAP_SYS_ADMIN")
        .collect();
    Err(PipelineError::Privilege(format!(
        "tracing needs {} (or CAP_SYS_ADMIN): {}",
        needed.join(", "),
        surroundings::how_to_get_privileges()
    )))
}

/// The ports to trace, and how many entries the kernel half's table has for this many flows. The ports are those that were given, or the NodePort range and the ports of this node's IPVS services.
#[must_use]
pub fn selection(selection: &finding::selection::Selection, flows: usize) -> Selection {
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
        flow_entries: flow_table::entries(flows),
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

/// The identifier of this boot.
pub(super) fn boot_id() -> String {
    kernel("random/boot_id")
}

fn kernel(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/kernel/{name}"))
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
