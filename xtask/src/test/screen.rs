//! Tests tracer's screen in a guest as a user sees it: `cargo xtask lab --tui` in tmux.

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tracer_lab::scenario::KernelName;

use crate::workspace;

/// How long a text may take to appear: the guest boots and attaches hooks while other guests run.
const TIMEOUT: Duration = Duration::from_mins(4);

/// How often the screen is read.
const INTERVAL: Duration = Duration::from_millis(200);

/// Goes from the overview to the path of a failed flow, then quits.
pub(super) fn run(kernel: &KernelName) -> Result<()> {
    let xtask = workspace::program()?;
    let terminal = Terminal::open(&format!(
        "{} lab --tui --kernel {kernel} --scenario reuse-after-rst; echo exit status $?; sleep 600",
        xtask.display()
    ))?;
    // The overview.
    terminal.wait_for(&["ipvs.reuse-dropped", "time lost", "0 records lost"])?;
    terminal.keys(&["2"])?;
    terminal.wait_for(&["stalled", "10.0.0.2:", "port 30080"])?;
    // Failures only, and the path of the first of them.
    terminal.keys(&["t", "g", "Enter"])?;
    terminal.wait_for(&["Why:", "at IPVS", "ip_vs_nat_xmit"])?;
    terminal.keys(&["5"])?;
    terminal.wait_for(&[
        "confined: 7 capabilities, no new privileges, seccomp",
        "attached",
        "netif_receive_skb",
    ])?;
    terminal.keys(&["q"])?;
    terminal.wait_for(&["detaching hooks", "exit status 0"])
}

/// A tmux terminal. Dropping it kills the programs in it.
struct Terminal {
    folder: TempDir,
}

impl Terminal {
    fn open(command: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a folder for tmux")?;
        let terminal = Self { folder };
        let options = [
            "-f",
            "/dev/null",
            "-u",
            "new-session",
            "-d",
            "-x",
            "120",
            "-y",
            "40",
        ];
        terminal.tmux(&[&options[..], &[command]].concat())?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<Output> {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.folder.path().join("socket"))
            .args(arguments)
            .output()
            .context("cannot run tmux")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux failed: {}", stderr.trim());
        Ok(output)
    }

    fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys", "--"], keys].concat()).map(drop)
    }

    /// Waits until all of these texts are on the screen.
    fn wait_for(&self, texts: &[&str]) -> Result<()> {
        let began = Instant::now();
        loop {
            let shown = self.tmux(&["capture-pane", "-p"])?.stdout;
            let shown = String::from_utf8_lossy(&shown);
            let Some(missing) = texts.iter().find(|text| !shown.contains(**text)) else {
                return Ok(());
            };
            if began.elapsed() > TIMEOUT
                || shown.contains("exit status ") && !texts.contains(&"exit status 0")
            {
                bail!(
                    "`{missing}` does not appear; the screen shows:\n{}",
                    shown.trim_end()
                );
            }
            thread::sleep(INTERVAL);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
