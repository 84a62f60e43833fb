//! Shell commands of a scenario, run by the guest's shell.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use super::tool::PATH;

/// Runs a command in the netns of the calling thread, and returns its output. Processes that it leaves in the
/// background are killed at the end of the scenario.
pub(super) fn run(line: &str) -> Result<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Files instead of pipes: reading a pipe would not end while a background process holds it open.
    let nth = COUNT.fetch_add(1, Ordering::Relaxed);
    let file = |what: &str| format!("/tmp/line-{nth}.{what}");
    let create = |what: &str| File::create(file(what)).context("cannot create a file in /tmp");
    let status = Command::new("/bin/sh")
        .args(["-e", "-c", line])
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(create("out")?)
        .stderr(create("err")?)
        .status()
        .context("cannot run /bin/sh")?;
    let read = |what: &str| {
        let bytes = fs::read(file(what)).unwrap_or_default();
        let _ = fs::remove_file(file(what));
        String::from_utf8_lossy(&bytes).trim().to_owned()
    };
    let (printed, stderr) = (read("out"), read("err"));
    if !status.success() {
        bail!("`{}` failed ({status}): {stderr}", line.trim());
    }
    Ok(printed)
}
