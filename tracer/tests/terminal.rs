//! The screen on a real terminal: tmux shows a recording, receives keys, and finds the terminal restored however tracer
//! ends.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tracer::tui::{
    screen::Screen,
    theme::{Depth, Theme},
};

/// How long the screen may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A terminal with a shell.
struct Tmux {
    folder: TempDir,
}

impl Tmux {
    /// `None` if tmux is not installed.
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
            eprintln!("tmux is not installed: the screen was not tested on a terminal");
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
            assert!(begun.elapsed() < LIMIT, "`{text}` does not appear:\n{shown}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The process id of the shell.
    fn shell(&self) -> String {
        let pid = self.run(&["display-message", "-p", "#{pane_pid}"]).stdout;
        String::from_utf8_lossy(&pid).trim().to_owned()
    }

    /// Asserts that the terminal is restored: it echoes, starts lines at the left, and shows the shell.
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

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/1.0-reuse-after-rst-6.12.trace")
}

fn replay(extra: &str) -> String {
    format!(
        "clear; {} replay {extra} {}",
        env!("CARGO_BIN_EXE_tracer"),
        recording().display()
    )
}

#[test]
fn keys_lead_from_the_overview_to_a_path_and_back_to_the_shell() {
    let Some(tmux) = Tmux::start(80, 24) else { return };
    tmux.keys(&[&replay(""), "Enter"]);
    tmux.wait_for("ipvs.reuse-dropped");
    tmux.keys(&["Enter"]);
    tmux.wait_for("Enter: path");
    tmux.keys(&["Enter"]);
    let path = tmux.wait_for("Why:");
    assert!(path.contains("stalled") && path.contains("What to do:"), "{path}");
    tmux.keys(&["G"]);
    tmux.wait_for("Earlier flows from this client port");
    tmux.keys(&["5"]);
    tmux.wait_for("netif_receive_skb");
    tmux.keys(&["?"]);
    tmux.wait_for("Navigation");
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
fn a_confined_screen_exports_and_rewinds() {
    let Some(tmux) = Tmux::start(120, 40) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy.trace");
    fs::copy(recording(), &copy).expect("a file");
    // Only root may work there.
    let _ = std::os::unix::fs::chown(folder.path(), Some(12_345), None);
    let command = format!(
        "cd {}; clear; {} replay copy.trace; echo status-$?",
        folder.path().display(),
        env!("CARGO_BIN_EXE_tracer")
    );
    tmux.keys(&[&command, "Enter"]);
    tmux.wait_for("3 flows");
    tmux.keys(&["2", "e"]);
    tmux.wait_for("wrote tracer-");
    // The file is open: it needs no name.
    fs::remove_file(&copy).expect("a file");
    tmux.keys(&["0"]);
    tmux.wait_for("0 flows");
    tmux.keys(&["x"]);
    tmux.wait_for("1 failure");
    tmux.keys(&["q"]);
    let shown = tmux.wait_for("status-0");
    assert!(!shown.contains("denied"), "{shown}");
    let exports = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(exports, 1);
}

#[test]
fn colours_and_unicode_can_be_switched_off() {
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
    // The selection is visible nevertheless.
    assert!(screen.contains("\x1b[7m") || screen.contains(";7m"), "{screen:?}");
    tmux.keys(&["q"]);
    tmux.is_sane();
}

#[test]
fn a_signal_ends_the_screen_and_restores_the_terminal() {
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

#[test]
fn an_unusable_terminal_is_the_reason_of_the_error() {
    let Some(tmux) = Tmux::start(80, 24) else { return };
    // The smallest limit on open files with which tracer reaches the terminal.
    let errors = tmux.folder.path().join("errors");
    let run = format!(
        "clear; for limit in $(seq 6 20); do (ulimit -n $limit; exec {}) 2>{errors}; grep the.terminal {errors} && break; done",
        replay("").replace("clear; ", ""),
        errors = errors.display()
    );
    tmux.keys(&[&run, "Enter"]);
    let shown = tmux.wait_for("; try --plain").replace('\n', "");
    assert!(
        shown.contains("tracer: cannot use the terminal: Too many open files"),
        "{shown}"
    );
    tmux.is_sane();
}

/// Not a test: the next one runs it on a terminal.
#[test]
#[ignore = "run by another test"]
fn panics_on_the_screen() {
    let theme = Theme {
        depth: Depth::Many,
        is_ascii: false,
    };
    let screen = Screen::open(theme, None).expect("a terminal");
    thread::sleep(Duration::from_millis(500));
    assert!(screen.is_over(), "panicked on purpose");
}

#[test]
fn a_panic_ends_the_screen_and_restores_the_terminal() {
    let Some(tmux) = Tmux::start(80, 24) else { return };
    let ourselves = std::env::current_exe().expect("a name");
    let run = format!(
        "clear; {} --ignored --exact panics_on_the_screen --nocapture",
        ourselves.display()
    );
    tmux.keys(&[&run, "Enter"]);
    tmux.wait_for("panicked on purpose");
    tmux.is_sane();
}

#[test]
fn the_screen_opens_on_a_terminal_that_answers_no_query() {
    // `script` gives its command a terminal that nothing behind it reads, like a serial line.
    let run = format!("stty rows 24 cols 80; {}", replay("")).replace("clear; ", "timeout --foreground 60 ");
    let mut script = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &run, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script runs");
    let mut screen = script.stdout.take().expect("a pipe");
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains("Outcomes") {
        let mut bytes = [0; 4096];
        let read = screen.read(&mut bytes).expect("the screen can be read");
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&shown));
        shown.extend_from_slice(&bytes[..read]);
    }
    let mut keyboard = script.stdin.take().expect("a pipe");
    keyboard.write_all(b"q").expect("the key is sent");
    screen.read_to_end(&mut shown).expect("the screen ends");
    assert!(script.wait().expect("script ends").success());
}

#[test]
fn a_hangup_ends_tracer() {
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
        assert!(begun.elapsed() < LIMIT, "tracer is still running");
        thread::sleep(Duration::from_millis(50));
    }
}
