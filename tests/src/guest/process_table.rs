//! Processes of the guest other than PID 1.

use std::collections::BTreeSet;
use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::node_state::names_in;

/// All of them, as `id command line`. Kernel threads and zombies have no command line.
pub(super) fn others() -> Vec<String> {
    let ids = names_in("/proc")
        .into_iter()
        .filter(|name| name != "1" && name.bytes().all(|byte| byte.is_ascii_digit()));
    ids.filter_map(|id| {
        let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (!line.is_empty()).then(|| format!("{id} {}", line.trim_end()))
    })
    .collect()
}

/// Kills the processes that steps left running, except those in `before`, and reaps zombies. Call it only
/// while no thread waits for a child.
pub(super) fn end_all(before: &BTreeSet<String>) {
    for process in others().iter().filter(|process| !before.contains(*process)) {
        let id = process.split(' ').next().and_then(|id| id.parse().ok());
        if let Some(id) = id {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
    if !before.is_empty() {
        // Other threads wait for those.
        return;
    }
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
}
