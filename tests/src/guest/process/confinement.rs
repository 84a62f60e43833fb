//! What `tracer live` has given up once it is ready.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rustix::thread::CapabilitySet;

use super::{LiveTracer, ProcessChecks};

/// The capabilities that are left, by name and bit. Its output is a pipe, so that it needs no right to write to another
/// user's folder.
const KEPT: [(&str, CapabilitySet); 7] = [
    ("CAP_DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE),
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("CAP_SYSLOG", CapabilitySet::SYSLOG),
    ("CAP_PERFMON", CapabilitySet::PERFMON),
    ("CAP_BPF", CapabilitySet::BPF),
];

impl ProcessChecks<'_> {
    pub(super) fn confined(&self) -> Result<()> {
        let live = LiveTracer::start(self)?;
        let checked = every_thread(&live);
        let sandbox = live.sandbox.clone();
        live.end(Some(Signal::SIGTERM))?.ensure_success()?;
        checked?;
        let names: Vec<&str> = KEPT.iter().map(|(name, _)| *name).collect();
        ensure!(
            sandbox["capabilities"] == serde_json::json!(names)
                && sandbox["no_new_privs"] == true
                && sandbox["seccomp"] == true,
            "tracer reports {sandbox}"
        );
        Ok(())
    }
}

/// Checks every thread. The first one has the capabilities, the one that waits for signals has none.
fn every_thread(live: &LiveTracer) -> Result<()> {
    let folder = format!("/proc/{}/task", live.child.id());
    let kept = KEPT
        .iter()
        .fold(CapabilitySet::empty(), |all, (_, one)| all | *one);
    let mut capabilities = Vec::new();
    for thread in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let path = thread?.path().join("status");
        let status = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let value = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        ensure!(
            value("Seccomp:") == Some("2") && value("NoNewPrivs:") == Some("1"),
            "a thread is not confined: {status}"
        );
        for set in ["CapPrm:", "CapEff:"] {
            let bits = value(set).and_then(|bits| u64::from_str_radix(bits, 16).ok());
            capabilities.push(bits.with_context(|| status.clone())?);
        }
    }
    capabilities.sort_unstable();
    let kept = kept.bits();
    ensure!(
        capabilities == [0, 0, kept, kept],
        "the threads have the capabilities {capabilities:x?}, not none and {kept:x}"
    );
    Ok(())
}
