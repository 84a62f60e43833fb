//! Confinement of `live` and `record`, once their hooks are attached.
//!
//! No Landlock: it would hide `/proc/PID` of other processes and the network namespaces in which flows end
//! (`security/landlock/task.c`, `hook_ptrace_access_check`).

use std::{fs, path::PathBuf};

use caps::Capability;
use nix::sys::prctl;

use super::{capabilities, filter, folder, system_calls};
use crate::finding::sandbox::Sandbox;

/// A confined run.
#[derive(Debug)]
pub struct Tracing {
    /// What is in force for all threads.
    pub sandbox: Sandbox,
    /// Why each of the other restrictions is not.
    pub missing: Vec<String>,
}

/// Takes all privileges from a thread that needs none. Threads that exist before [`begin`] have to call this themselves,
/// because capabilities belong to threads.
pub fn give_up_all() {
    // What is left shows in the state of the run.
    let _ = capabilities::keep(&[]);
    let _ = prctl::set_no_new_privs();
}

/// Confines the calling thread, those that it starts from now on, and, by the filter, all others. New files will be written to
/// `folders`.
#[must_use]
pub fn begin(folders: &[PathBuf]) -> Tracing {
    let mut missing = Vec::new();
    let mut wanted = capabilities::TRACING.to_vec();
    if !folders.iter().all(|path| folder::is_open(path)) {
        wanted.push(Capability::CAP_DAC_OVERRIDE);
    }
    if let Err(error) = capabilities::keep(&wanted) {
        missing.push(format!("cannot give up capabilities: {error}"));
    }
    let _ = prctl::set_no_new_privs();
    let rules = system_calls::tracing().map_err(Into::into);
    if let Err(error) = rules.and_then(filter::apply) {
        let error = anyhow::Error::from(error);
        missing.push(format!("cannot restrict system calls: {error:#}"));
    }
    Tracing {
        sandbox: in_force(),
        missing,
    }
}

/// The folder of a file that may be created, renamed or removed while tracing.
#[must_use]
pub fn folder_of(file: &std::path::Path) -> PathBuf {
    folder::of(file)
}

/// What is in force for every thread, as the kernel reports it.
fn in_force() -> Sandbox {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let states: Vec<State> = threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .map(|text| State::parse(&text))
        .collect();
    let is_known = !states.is_empty();
    let capabilities = states.iter().fold(0, |all, state| all | state.capabilities);
    Sandbox {
        capabilities: capabilities::names_of(capabilities),
        no_new_privs: is_known && states.iter().all(|state| state.no_new_privs),
        seccomp: is_known && states.iter().all(|state| state.seccomp),
        landlock: false,
    }
}

/// The state of one thread, from `/proc/PID/task/TID/status`.
#[derive(Debug, PartialEq, Eq)]
struct State {
    capabilities: u64,
    no_new_privs: bool,
    seccomp: bool,
}

impl State {
    fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map_or("", str::trim)
        };
        Self {
            // An unknown state must not look confined.
            capabilities: u64::from_str_radix(value("CapPrm:"), 16).unwrap_or(u64::MAX),
            no_new_privs: value("NoNewPrivs:") == "1",
            seccomp: value("Seccomp:") == "2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_thread_is_read_from_its_status() {
        let text =
            "Name:\ttracer\nCapPrm:\t000000c400381004\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        let state = State::parse(text);
        assert_eq!(
            state,
            State {
                capabilities: 0xc4_0038_1004,
                no_new_privs: true,
                seccomp: true
            }
        );
        assert_eq!(State::parse("").capabilities, u64::MAX);
    }
}
