//! `tracer completions`: a completion script for a shell.

use std::io::{self, Write as _};

use super::{
    args::{self, CompletionsOptions},
    exit::Failure,
};

/// Prints the script. It completes commands, options, fates and causes.
pub(super) fn run(options: &CompletionsOptions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut args::full_command(), "tracer", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script)?;
    Ok(out.flush()?)
}
