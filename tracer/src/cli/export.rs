//! `tracer export`: a recording in a format of others.

use super::{
    args::{ExportOptions, Format},
    exit::Failure,
    lines::Form,
    replay,
};

/// Plays the recordings, run by run.
pub(super) fn run(options: &ExportOptions) -> Result<(), Failure> {
    match options.to {
        Format::Jsonl => replay::print(&options.files, Form::Json, &options.select, None),
    }
}
