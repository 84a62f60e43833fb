//! The `tracer` command.

use std::process::ExitCode;

use tracer::report::escape::note;

fn main() -> ExitCode {
    match tracer::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_quiet() {
                note(&failure);
            }
            failure.code()
        }
    }
}
