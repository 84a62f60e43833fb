//! Opens recordings and sorts them into runs.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};

use super::error::PipelineError;
use crate::{
    finding::head::Head,
    recording::{error::RecordingError, reader::Reader},
    report::escape::note,
};

/// An open recording.
pub struct Recording {
    path: PathBuf,
    pub(super) reader: Reader<Box<dyn Read + Send>>,
}

impl Recording {
    fn open(path: &Path) -> Result<Self, PipelineError> {
        let input: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        Self::read_from(path, input)
    }

    /// Opens a recording from any reader; `path` is its name in messages.
    ///
    /// # Errors
    /// The input is not a recording.
    pub fn read_from(path: &Path, input: Box<dyn Read + Send>) -> Result<Self, PipelineError> {
        let reader = Reader::new(input).map_err(|error| cannot_read(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            reader,
        })
    }

    /// The recording's head.
    #[must_use]
    pub fn head(&self) -> &Head {
        self.reader.head()
    }

    /// The path that it was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Recordings of one run of tracer, in order.
pub type Run = Vec<Recording>;

/// Opens recordings and sorts them into runs, each run's files in order. The earliest run comes first. A file that is given
/// more than once is read once.
pub fn open(paths: &[PathBuf]) -> Result<Vec<Run>, PipelineError> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        let file = fs::metadata(path).ok().filter(fs::Metadata::is_file);
        if file.is_some_and(|file| !seen.insert((file.dev(), file.ino()))) {
            note(format_args!(
                "{} is given more than once: reading it once",
                path.display()
            ));
            continue;
        }
        all.push(Recording::open(path)?);
    }
    let key = |recording: &Recording| {
        let head = recording.head();
        (head.wall, head.session.clone(), head.part)
    };
    all.sort_by_key(key);
    let mut runs: Vec<Run> = Vec::new();
    for recording in all {
        match runs.last_mut() {
            Some(run)
                if run
                    .last()
                    .is_some_and(|last| goes_on(last.head(), recording.head())) =>
            {
                run.push(recording);
            }
            _ => runs.push(vec![recording]),
        }
    }
    Ok(runs)
}

/// The name of the host on which a run was recorded.
#[must_use]
pub fn host(run: &[Recording]) -> String {
    run.first()
        .map_or_else(String::new, |recording| recording.head().host.clone())
}

fn goes_on(head: &Head, next: &Head) -> bool {
    !head.session.is_empty() && head.session == next.session && head.part != next.part
}

/// Names the file that an error is about.
pub(super) fn cannot_read(path: &Path, error: RecordingError) -> PipelineError {
    let error = anyhow::Error::from(error);
    PipelineError::Failed(anyhow!("cannot read {}: {error:#}", path.display()))
}
