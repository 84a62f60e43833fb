//! The command line: one file a command, and the exit status of each way to end.

pub mod args;
pub mod exit;
mod hooks;
mod live;
mod start;

use clap::Parser as _;

use self::{args::Command, exit::Failure};

/// Runs the command that the arguments ask for.
pub fn run() -> Result<(), Failure> {
    let args = args::Args::parse();
    match args.command {
        Some(Command::Hooks(options)) => hooks::run(&options),
        Some(Command::Live(options)) => live::run(&options),
        None => live::run(&args.live),
    }
}
