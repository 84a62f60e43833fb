//! The output file of a command, and messages about files.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::exit::Failure;
use crate::{
    recording::output_file::{Existing, OutputFile},
    report::escape::note,
};

/// An open output that is still as it was before.
pub(super) enum Output {
    Stdout,
    File(OutputFile, PathBuf),
}

impl Output {
    /// The path of a file.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::File(_, path) => Some(path),
        }
    }

    /// Empties the file and gives it its name: now the inputs are known to be recordings.
    pub(super) fn begin(self) -> Result<Box<dyn Write + Send>, Failure> {
        Ok(match self {
            Self::Stdout => Box::new(io::stdout()),
            Self::File(mut file, path) => {
                let named = file.empty().and_then(|()| file.keep());
                Box::new(Named {
                    file: named.with_context(|| cannot_write(&path))?,
                    path,
                })
            }
        })
    }
}

/// Opens the output: standard output, or a file that only its owner can read. Of existing files, only exports of the same
/// user are overwritten, and any with `force`. It must not be one of the recordings.
pub(super) fn open(path: Option<&Path>, recordings: &[PathBuf], force: bool) -> Result<Output, Failure> {
    let Some(path) = path else {
        return Ok(Output::Stdout);
    };
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let output = identity(path);
    if output.is_some() && recordings.iter().any(|recording| identity(recording) == output) {
        return Err(Failure::Usage(format!(
            "cannot write {}: it is one of the recordings; name another file",
            path.display()
        )));
    }
    let file = OutputFile::open(path, Existing::for_export(force)).with_context(|| cannot_write(path))?;
    Ok(Output::File(file, path.to_owned()))
}

/// Prints the damage to a recording on standard error.
pub(super) fn warn(what: &str) {
    note(what);
}

/// The context of an error about an output file.
pub(super) fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// A file whose errors include its path.
struct Named {
    file: File,
    path: PathBuf,
}

impl Named {
    fn name(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| self.name(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| self.name(&error))
    }
}
