//! Reads recordings in a sandbox: inputs and output are opened, then the process is confined, then the first byte is parsed.

use std::{io::Write, path::PathBuf};

use super::{exit::Failure, output::Output};
use crate::{
    confine::reading::{Needs, Reading},
    pipeline::recordings::{Inputs, Run},
    report::escape::note,
};

/// Opens the recordings, confines the process and reads their heads.
pub(super) fn runs(files: &[PathBuf]) -> Result<Vec<Run>, Failure> {
    let inputs = Inputs::open(files)?;
    confine(Needs::default());
    Ok(inputs.runs()?)
}

/// As [`runs`], with an output. It is emptied and named once the heads are read.
pub(super) fn runs_and_output(
    inputs: &Inputs,
    output: Output,
) -> Result<(Vec<Run>, Box<dyn Write + Send>), Failure> {
    let path = output.path().map(ToOwned::to_owned);
    let mut reading = confine(Needs {
        screen: false,
        output: path.as_deref(),
    });
    let runs = inputs.runs()?;
    let out = output.begin()?;
    reading.output_is_named();
    Ok((runs, out))
}

/// Confines the process, and reports what the system refuses.
pub(super) fn confine(needs: Needs<'_>) -> Reading {
    let reading = Reading::begin(needs);
    if !reading.missing.is_empty() {
        note(format_args!(
            "{}; {}",
            reading.sandbox.words(),
            reading.missing.join("; ")
        ));
    }
    reading
}
