//! The file that a command writes what it made of recordings to.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::exit::Failure;
use crate::recording::files;

/// Opens the output: a file, which is made for its owner only and loses what it held, or standard output.
pub(super) fn open(path: Option<&Path>, recordings: &[PathBuf]) -> Result<Box<dyn Write + Send>, Failure> {
    Ok(match path {
        Some(path) => Box::new(create(path, recordings)?),
        None => Box::new(io::stdout()),
    })
}

/// Says on standard error what is wrong with a recording.
pub(super) fn complain(what: &str) {
    eprintln!("tracer: {what}");
}

/// What went wrong; the reason follows.
pub(super) fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// Makes the output, which must not be one of the recordings.
fn create(path: &Path, recordings: &[PathBuf]) -> Result<Named, Failure> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let output = identity(path);
    if output.is_some() && recordings.iter().any(|recording| identity(recording) == output) {
        return Err(Failure::Usage(format!(
            "{} is one of the recordings: name another file",
            path.display()
        )));
    }
    Ok(Named {
        file: files::create(path).with_context(|| cannot_write(path))?,
        path: path.to_owned(),
    })
}

/// A file whose errors tell its name.
struct Named {
    file: File,
    path: PathBuf,
}

impl Named {
    fn tell(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| self.tell(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| self.tell(&error))
    }
}
