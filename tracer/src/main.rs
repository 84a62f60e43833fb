//! The `tracer` command.

use std::process::ExitCode;

use tracer::{confine::denied, report::escape::note};

fn main() -> ExitCode {
    let done = tracer::cli::run();
    denied::take().iter().for_each(note);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_quiet() {
                note(&failure);
            }
            failure.code()
        }
    }
}
