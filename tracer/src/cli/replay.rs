//! `tracer replay`: each flow of a recording, as `live` would have shown it.

use std::io::{self, BufWriter};

use super::{
    args::{ReplayOptions, look::Look},
    exit::Failure,
    lines::{Form, Lines},
    play, timeline,
};

/// Plays the recordings, run by run.
pub(super) fn run(options: &ReplayOptions) -> Result<(), Failure> {
    if !options.json && !options.plain && !options.verbose && Look::has_terminal() {
        return timeline::run(options);
    }
    let form = if options.json {
        Form::Json
    } else {
        Form::Plain {
            verbose: options.verbose,
        }
    };
    let mut matched = Ok(());
    for run in play::open(&options.files)? {
        let out = BufWriter::new(io::stdout().lock());
        let mut lines = Lines::new(out, form, &options.select);
        play::play(run, &mut lines)?;
        matched = matched.and(lines.fail_on(options.fail_on));
    }
    matched
}
