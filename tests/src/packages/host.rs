//! Programs that the machine itself must have.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// A program and the package of Debian and Ubuntu that has it.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The file name in `PATH`.
    pub name: &'static str,
    /// The package to install when it is missing.
    pub package: &'static str,
}

/// How many seconds apt waits for another one to be done.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=600";

/// Sees to it that these programs are there: installs what is missing when run as root on Debian or Ubuntu, and
/// otherwise fails with the one line that would.
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
            "this machine lacks {}, and has no apt to get them with",
            missing.join(", ")
        );
    }
    if !is_root() {
        bail!("this machine lacks {}; run: sudo {line}", missing.join(", "));
    }
    eprintln!("this machine lacks {}: running {line}", missing.join(", "));
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            // The machine's own updates may be under way.
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
        // The package lists may be missing or too old to be of use.
        ensure!(apt(&["update", "-qq"])?.success(), "apt-get update failed");
        ensure!(
            apt(&install)?.success(),
            "could not install {}; try: {line}",
            missing.join(", ")
        );
    }
    Ok(())
}

/// The path of a program in `PATH`.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        // Tools for administrators are often missing from the PATH of other people.
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

/// Whether this process may change the machine.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
