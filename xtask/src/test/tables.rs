//! The test that DuckDB and pandas read what `tracer export --to parquet` writes.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use tracer_lab::packages::Cache;

use super::python;
use crate::workspace;

/// The Python program that runs the queries, with DuckDB and pandas from the cache.
pub(super) fn command(cache: &Cache) -> Result<Command> {
    let folder = workspace::root().join("tests/tables");
    let environment = python::environment(cache, &folder.join("requirements.txt"), "DuckDB and pandas")?;
    let mut command = Command::new(environment.join("bin/python"));
    command
        .arg(folder.join("check.py"))
        .arg(workspace::root().join("tracer/tests/recordings"))
        .arg(workspace::root().join("docs/export.md"))
        .arg(tracer()?);
    Ok(command)
}

/// The tracer that the unit tests built, in the directory of this program.
fn tracer() -> Result<PathBuf> {
    let xtask = workspace::program()?;
    let tracer = xtask.with_file_name("tracer");
    ensure!(
        tracer.exists(),
        "cannot find {}: run `cargo build`",
        tracer.display()
    );
    Ok(tracer)
}
