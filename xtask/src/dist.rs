//! `cargo xtask dist`: builds the file that goes onto a node.

use std::fs;

use anyhow::{Context, Result};

use crate::{static_build, workspace};

/// Builds the static `tracer` and copies it to `target/dist`.
pub(crate) fn run() -> Result<()> {
    let built = static_build::tracer()?;
    let folder = workspace::root().join("target/dist");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = folder.join("tracer");
    let bytes = fs::copy(&built, &file).with_context(|| format!("cannot write {}", file.display()))?;
    #[allow(clippy::cast_precision_loss, reason = "a rounded number of megabytes")]
    let megabytes = bytes as f64 / 1e6;
    println!("target/dist/tracer, {megabytes:.1} MB: copy it to a node and run it there");
    Ok(())
}
