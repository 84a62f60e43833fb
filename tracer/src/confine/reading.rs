//! Confinement of commands that read recordings: `replay`, `report`, `show` and `export`.
//!
//! They open their inputs and outputs first. Then they can open nothing else, have no capabilities, and few system calls
//! are left. A screen can still open the terminal, and create new files in the current folder when the user exports.

use std::path::{Path, PathBuf};

use caps::Capability;
use nix::sys::prctl;

use super::{
    capabilities, filter, folder,
    paths::{self, Allowed},
    system_calls,
};
use crate::finding::sandbox::Sandbox;

/// The terminal of the process.
const TERMINAL: &str = "/dev/tty";

/// What a command still has to do with files once it is confined.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs<'a> {
    /// It shows a screen.
    pub screen: bool,
    /// It writes this file. The file is open, but it gets its name, or is removed, only once the inputs are known to be
    /// recordings.
    pub output: Option<&'a Path>,
}

/// A confined command.
#[derive(Debug)]
pub struct Reading {
    /// What is in force.
    pub sandbox: Sandbox,
    /// Why each of the other restrictions is not.
    pub missing: Vec<String>,
    has_screen: bool,
    has_output: bool,
}

impl Reading {
    /// Confines the process, which has no other threads. A restriction that the system refuses is left out.
    #[must_use]
    pub fn begin(needs: Needs<'_>) -> Self {
        let mut this = Self {
            sandbox: Sandbox::default(),
            missing: Vec::new(),
            has_screen: needs.screen,
            has_output: needs.output.is_some(),
        };
        let output = needs.output.map(folder::of);
        this.keep(output.as_deref());
        this.restrict_files(output.as_deref());
        // What Landlock and the filter require; the kernel refuses it to nobody.
        this.sandbox.no_new_privs = prctl::set_no_new_privs().is_ok();
        let rules = system_calls::reading(this.has_screen, this.has_output).map_err(Into::into);
        match rules.and_then(filter::apply) {
            Ok(()) => this.sandbox.seccomp = true,
            Err(error) => this.miss("seccomp", &error.into()),
        }
        this
    }

    /// Gives up the right to name and remove files, which the output needed until now.
    pub fn output_is_named(&mut self) {
        if self.has_output {
            self.has_output = false;
            self.keep(None);
            if self.sandbox.landlock {
                self.restrict_files(None);
            }
        }
    }

    /// Gives up the capabilities, except the one to write to another user's folder.
    fn keep(&mut self, output: Option<&Path>) {
        let current = self.has_screen.then(|| PathBuf::from("."));
        let mut folders = output.into_iter().chain(current.as_deref());
        let wanted: &[Capability] = if folders.all(folder::is_open) {
            &[]
        } else {
            &[Capability::CAP_DAC_OVERRIDE]
        };
        if let Err(error) = capabilities::keep(wanted) {
            self.miss("giving up capabilities", &error.into());
        }
        self.sandbox.capabilities = capabilities::names();
    }

    fn restrict_files(&mut self, output: Option<&Path>) {
        let mut allowed: Vec<Allowed<'_>> = output.map(Allowed::names).into_iter().collect();
        if self.has_screen {
            allowed.push(Allowed::device(Path::new(TERMINAL)));
            allowed.push(Allowed::new_files(Path::new(".")));
        }
        match paths::restrict(&allowed) {
            Ok(true) => self.sandbox.landlock = true,
            Ok(false) => self.missing.push("this kernel has no Landlock".to_owned()),
            Err(error) => self.miss("Landlock", &error.into()),
        }
    }

    fn miss(&mut self, what: &str, error: &anyhow::Error) {
        self.missing.push(format!("{what} failed: {error:#}"));
    }
}
