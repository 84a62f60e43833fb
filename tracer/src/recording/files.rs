//! A recording in files: one file, or a rotated set of which the oldest are removed.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    change,
    chunk::Chunk,
    disk_sync::DiskSync,
    output_file::{self, Existing, OutputFile},
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

/// The path of one file of a rotated set: `node.trace` becomes `node.0001.trace`.
#[must_use]
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => path.with_extension(format!("{number:04}.{extension}")),
        None => path.with_extension(format!("{number:04}")),
    }
}

/// The number of a file of the rotated set of `path`.
fn number_of(path: &Path, file: &Path) -> Option<u32> {
    let name = file.file_name()?.to_str()?;
    let stem = path.file_stem()?.to_str()?;
    let rest = name.strip_prefix(stem)?.strip_prefix('.')?;
    let digits = match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => rest.strip_suffix(extension)?.strip_suffix('.')?,
        None => rest,
    };
    let is_number = digits.len() >= 4 && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// Checks that no file of an earlier set would be replaced, or mistaken for one of this set.
fn no_other_set(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
        let file = entry?.path();
        if number_of(path, &file).is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!(
                    "{} already exists; use --force to replace such files",
                    file.display()
                ),
            ));
        }
    }
    Ok(())
}

/// Checks that the file still has a name: what is written to a removed file is lost.
fn ensure_linked(file: &File) -> io::Result<()> {
    let there = file.metadata()?;
    if there.is_file() && there.nlink() == 0 {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the recording was removed while it was written",
        ));
    }
    Ok(())
}

/// Writes a recording to one file or to a rotated set of files.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    /// The size in bytes at which the next file is started.
    size: Option<u64>,
    /// How many files are kept.
    count: Option<usize>,
    existing: Existing,
    head: Head,
    opened: Option<Opened>,
    writer: Option<Writer<Out>>,
    /// Completed files, oldest first.
    completed: VecDeque<PathBuf>,
    /// Bytes in completed files.
    completed_bytes: u64,
    disk: Option<DiskSync>,
}

/// An output before the recording starts.
#[derive(Debug)]
enum Opened {
    File(OutputFile),
    Stdout,
}

impl FileSink {
    /// Opens the first file; `-` is standard output. An existing file stays until the recording starts.
    pub fn open(
        path: &Path,
        size: Option<u64>,
        count: Option<usize>,
        existing: Existing,
    ) -> io::Result<Self> {
        let mut files = Self {
            path: path.to_owned(),
            size,
            count,
            existing,
            head: Head::default(),
            opened: None,
            writer: None,
            completed: VecDeque::new(),
            completed_bytes: 0,
            disk: None,
        };
        files.opened = Some(if path == Path::new("-") {
            Opened::Stdout
        } else {
            if size.is_some() && existing != Existing::Replace {
                no_other_set(path)?;
            }
            Opened::File(OutputFile::open(&files.current(), existing)?)
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
        let after = match error.kind() {
            // Nothing of it is left.
            io::ErrorKind::NotFound => "",
            _ => "; what was written before is readable",
        };
        io::Error::new(
            error.kind(),
            format!("{}: {error}{after}", self.current().display()),
        )
    }

    /// Keeps the file's name and syncs it from now on.
    fn started(&mut self, file: &File) -> io::Result<()> {
        if !file.metadata()?.is_file() {
            return Ok(());
        }
        output_file::sync_name(&self.current());
        let copy = file.try_clone()?;
        match &self.disk {
            Some(disk) => disk.switch_to(copy),
            None => self.disk = Some(DiskSync::start(copy)?),
        }
        Ok(())
    }

    /// Completes this file and starts the next one with what is known so far.
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
            // Another process may have removed it.
            let _ = fs::remove_file(oldest);
        }
        self.head.part += 1;
        let file = output_file::create(&self.current(), self.existing)?;
        self.started(&file)?;
        let mut writer = Writer::new(Out::File(file), &self.head)?;
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
                ensure_linked(&file)?;
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
        let begin = || {
            let out = match out {
                Opened::Stdout => Out::Stdout(io::stdout()),
                Opened::File(mut file) => {
                    file.empty()?;
                    let file = file.keep()?;
                    self.started(&file)?;
                    Out::File(file)
                }
            };
            self.writer = Some(Writer::new(out, &self.head)?);
            Ok(())
        };
        let begun: io::Result<()> = begin();
        begun.map_err(|error| self.with_path(&error))
    }

    fn add(&mut self, chunk: Chunk, after: &Snapshot) -> io::Result<()> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let complete = writer.written();
        if let Out::File(file) = writer.get_mut()
            && let Err(error) = ensure_linked(file)
        {
            return Err(self.with_path(&error));
        }
        if let Err(error) = writer.write(&chunk).and_then(|()| writer.get_mut().flush()) {
            // Removes the part of the chunk that was written. If that fails, readers skip it.
            if let Out::File(file) = writer.get_mut() {
                let _ = file.set_len(complete);
            }
            return Err(self.with_path(&error));
        }
        if let Some(Err(error)) = self.disk.as_ref().map(DiskSync::check) {
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
