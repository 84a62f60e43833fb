//! The command line: one file per command, and the exit statuses.

pub mod args;
mod check;
mod confined;
pub mod exit;
mod export;
mod hooks;
mod live;
mod output;
mod record;
mod replay;
mod report;
mod show;

use clap::Parser as _;

use self::{
    args::{Args, Command},
    exit::Failure,
};
use crate::recording::memory;

/// Runs the command named on the command line.
pub fn run() -> Result<(), Failure> {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => return Err(Failure::Usage(one_line(&error))),
        // `--help` and `--version`, which are not errors.
        Err(answer) => return answer.print().map_err(Failure::from),
    };
    match args.command {
        Some(Command::Check(options)) => check::run(&options),
        Some(Command::Hooks(options)) => hooks::run(&options),
        Some(Command::Live(options)) => live::run(&options),
        Some(Command::Record(options)) => record::run(&options),
        Some(Command::Replay(options)) => {
            memory::set_limit(options.max_memory);
            replay::run(&options)
        }
        Some(Command::Report(options)) => {
            memory::set_limit(options.max_memory);
            report::run(&options)
        }
        Some(Command::Show(options)) => {
            memory::set_limit(options.max_memory);
            show::run(&options)
        }
        Some(Command::Export(options)) => {
            memory::set_limit(options.max_memory);
            export::run(&options)
        }
        None => live::run(&args.live),
    }
}

/// Clap's error message on one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    format!(
        "{}; try `tracer --help`",
        lines.join(" ").trim_start_matches("error: ")
    )
}
