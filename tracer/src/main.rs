//! The `tracer` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    match tracer::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_quiet() {
                eprintln!("tracer: {failure}");
            }
            failure.code()
        }
    }
}
