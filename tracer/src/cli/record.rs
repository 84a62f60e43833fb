//! `tracer record`: trace now into a file.

use std::path::Path;

use anyhow::Context as _;

use super::{args::RecordOptions, exit::Failure, session, watch::Watch};
use crate::trace::{flight::Flight, recorder::Sink, rotate::Files};

/// Attaches, records until it is time to end, and detaches.
pub(super) fn run(options: &RecordOptions) -> Result<(), Failure> {
    // Before anything is attached: what cannot be written is known at once.
    let sink = open(options).with_context(|| cannot_write(&options.output))?;
    let mut watch = Watch::new(options);
    session::run(&options.select, options.patience, &mut watch, Some(sink))
}

fn open(options: &RecordOptions) -> std::io::Result<Box<dyn Sink>> {
    let path = &options.output;
    Ok(match options.ring {
        Some(most) => Box::new(Flight::open(path, most)?),
        None => {
            let count = options
                .rotate_count
                .map(|count| usize::try_from(count).unwrap_or(usize::MAX));
            Box::new(Files::open(path, options.rotate_size, count)?)
        }
    })
}

/// What went wrong; the reason follows.
pub(super) fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
