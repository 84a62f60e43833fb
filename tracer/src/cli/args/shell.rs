//! Options of commands that help to use tracer in a shell.

use clap::Args as ClapArgs;
use clap_complete::Shell;

/// Options of `completions`.
#[derive(Clone, Debug, ClapArgs)]
pub struct CompletionsOptions {
    /// bash, elvish, fish, powershell or zsh
    #[arg(hide_possible_values = true)]
    pub shell: Shell,
}

/// Options of `man`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ManOptions {
    /// The command whose page to print; tracer itself if omitted
    pub command: Option<String>,
}
