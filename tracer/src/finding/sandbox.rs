//! What a process gave up for good before it touched untrusted input.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The restrictions in force for every thread of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sandbox {
    /// The capabilities that are left, for example `CAP_BPF`.
    pub capabilities: Vec<String>,
    /// Whether no program that it runs could gain privileges.
    pub no_new_privs: bool,
    /// Whether a seccomp filter restricts its system calls.
    pub seccomp: bool,
    /// Whether Landlock restricts the files it can open.
    pub landlock: bool,
}

impl Sandbox {
    /// The restrictions in one line: `confined: 7 capabilities, no new privileges, seccomp`.
    #[must_use]
    pub fn words(&self) -> String {
        let is_confined = self.no_new_privs || self.seccomp || self.landlock;
        let capabilities = match self.capabilities.len() {
            0 => "no capabilities".to_owned(),
            1 => "1 capability".to_owned(),
            more => format!("{more} capabilities"),
        };
        let in_force = [
            (self.no_new_privs, "no new privileges"),
            (self.seccomp, "seccomp"),
            (self.landlock, "Landlock"),
        ];
        let mut out = format!(
            "{}: {capabilities}",
            if is_confined { "confined" } else { "not confined" }
        );
        for (_, name) in in_force.into_iter().filter(|(is_in_force, _)| *is_in_force) {
            out.push_str(", ");
            out.push_str(name);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_is_one_line() {
        let mut sandbox = Sandbox {
            capabilities: vec!["CAP_BPF".to_owned(), "CAP_PERFMON".to_owned()],
            no_new_privs: true,
            seccomp: true,
            landlock: false,
        };
        assert_eq!(
            sandbox.words(),
            "confined: 2 capabilities, no new privileges, seccomp"
        );
        sandbox.capabilities.pop();
        sandbox.landlock = true;
        assert_eq!(
            sandbox.words(),
            "confined: 1 capability, no new privileges, seccomp, Landlock"
        );
        assert_eq!(Sandbox::default().words(), "not confined: no capabilities");
    }
}
