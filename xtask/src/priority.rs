//! The CPU priority of a child process.

use std::process::Command;

/// How a child process competes for the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Like any other process.
    Normal,
    /// A tenth of a CPU that another process wants in full.
    Low,
    /// Only when no other process wants the CPU (`SCHED_IDLE`).
    Idle,
}

impl Priority {
    /// The command at this priority, with its arguments and environment. Its working folder and standard streams are
    /// not copied: set them on the result.
    pub(crate) fn apply(self, command: Command) -> Command {
        match self {
            Self::Normal => command,
            Self::Low => wrap(&["nice", "-n", "10"], &command),
            Self::Idle => wrap(&["chrt", "--idle", "0"], &command),
        }
    }
}

/// The command as an argument of another one.
fn wrap(wrapper: &[&str; 3], command: &Command) -> Command {
    let [program, arguments @ ..] = wrapper;
    let mut wrapped = Command::new(program);
    wrapped
        .args(arguments)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_command_keeps_arguments_and_environment() {
        let mut command = Command::new("cargo");
        command.args(["clippy", "--quiet"]).env("A", "1").env_remove("B");
        let idle = Priority::Idle.apply(command);
        let arguments: Vec<_> = idle.get_args().collect();
        assert_eq!(idle.get_program(), "chrt");
        assert_eq!(arguments, ["--idle", "0", "cargo", "clippy", "--quiet"]);
        let environment: Vec<_> = idle.get_envs().collect();
        assert_eq!(environment.len(), 2, "{environment:?}");
    }
}
