//! The programs of the benchmarks as processes of the guest.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::client::NAME as CLIENT;
use super::server::NAME as SERVER;
use crate::guest::netns::Netns;

/// A running program that is ready. Dropping it kills it.
pub(super) struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a server in a netns.
    pub(super) fn server(netns: &Netns, protocol: &str, at: &str) -> Result<Self> {
        Self::start(netns, SERVER, &[protocol, at])
    }

    /// Starts a client in a netns.
    pub(super) fn client(netns: &Netns, arguments: &[&str]) -> Result<Self> {
        Self::start(netns, CLIENT, arguments)
    }

    fn start(netns: &Netns, name: &str, arguments: &[&str]) -> Result<Self> {
        let mut child = netns.run(|| {
            Command::new("/proc/self/exe")
                .arg0(name)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start {name}"))
        })?;
        let input = child.stdin.take().context("it has no standard input")?;
        let output = child.stdout.take().context("it has no standard output")?;
        let mut program = Self {
            child,
            input,
            output: BufReader::new(output),
        };
        let line = program
            .line()
            .with_context(|| format!("{name} {}", arguments.join(" ")))?;
        ensure!(line == "ready", "{name} printed `{line}`");
        Ok(program)
    }

    /// Lets a client do this many operations. Returns how long they took, in nanoseconds.
    pub(super) fn generate(&mut self, operations: u32) -> Result<f64> {
        writeln!(self.input, "{operations}").context("cannot write to a client")?;
        let line = self.line()?;
        line.parse().with_context(|| format!("a client printed `{line}`"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .context("cannot read its output")?;
        ensure!(!line.is_empty(), "it ended; the console has its error");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
