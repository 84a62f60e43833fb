//! The screen in a guest, as a user has it: `cargo xtask lab --tui` on a terminal of tmux, keys in, screens out.

use std::env;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tracer_lab::scenario::KernelName;

/// How long the guest may take to boot, to attach the hooks and to play what is waited for, beside other guests.
const LIMIT: Duration = Duration::from_mins(4);

/// How often the terminal is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Goes from the overview to the way of a flow through this kernel, and leaves.
pub(super) fn run(kernel: &KernelName) -> Result<()> {
    let ourselves = env::current_exe().context("cannot tell which program this is")?;
    let terminal = Terminal::open(&format!(
        "{} lab --tui --kernel {kernel} --scenario reuse-after-rst; echo it ended with $?; sleep 600",
        ourselves.display()
    ))?;
    // What became of the flows, and why.
    terminal.wait_for(&["ipvs.reuse-dropped", "time lost", "0 lost"])?;
    terminal.keys(&["2"])?;
    terminal.wait_for(&["stalled", "10.0.0.2:", "port 30080"])?;
    // Only trouble, and the way of the first flow that had some.
    terminal.keys(&["t", "g", "Enter"])?;
    terminal.wait_for(&["Why:", "at IPVS", "ip_vs_nat_xmit"])?;
    terminal.keys(&["5"])?;
    terminal.wait_for(&["attached", "netif_receive_skb"])?;
    terminal.keys(&["q"])?;
    terminal.wait_for(&["detaching hooks", "it ended with 0"])
}

/// A terminal of tmux. Dropping it ends what runs there.
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
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux failed: {}", said.trim());
        Ok(output)
    }

    fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys", "--"], keys].concat()).map(drop)
    }

    /// Waits until all of these are on the screen.
    fn wait_for(&self, texts: &[&str]) -> Result<()> {
        let began = Instant::now();
        loop {
            let shown = self.tmux(&["capture-pane", "-p"])?.stdout;
            let shown = String::from_utf8_lossy(&shown);
            let Some(missing) = texts.iter().find(|text| !shown.contains(**text)) else {
                return Ok(());
            };
            if began.elapsed() > LIMIT
                || shown.contains("it ended with ") && !texts.contains(&"it ended with 0")
            {
                bail!(
                    "`{missing}` does not come; the screen shows:\n{}",
                    shown.trim_end()
                );
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
