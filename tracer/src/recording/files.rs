//! A recording in files: one file, or a rotated set of which the oldest are removed.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    change,
    chunk::Chunk,
    recorder::{ChunkSink, Snapshot},
    writer::{self, Writer},
};
use crate::finding::head::Head;

/// A file or standard output.
#[derive(Debug)]
enum Out {
    File(File),
    Stdout(io::Stdout),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(out) => out.flush(),
        }
    }
}

/// Opens a file for a recording and empties it.
pub fn create(path: &Path) -> io::Result<File> {
    let (file, reservation) = reserve(path)?;
    reservation.keep();
    truncate(&file)?;
    Ok(file)
}

/// A file opened for a recording that may never start. In that case a newly created file is removed again.
#[derive(Debug)]
pub struct Reservation {
    path: PathBuf,
    is_new: bool,
}

impl Reservation {
    /// Keeps the file: the recording has started.
    pub fn keep(mut self) {
        self.is_new = false;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.is_new {
            // Somebody else may have removed it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a file for a recording that starts later; its contents stay until then.
///
/// A recording shows kernel addresses and who connected to what, so a new file is readable by its owner only.
pub fn reserve(path: &Path) -> io::Result<(File, Reservation)> {
    let is_new = !path.exists();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let reservation = Reservation {
        path: path.to_owned(),
        is_new,
    };
    Ok((file, reservation))
}

/// Empties a regular file. Pipes and devices cannot be emptied.
fn truncate(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(())
}

/// The path of one file of a rotated set: `node.trace` becomes `node.0001.trace`.
#[must_use]
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => path.with_extension(format!("{number:04}.{extension}")),
        None => path.with_extension(format!("{number:04}")),
    }
}

/// Writes a recording to one file or to a rotated set of files.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    /// The size in bytes from which on the next file is started.
    size: Option<u64>,
    /// How many files are kept.
    count: Option<usize>,
    head: Head,
    opened: Option<Out>,
    /// The reservation of the opened file.
    reservation: Option<Reservation>,
    writer: Option<Writer<Out>>,
    /// Completed files, oldest first.
    completed: VecDeque<PathBuf>,
    /// Bytes in completed files.
    completed_bytes: u64,
}

impl FileSink {
    /// Opens the first file; `-` is standard output.
    pub fn open(path: &Path, size: Option<u64>, count: Option<usize>) -> io::Result<Self> {
        let mut files = Self {
            path: path.to_owned(),
            size,
            count,
            head: Head::default(),
            opened: None,
            reservation: None,
            writer: None,
            completed: VecDeque::new(),
            completed_bytes: 0,
        };
        files.opened = Some(if path == Path::new("-") {
            Out::Stdout(io::stdout())
        } else {
            let (file, reservation) = reserve(&files.current())?;
            files.reservation = Some(reservation);
            Out::File(file)
        });
        Ok(files)
    }

    /// The path of the file being written.
    fn current(&self) -> PathBuf {
        match self.size {
            Some(_) => numbered(&self.path, self.head.part + 1),
            None => self.path.clone(),
        }
    }

    /// Adds the path of the current file to an error.
    fn with_path(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.current().display()))
    }

    /// Completes this file and starts the next one with what is known.
    fn rotate(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.complete_file()?;
        self.completed.push_back(self.current());
        while self
            .count
            .is_some_and(|count| self.completed.len() >= count.max(1))
        {
            let Some(oldest) = self.completed.pop_front() else {
                break;
            };
            // Somebody else may have removed it.
            let _ = fs::remove_file(oldest);
        }
        self.head.part += 1;
        let out = Out::File(create(&self.current())?);
        let mut writer = Writer::new(out, &self.head)?;
        let Snapshot {
            facts,
            begun,
            next_flow,
        } = snapshot;
        writer::write_snapshot(change::all_of(facts), begun, *next_flow, |chunk| {
            writer.write(chunk)
        })?;
        self.writer = Some(writer);
        Ok(())
    }

    fn complete_file(&mut self) -> io::Result<()> {
        if let Some(writer) = self.writer.take() {
            self.completed_bytes += writer.written();
            if let Out::File(file) = writer.finish()? {
                file.sync_all()?;
            }
        }
        Ok(())
    }
}

impl ChunkSink for FileSink {
    fn begin(&mut self, head: Head) -> io::Result<()> {
        self.head = head;
        let Some(out) = self.opened.take() else {
            return Ok(());
        };
        if let Out::File(file) = &out {
            truncate(file)?;
        }
        let writer = Writer::new(out, &self.head);
        self.writer = Some(writer.map_err(|error| self.with_path(&error))?);
        if let Some(reservation) = self.reservation.take() {
            reservation.keep();
        }
        Ok(())
    }

    fn add(&mut self, chunk: Chunk, after: &Snapshot) -> io::Result<()> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let complete = writer.written();
        if let Err(error) = writer.write(&chunk).and_then(|()| writer.get_mut().flush()) {
            // Removes the part of the chunk that was written. If that fails, readers skip it.
            if let Out::File(file) = writer.get_mut() {
                let _ = file.set_len(complete);
            }
            return Err(self.with_path(&error));
        }
        if self.size.is_some_and(|size| writer.written() >= size) {
            let rotated = self.rotate(after);
            rotated.map_err(|error| self.with_path(&error))?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn finish(&mut self) -> io::Result<()> {
        let completed = self.complete_file();
        completed.map_err(|error| self.with_path(&error))
    }

    fn bytes(&self) -> u64 {
        self.completed_bytes + self.writer.as_ref().map_or(0, Writer::written)
    }
}

#[cfg(test)]
mod tests;
