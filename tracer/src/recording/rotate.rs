//! A recording in files: one, or a row of them of which the oldest are taken away.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    change,
    chunk::Sealed,
    recorder::{Sink, Standing},
    writer::{self, Writer},
};
use crate::finding::head::Head;

/// Where one file goes, or standard output.
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

/// Opens a file for a recording, and throws away what it held.
pub fn create(path: &Path) -> io::Result<File> {
    let (file, reservation) = reserve(path)?;
    reservation.keep();
    clear(&file)?;
    Ok(file)
}

/// A file that is there for a recording that may never begin: then it is taken away again, unless it was there before.
#[derive(Debug)]
pub struct Reservation {
    path: PathBuf,
    is_new: bool,
}

impl Reservation {
    /// The recording begins.
    pub fn keep(mut self) {
        self.is_new = false;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.is_new {
            // Somebody may have taken it away.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a file for a recording that is to begin later: until then it keeps what it held. It will tell of addresses in
/// the kernel and of who connected: a new one is for its owner only.
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

/// Throws away what a file held. A pipe or a device holds nothing.
fn clear(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(())
}

/// The name of one file of a row: `node.trace` becomes `node.0001.trace`.
#[must_use]
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => path.with_extension(format!("{number:04}.{extension}")),
        None => path.with_extension(format!("{number:04}")),
    }
}

/// See the module.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    /// A file that is longer than this is ended and the next one begun.
    size: Option<u64>,
    /// So many files are kept.
    count: Option<usize>,
    head: Head,
    opened: Option<Out>,
    /// Of what was opened.
    reservation: Option<Reservation>,
    writer: Option<Writer<Out>>,
    /// Files that were ended, oldest first.
    ended: VecDeque<PathBuf>,
    /// Bytes in files that were ended.
    before: u64,
}

impl Files {
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
            ended: VecDeque::new(),
            before: 0,
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

    /// The file that is written to.
    fn current(&self) -> PathBuf {
        match self.size {
            Some(_) => numbered(&self.path, self.head.part + 1),
            None => self.path.clone(),
        }
    }

    /// An error, and the file that it is about.
    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.current().display()))
    }

    /// Ends this file and begins the next one, with what is known.
    fn rotate(&mut self, standing: &Standing) -> io::Result<()> {
        self.end_file()?;
        self.ended.push_back(self.current());
        while self.count.is_some_and(|count| self.ended.len() >= count.max(1)) {
            let Some(oldest) = self.ended.pop_front() else {
                break;
            };
            // Somebody may have taken it away.
            let _ = fs::remove_file(oldest);
        }
        self.head.part += 1;
        let out = Out::File(create(&self.current())?);
        let mut writer = Writer::new(out, &self.head)?;
        let Standing {
            known,
            begun,
            next_flow,
        } = standing;
        writer::standing(change::whole(known), begun, *next_flow, |chunk| {
            writer.write(chunk)
        })?;
        self.writer = Some(writer);
        Ok(())
    }

    fn end_file(&mut self) -> io::Result<()> {
        if let Some(writer) = self.writer.take() {
            self.before += writer.written();
            if let Out::File(file) = writer.finish()? {
                file.sync_all()?;
            }
        }
        Ok(())
    }
}

impl Sink for Files {
    fn begin(&mut self, head: Head) -> io::Result<()> {
        self.head = head;
        let Some(out) = self.opened.take() else {
            return Ok(());
        };
        if let Out::File(file) = &out {
            clear(file)?;
        }
        let writer = Writer::new(out, &self.head);
        self.writer = Some(writer.map_err(|error| self.named(&error))?);
        if let Some(reservation) = self.reservation.take() {
            reservation.keep();
        }
        Ok(())
    }

    fn take(&mut self, chunk: Sealed, after: &Standing) -> io::Result<()> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let whole = writer.written();
        if let Err(error) = writer.write(&chunk).and_then(|()| writer.get_mut().flush()) {
            // So that nothing is left of a chunk that did not fit. If that fails, readers leave it out.
            if let Out::File(file) = writer.get_mut() {
                let _ = file.set_len(whole);
            }
            return Err(self.named(&error));
        }
        if self.size.is_some_and(|size| writer.written() >= size) {
            let rotated = self.rotate(after);
            rotated.map_err(|error| self.named(&error))?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn finish(&mut self) -> io::Result<()> {
        let ended = self.end_file();
        ended.map_err(|error| self.named(&error))
    }

    fn bytes(&self) -> u64 {
        self.before + self.writer.as_ref().map_or(0, Writer::written)
    }
}

#[cfg(test)]
mod tests;
