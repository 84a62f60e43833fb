//! DuckDB and pandas read what `tracer export --to parquet` writes.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use tracer_lab::packages::Cache;
use tracer_lab::packages::host::{self, Program};

use super::step::run;
use crate::workspace;

const PYTHON: Program = Program {
    name: "python3",
    package: "python3",
};

/// What Debian leaves out of Python. It is no program, so it is asked for only where it is known to be missing.
const VENV: Program = Program {
    name: "ensurepip",
    package: "python3-venv",
};

/// The program that asks them, with what they are in the cache: installed once, in the versions that the project names.
pub(super) fn command(cache: &Cache) -> Result<Command> {
    let folder = workspace::root().join("tests/tables");
    let readers = readers(cache, &folder.join("requirements.txt"))?;
    let mut command = Command::new(readers.join("bin/python"));
    command
        .arg(folder.join("check.py"))
        .arg(workspace::root().join("tracer/tests/recordings"))
        .arg(workspace::root().join("docs/export.md"))
        .arg(tracer()?);
    Ok(command)
}

/// tracer as the unit tests have built it, beside this program.
fn tracer() -> Result<PathBuf> {
    let ourselves = env::current_exe().context("cannot tell which program this is")?;
    let tracer = ourselves.with_file_name("tracer");
    ensure!(tracer.exists(), "there is no {}", tracer.display());
    Ok(tracer)
}

/// Python's environment with these packages, made where it is not there yet.
fn readers(cache: &Cache, wanted: &Path) -> Result<PathBuf> {
    let list = fs::read(wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
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
    eprintln!("   Fetch  DuckDB and pandas, once: about a minute");
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
        // Nothing that is not named, and nothing that would have to be compiled.
        .args(["--no-deps", "--only-binary", ":all:", "--requirement"])
        .arg(wanted);
    for (mut command, title) in [(venv, "venv"), (install, "pip")] {
        let (done, output) = run(&mut command, &logs, title)?;
        if !done {
            bail!("cannot install DuckDB and pandas; they need Python 3.11 or later:\n{output}");
        }
    }
    fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
    Ok(folder)
}
