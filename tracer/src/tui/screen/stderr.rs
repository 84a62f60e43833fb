//! What is written to stderr while the terminal shows the screen: it would go right across it.

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

/// Takes each line.
pub(crate) type Teller = Arc<dyn Fn(String) + Send + Sync>;

/// Where stderr went before.
static BEFORE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Hands each line to `teller` from now on.
pub(super) fn capture(teller: Teller) -> io::Result<()> {
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
        // Ends when stderr is what it was before.
        while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !text.is_empty() {
                teller(text);
            }
            line.clear();
        }
    })?;
    Ok(())
}

/// stderr goes where it went before.
pub(super) fn release() {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = before.take() {
        // Nothing better is left if this fails.
        let _ = dup2_stderr(&before);
    }
}
