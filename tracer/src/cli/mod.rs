//! The command line: one file per command, and the exit statuses.

pub mod args;
mod causes;
mod check;
mod completions;
mod confined;
mod diff;
mod ending;
mod exec;
pub mod exit;
mod export;
mod hooks;
mod live;
mod man;
mod output;
mod record;
mod replay;
mod report;
mod show;
mod usage;

use std::{env, ffi::OsString};

use clap::FromArgMatches as _;

use self::{
    args::{Args, Command},
    exit::Failure,
};
use crate::recording::memory;

/// Runs the command named on the command line.
pub fn run() -> Result<(), Failure> {
    let arguments: Vec<OsString> = env::args_os().collect();
    // No command for users: it is not in the help.
    if let [_, name, command] = arguments.as_slice()
        && name == exec::COMMAND
    {
        return exec::serve(&command.to_string_lossy());
    }
    let matches = args::command().try_get_matches_from(&arguments);
    let args = match matches.and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            return Err(Failure::Usage(usage::one_line(
                &error,
                &usage::command_of(&arguments),
            )));
        }
        // `--help` and `--version`, which are not errors.
        Err(answer) => return answer.print().map_err(Failure::from),
    };
    match args.command {
        Some(Command::Check(options)) => {
            memory::set_limit(options.max_memory);
            check::run(&options)
        }
        Some(Command::Hooks(options)) => hooks::run(&options),
        Some(Command::Causes(options)) => causes::run(&options),
        Some(Command::Completions(options)) => completions::run(&options),
        Some(Command::Man(options)) => man::run(&options),
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
        Some(Command::Diff(options)) => {
            memory::set_limit(options.max_memory);
            diff::run(&options)
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
