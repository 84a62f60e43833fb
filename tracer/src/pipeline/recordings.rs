//! Opens recordings and sorts them into runs.

use std::{
    collections::BTreeSet,
    fs::{File, Metadata},
    io::{self, BufReader, Read, Seek as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};

use super::error::PipelineError;
use crate::{
    finding::head::Head,
    recording::{error::RecordingError, reader::Reader},
    report::escape::note,
};

/// Bytes that are read at once.
const BUFFER: usize = 1 << 16;

/// The files of recordings, open but not read yet.
#[derive(Debug)]
pub struct Inputs(Vec<Input>);

#[derive(Debug)]
struct Input {
    path: PathBuf,
    /// `None` for standard input.
    file: Option<Arc<File>>,
    /// The size in bytes of a file that can be read again from its start.
    length: Option<u64>,
}

impl Inputs {
    /// Opens the files; `-` is standard input. A file that is given more than once is read once.
    pub fn open(paths: &[PathBuf]) -> Result<Self, PipelineError> {
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        for path in paths {
            if path == Path::new("-") {
                all.push(Input {
                    path: path.clone(),
                    file: None,
                    length: None,
                });
                continue;
            }
            let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            let known = file.metadata().ok().filter(Metadata::is_file);
            if known.is_some_and(|file| !seen.insert((file.dev(), file.ino()))) {
                note(format_args!(
                    "{} is given more than once: reading it once",
                    path.display()
                ));
                continue;
            }
            // A pipe has no start to return to.
            let length = file.seek(io::SeekFrom::End(0)).ok();
            all.push(Input {
                path: path.clone(),
                file: Some(Arc::new(file)),
                length,
            });
        }
        Ok(Self(all))
    }

    /// The bytes of all files whose size is known.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().filter_map(|input| input.length).sum()
    }

    /// The first input that can be read only once.
    #[must_use]
    pub fn unrewindable(&self) -> Option<&Path> {
        let pipe = self.0.iter().find(|input| input.length.is_none())?;
        Some(&pipe.path)
    }

    /// Reads the heads and sorts the recordings into runs, each run's files in order. The earliest run comes first. Can be
    /// called again to read everything from its start, unless there is an [unrewindable](Self::unrewindable) input.
    pub fn runs(&self) -> Result<Vec<Run>, PipelineError> {
        let all: Result<Vec<_>, _> = self.0.iter().map(Input::recording).collect();
        Ok(into_runs(all?))
    }
}

impl Input {
    fn recording(&self) -> Result<Recording, PipelineError> {
        let input: Box<dyn Read + Send> = match (&self.file, self.length) {
            (None, _) => Box::new(io::stdin()),
            (Some(file), None) => Box::new(BufReader::with_capacity(BUFFER, Arc::clone(file))),
            (Some(file), Some(_)) => {
                let start = FromStart {
                    file: Arc::clone(file),
                    position: 0,
                };
                Box::new(BufReader::with_capacity(BUFFER, start))
            }
        };
        Recording::read_from(&self.path, input)
    }
}

/// Reads a file from its start, independently of other readers of the same open file.
struct FromStart {
    file: Arc<File>,
    position: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += u64::try_from(read).map_err(io::Error::other)?;
        Ok(read)
    }
}

/// An open recording.
pub struct Recording {
    path: PathBuf,
    pub(super) reader: Reader<Box<dyn Read + Send>>,
}

impl Recording {
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

fn into_runs(mut all: Vec<Recording>) -> Vec<Run> {
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
    runs
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
