//! Programs that the machine itself must provide.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// A program and its package in Debian and Ubuntu.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its file name in `PATH`.
    pub name: &'static str,
    /// The package to install if it is missing.
    pub package: &'static str,
}

/// How many seconds apt waits for another apt process.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=600";

/// Ensures that these programs exist: as root on Debian or Ubuntu it installs the missing ones, otherwise it
/// fails with the command that would.
pub fn ensure_programs(programs: &[Program]) -> Result<()> {
    let mut missing: Vec<&str> = programs
        .iter()
        .filter(|program| find(program.name).is_none())
        .map(|program| program.package)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!(
        "apt-get install --yes --no-install-recommends {}",
        missing.join(" ")
    );
    if find("apt-get").is_none() {
        bail!(
            "not installed: {}, and there is no apt-get to install them",
            missing.join(", ")
        );
    }
    if !is_root() {
        bail!("not installed: {}; run: sudo {line}", missing.join(", "));
    }
    eprintln!("not installed: {}; running {line}", missing.join(", "));
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            // The machine's own updates may be running.
            .args(["-o", LOCK_TIMEOUT])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("cannot run apt-get")
    };
    let install = [
        &["install", "--yes", "--no-install-recommends", "-qq"],
        missing.as_slice(),
    ]
    .concat();
    if !apt(&install)?.success() {
        // The package lists may be missing or too old.
        ensure!(apt(&["update", "-qq"])?.success(), "apt-get update failed");
        ensure!(
            apt(&install)?.success(),
            "cannot install {}; try: {line}",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Finds a program in `PATH`.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        // Administration tools are often not in an ordinary user's PATH.
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

/// Whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
