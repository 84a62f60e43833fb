//! Spelling of the tracked files, checked by typos.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use tracer_lab::packages::Cache;

use super::python;
use crate::workspace;

/// typos over all tracked files; `typos.toml` lists its exceptions.
pub(super) fn command(cache: &Cache) -> Result<Command> {
    let names: Vec<String> = workspace::tracked_files()?
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let list = cache.root().join("tracked-files");
    fs::write(&list, names.join("\n")).with_context(|| format!("cannot write {}", list.display()))?;
    let mut command = Command::new(python::tool(cache, "typos")?);
    command
        .args(["--config", "typos.toml", "--force-exclude"])
        .args(["--format", "brief", "--color", "never", "--file-list"])
        .arg(&list);
    Ok(command)
}
