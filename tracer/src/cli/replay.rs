//! `tracer replay`: each flow of a recording, as `live` would have shown it.

use std::io::{self, BufWriter, Write};

use super::{
    args::{ReplayOptions, Select, look::Look},
    exit::Failure,
    lines::{Form, Lines},
    merge,
    play::{self, Run},
    timeline,
};
use crate::flow::fate::Fate;

/// Plays the recordings: those of several runs by the wall clock.
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
    let runs = play::open(&options.files)?;
    let mut out = BufWriter::new(io::stdout().lock());
    print(runs, &mut out, form, &options.select, options.fail_on)
}

/// Prints each flow of these recordings.
pub(super) fn print(
    runs: Vec<Run>,
    out: &mut impl Write,
    form: Form,
    select: &Select,
    fail_on: Option<Fate>,
) -> Result<(), Failure> {
    if runs.len() > 1 {
        return merge::print(runs, out, form, select, fail_on);
    }
    for run in runs {
        let mut lines = Lines::new(&mut *out, form, select).of_recording();
        play::play(run, &mut lines)?;
        lines.fail_on(fail_on)?;
    }
    Ok(())
}
