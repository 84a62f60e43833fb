//! kube-proxy.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::objects::NODE;
use super::program::{self, FOLDER, Program};
use super::{control_plane, http};
use crate::guest::cancel::Cancel;
use crate::scenario::{Family, Proxy, address};

/// Its name.
pub(super) const NAME: &str = "kube-proxy";

/// How long it may take to start.
const START_LIMIT: Duration = Duration::from_mins(2);

/// How long it may take to write a change.
const SYNC_LIMIT: Duration = Duration::from_secs(40);

/// The port of its metrics.
const METRICS_PORT: u16 = 10249;

/// When it last learned of a change, and when it last finished writing its rules, in seconds since 1970.
const QUEUED: &str = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds";
const WRITTEN: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";

/// Where it reads the kernel's release (`pkg/proxy/ipvs/proxier.go`, `GetKernelVersion`).
const OSRELEASE: &str = "/proc/sys/kernel/osrelease";

/// A running kube-proxy. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct RunningProxy {
    program: Program,
}

impl RunningProxy {
    /// Starts it in a mode and waits until it has written its rules.
    pub(super) fn start(mode: Proxy, osrelease: Option<&str>, cancel: &Cancel) -> Result<Self> {
        let mut program = Program::start_in(NAME, &arguments(mode)?, || {
            osrelease.map_or(Ok(()), show_osrelease)
        })?;
        program.wait_until_ready(START_LIMIT, cancel, || {
            Ok(timestamps().is_ok_and(|(_, written)| written > 0.0))
        })?;
        Ok(Self { program })
    }

    /// Makes a change and waits until it has written the rules that follow.
    #[expect(clippy::unused_self, reason = "nobody else writes rules")]
    pub(super) fn follow(&self, cancel: &Cancel, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let (before, _) = timestamps()?;
        change()?;
        let followed = cancel.wait_until(SYNC_LIMIT, || {
            let (queued, written) = timestamps()?;
            Ok(queued > before && written >= queued)
        })?;
        ensure!(
            followed,
            "{NAME} did not write a change within {} s",
            SYNC_LIMIT.as_secs()
        );
        Ok(())
    }

    /// Stops it. Its rules stay.
    pub(super) fn stop(self, cancel: &Cancel) -> Result<()> {
        self.program.stop(cancel)
    }
}

/// Runs `kube-proxy --cleanup`.
pub(super) fn clean_up() -> Result<()> {
    program::run(NAME, &["--cleanup".to_owned()])
}

fn arguments(mode: Proxy) -> Result<Vec<String>> {
    // In IPVS mode each pod's gateway would be one more address of every NodePort, and writing them takes seconds.
    let (mode, addresses) = match mode {
        Proxy::Ipvs => ("ipvs", Some(address::clients(Family::Ipv4))),
        Proxy::Iptables => ("iptables", None),
        Proxy::IptablesLegacy | Proxy::Nftables => bail!("this {NAME} has no such mode"),
    };
    let mut arguments = vec![
        format!("--kubeconfig={}", control_plane::kubeconfig_path()),
        format!("--hostname-override={NODE}"),
        format!("--cluster-cidr={}", address::pods(Family::Ipv4)),
        format!("--proxy-mode={mode}"),
        // A step's changes must last until the next step.
        "--ipvs-sync-period=1h".to_owned(),
        "--iptables-sync-period=1h".to_owned(),
        // Left as they are: they differ with the memory of the machine.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-min=0".to_owned(),
    ];
    arguments.extend(addresses.map(|network| format!("--nodeport-addresses={network}")));
    Ok(arguments)
}

/// Shows the calling thread, and the programs that it starts, another kernel release.
fn show_osrelease(release: &str) -> Result<()> {
    let file = format!("{FOLDER}/osrelease");
    fs::write(&file, format!("{release}\n")).with_context(|| format!("cannot write {file}"))?;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot create a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .and_then(|()| mount(Some(file.as_str()), OSRELEASE, none, MsFlags::MS_BIND, none))
        .with_context(|| format!("cannot show the release {release}"))
}

fn timestamps() -> Result<(f64, f64)> {
    let metrics = http::request(METRICS_PORT, "GET", "/metrics", "")?;
    let of = |name: &str| metric(&metrics, name).with_context(|| format!("no metric {name}"));
    Ok((of(QUEUED)?, of(WRITTEN)?))
}

/// The value of a metric without labels, in the text format of Prometheus.
fn metric(text: &str, name: &str) -> Option<f64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read() {
        let text = "# HELP a_b c\na_b_total 3\na_b 1.6067e+09\n";
        assert_eq!(metric(text, "a_b"), Some(1.6067e9));
        assert_eq!(metric(text, "a"), None);
    }
}
