//! `cargo xtask dist`: the one file that goes onto a node.

use std::fs;

use anyhow::{Context, Result};

use crate::{static_build, workspace};

/// Builds the static `tracer` and puts it where it is easily found.
pub(crate) fn run() -> Result<()> {
    let built = static_build::tracer()?;
    let folder = workspace::root().join("target/dist");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join("tracer");
    let bytes = fs::copy(&built, &file).with_context(|| format!("cannot write {}", file.display()))?;
    #[allow(clippy::cast_precision_loss, reason = "megabytes for people")]
    let megabytes = bytes as f64 / 1e6;
    println!("target/dist/tracer, {megabytes:.1} MB: copy it to a node and run it there");
    Ok(())
}
