//! `tracer record`: trace now into a file.

use std::path::Path;

use anyhow::Context as _;

use super::{args::RecordOptions, exit::Failure, session, watch::Watch};
use crate::trace::{flight::Flight, recorder::Sink, rotate::Files};

/// Attaches, records until it is time to end, and detaches.
pub(super) fn run(options: &RecordOptions) -> Result<(), Failure> {
    let is_row = options.rotate_size.is_some() || options.ring.is_some();
    if is_row && options.output == Path::new("-") {
        return Err(Failure::Usage(
            "standard output is one file: --rotate-size and --ring need another name".to_owned(),
        ));
    }
    // Before anything is attached: what cannot be written is known at once.
    let sink = open(options).with_context(|| cannot_write(&options.output))?;
    let mut watch = Watch::new(options);
    session::run(&options.select, options.patience, &mut watch, Some(sink))
}

fn open(options: &RecordOptions) -> std::io::Result<Box<dyn Sink>> {
    let path = &options.output;
    if let Some(most) = options.ring {
        return Ok(Box::new(Flight::open(path, most)?));
    }
    let count = options
        .rotate_count
        .map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    Ok(Box::new(Files::open(path, options.rotate_size, count)?))
}

/// What went wrong; the reason follows.
pub(super) fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
