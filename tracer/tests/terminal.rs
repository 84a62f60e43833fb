//! The screen on a real terminal: tmux shows a recording of the lab, keys go in, and the terminal is what it was before
//! when tracer has ended, however it did.

use std::{
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tracer::tui::{
    screen::Screen,
    theme::{Depth, Theme},
};

/// How long a screen may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A terminal with a shell on it.
struct Tmux {
    folder: TempDir,
}

impl Tmux {
    /// `None` where there is no tmux.
    fn start(columns: u16, lines: u16) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let tmux = Self { folder };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let shell = "env -i PATH=$PATH TERM=$TERM LANG=C.UTF-8 HOME=/ PS1='ready> ' sh";
        let started = Command::new("tmux")
            .arg("-S")
            .arg(tmux.folder.path().join("socket"))
            .args([
                "-f",
                "/dev/null",
                "-u",
                "new-session",
                "-d",
                "-x",
                &columns,
                "-y",
                &lines,
                shell,
            ])
            .output();
        let Ok(output) = started else {
            eprintln!("tmux is not installed: the screen was not tried on a terminal");
            return None;
        };
        assert!(output.status.success(), "{output:?}");
        tmux.wait_for("ready>");
        Some(tmux)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new("tmux")
            .arg("-S")
            .arg(self.folder.path().join("socket"))
            .args(arguments)
            .output()
            .expect("tmux runs")
    }

    fn keys(&self, keys: &[&str]) {
        let output = self.run(&[&["send-keys", "--"], keys].concat());
        assert!(output.status.success(), "{output:?}");
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.run(&["capture-pane", "-p"]).stdout).into_owned()
    }

    fn wait_for(&self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let shown = self.shown();
            if shown.contains(text) {
                return shown;
            }
            assert!(begun.elapsed() < LIMIT, "`{text}` does not come:\n{shown}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The process id of the shell.
    fn shell(&self) -> String {
        let pid = self.run(&["display-message", "-p", "#{pane_pid}"]).stdout;
        String::from_utf8_lossy(&pid).trim().to_owned()
    }

    /// The terminal is a shell's again: it echoes, starts lines at the left, and shows what it showed before.
    fn is_sane(&self) {
        self.wait_for("ready>");
        let ask = "echo sane-$(stty -a | tr '\\n' ' ' | grep ' icanon ' | grep ' echo ' | grep -c ' opost ')";
        self.keys(&[ask, "Enter"]);
        self.wait_for("sane-1");
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

fn replay(extra: &str) -> String {
    let recording =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/1.0-reuse-after-rst-6.12.trace");
    format!(
        "clear; {} replay {extra} {}",
        env!("CARGO_BIN_EXE_tracer"),
        recording.display()
    )
}

#[test]
fn keys_lead_from_the_overview_to_the_way_of_a_flow_and_back_to_the_shell() {
    let Some(tmux) = Tmux::start(80, 24) else { return };
    tmux.keys(&[&replay(""), "Enter"]);
    tmux.wait_for("ipvs.reuse-dropped");
    tmux.keys(&["Enter"]);
    tmux.wait_for("Enter its way");
    tmux.keys(&["Enter"]);
    let way = tmux.wait_for("Why:");
    assert!(way.contains("stalled") && way.contains("Do:"), "{way}");
    tmux.keys(&["G"]);
    tmux.wait_for("Before it, from the same client port");
    tmux.keys(&["5"]);
    tmux.wait_for("netif_receive_skb");
    tmux.keys(&["?"]);
    tmux.wait_for("moving about");
    tmux.keys(&["q"]);
    tmux.keys(&["0"]);
    tmux.wait_for("1x");
    tmux.keys(&["x"]);
    tmux.wait_for("Why:");
    tmux.run(&["resize-window", "-x", "50", "-y", "10"]);
    tmux.wait_for("too small");
    tmux.run(&["resize-window", "-x", "120", "-y", "30"]);
    tmux.wait_for("Why:");
    tmux.keys(&["C-z"]);
    tmux.wait_for("ready>");
    tmux.keys(&["fg", "Enter"]);
    tmux.wait_for("Why:");
    tmux.keys(&["q"]);
    tmux.is_sane();
}

#[test]
fn a_terminal_without_colours_gets_none_and_one_without_signs_gets_ascii() {
    let Some(tmux) = Tmux::start(80, 24) else { return };
    tmux.keys(&[&replay("--color never --ascii"), "Enter"]);
    tmux.wait_for("x dropped");
    let screen = tmux.run(&["capture-pane", "-p", "-e"]).stdout;
    let screen = String::from_utf8_lossy(&screen);
    assert!(screen.is_ascii(), "{screen}");
    let is_coloured =
        |code: u32| screen.contains(&format!("[{code}m")) || screen.contains(&format!(";{code}m"));
    assert!(
        !(30..38).chain(90..98).any(is_coloured) && !screen.contains("38;"),
        "{screen:?}"
    );
    // What is selected is seen nevertheless.
    assert!(screen.contains("\x1b[7m") || screen.contains(";7m"), "{screen:?}");
    tmux.keys(&["q"]);
    tmux.is_sane();
}

#[test]
fn a_signal_ends_it_and_leaves_the_terminal_as_it_was() {
    for signal in ["TERM", "HUP", "INT"] {
        let Some(tmux) = Tmux::start(80, 24) else { return };
        tmux.keys(&[&replay(""), "Enter"]);
        tmux.wait_for("ipvs.reuse-dropped");
        let pid = tmux.shell();
        let killed = Command::new("pkill")
            .args([&format!("-{signal}"), "-P", &pid, "tracer"])
            .status()
            .expect("pkill runs");
        assert!(killed.success());
        tmux.is_sane();
    }
}

/// Not a test of its own: what the next one runs on a terminal.
#[test]
#[ignore = "it is run by another one"]
fn panics_on_the_screen() {
    let theme = Theme {
        depth: Depth::Many,
        is_ascii: false,
    };
    let screen = Screen::open(theme, None).expect("a terminal");
    thread::sleep(Duration::from_millis(500));
    assert!(screen.is_over(), "it went wrong on purpose");
}

#[test]
fn a_panic_ends_it_says_what_happened_and_leaves_the_terminal_as_it_was() {
    let Some(tmux) = Tmux::start(80, 24) else { return };
    let ourselves = std::env::current_exe().expect("a name");
    let run = format!(
        "clear; {} --ignored --exact panics_on_the_screen --nocapture",
        ourselves.display()
    );
    tmux.keys(&[&run, "Enter"]);
    tmux.wait_for("it went wrong on purpose");
    tmux.is_sane();
}

#[test]
fn when_the_terminal_is_gone_it_ends() {
    let Some(tmux) = Tmux::start(80, 24) else { return };
    tmux.keys(&[&format!("trap '' HUP; {}", replay("")), "Enter"]);
    tmux.wait_for("ipvs.reuse-dropped");
    let shell = tmux.shell();
    let found = Command::new("pgrep")
        .args(["-P", &shell, "tracer"])
        .output()
        .expect("pgrep runs");
    let pid = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    assert!(!pid.is_empty());
    drop(tmux);
    let begun = Instant::now();
    while Path::new("/proc").join(&pid).exists() {
        assert!(begun.elapsed() < LIMIT, "tracer is still there");
        thread::sleep(Duration::from_millis(50));
    }
}
