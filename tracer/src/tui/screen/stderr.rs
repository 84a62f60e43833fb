//! Captures stderr while the screen is open, so that it does not write across the screen.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::{
    fcntl::OFlag,
    unistd::{dup, dup2_stderr, pipe2},
};

/// Receives each line.
pub(crate) type LineHandler = Arc<dyn Fn(String) + Send + Sync>;

/// The original stderr.
static BEFORE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Passes each line to `on_line` from now on.
pub(super) fn capture(on_line: LineHandler) -> io::Result<()> {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if before.is_some() {
        return Ok(());
    }
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    let kept = dup(io::stderr())?;
    dup2_stderr(&write)?;
    *before = Some(kept);
    thread::Builder::new().name("stderr".to_owned()).spawn(move || {
        let mut lines = BufReader::new(File::from(read));
        let mut line = Vec::new();
        // Ends when stderr is restored.
        while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !text.is_empty() {
                on_line(text);
            }
            line.clear();
        }
    })?;
    Ok(())
}

/// Restores stderr.
pub(super) fn release() {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = before.take() {
        // There is no fallback if this fails.
        let _ = dup2_stderr(&before);
    }
}
