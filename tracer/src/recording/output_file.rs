//! Output files: never a symbolic link, another user's file, or silently in place of what is there.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read as _, Seek as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{fcntl::OFlag, unistd::geteuid};

use super::MAGIC;

/// How many names are tried for a temporary file.
const MAX_NAMES: u32 = 1_000;

/// What may be at the path of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing but an empty file, a pipe or a device.
    Keep,
    /// Any file of this user that is not a recording.
    KeepRecordings,
    /// Any file. It is replaced by a new one.
    Replace,
}

impl Existing {
    /// The choice for a recording, with and without `--force`.
    #[must_use]
    pub fn for_recording(force: bool) -> Self {
        if force { Self::Replace } else { Self::Keep }
    }

    /// The choice for an export or a report, with and without `--force`.
    #[must_use]
    pub fn for_export(force: bool) -> Self {
        if force {
            Self::Replace
        } else {
            Self::KeepRecordings
        }
    }
}

/// An open output whose name is not final: until [`OutputFile::keep`], an earlier file at the path is still there.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    path: PathBuf,
    /// The temporary name of a file that replaces another one.
    temporary: Option<PathBuf>,
    /// Whether dropping it removes the file.
    is_new: bool,
}

impl OutputFile {
    /// Opens the output. A new file is readable by its owner only: a recording shows kernel addresses and who connected to
    /// what.
    ///
    /// # Errors It cannot be opened, or the existing file must not be replaced. The text does not name the path.
    pub fn open(path: &Path, existing: Existing) -> io::Result<Self> {
        match create_new(path) {
            Ok(file) => Ok(Self {
                file,
                path: path.to_owned(),
                temporary: None,
                is_new: true,
            }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::open_existing(path, existing),
            Err(error) => Err(error),
        }
    }

    fn open_existing(path: &Path, existing: Existing) -> io::Result<Self> {
        let there = fs::symlink_metadata(path)?;
        if there.is_symlink() {
            return Err(refusal("it is a symbolic link: name the file that it points to"));
        }
        if there.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if there.is_file() && existing == Existing::Replace {
            return Self::beside(path);
        }
        check(&there, existing)?;
        let mut file = OpenOptions::new()
            .read(there.is_file())
            .write(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)?;
        // It may have been replaced since it was checked.
        let there = file.metadata()?;
        check(&there, existing)?;
        if there.is_file() && there.len() > 0 && is_recording(&mut file)? {
            return Err(refusal("it is a recording; use --force to replace it"));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            temporary: None,
            is_new: false,
        })
    }

    /// Creates a file that replaces the one at `path` when it is kept.
    pub fn beside(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
        for number in 0..MAX_NAMES {
            let temporary = path.with_file_name(temporary_name(name, number));
            match create_new(&temporary) {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        path: path.to_owned(),
                        temporary: Some(temporary),
                        is_new: true,
                    });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Whether the file has no name any more, because it was removed.
    pub fn is_removed(&self) -> io::Result<bool> {
        let there = self.file.metadata()?;
        Ok(there.is_file() && there.nlink() == 0)
    }

    /// Empties the file. Pipes and devices cannot be emptied.
    pub fn empty(&mut self) -> io::Result<()> {
        if self.file.metadata()?.is_file() {
            self.file.rewind()?;
            self.file.set_len(0)?;
        }
        Ok(())
    }

    /// Gives the file its final name.
    pub fn keep(mut self) -> io::Result<File> {
        let file = self.file.try_clone()?;
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path)?;
        }
        self.is_new = false;
        Ok(file)
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        let path = self.temporary.as_ref().unwrap_or(&self.path);
        let identity = |file: Metadata| (file.dev(), file.ino());
        // Another process may have removed or replaced it.
        if self.is_new
            && let (Ok(own), Ok(there)) = (self.file.metadata(), fs::symlink_metadata(path))
            && identity(own) == identity(there)
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Opens an output and empties it.
pub fn create(path: &Path, existing: Existing) -> io::Result<File> {
    let mut output = OutputFile::open(path, existing)?;
    output.empty()?;
    output.keep()
}

/// Makes the name of a new file survive a power cut, where the file system can.
pub fn sync_name(path: &Path) {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
        // Not every file system can.
        let _ = folder.sync_all();
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn temporary_name(name: &OsStr, number: u32) -> OsString {
    let mut out = OsString::from(".");
    out.push(name);
    out.push(format!(".{}.{number}", std::process::id()));
    out
}

/// Whether an existing file may be written to, by what is known without reading it.
fn check(there: &Metadata, existing: Existing) -> io::Result<()> {
    let kind = there.file_type();
    let user = geteuid().as_raw();
    // The system's devices belong to root.
    let is_own = there.uid() == user || (kind.is_char_device() && there.uid() == 0);
    if !is_own {
        return Err(refusal(
            "it belongs to another user; give another name, or use --force to replace it",
        ));
    }
    if there.is_file() && there.nlink() > 1 {
        return Err(refusal(
            "it has several names (hard links); give another name, or use --force to replace this one",
        ));
    }
    if there.is_file() && there.len() > 0 && existing == Existing::Keep {
        return Err(refusal("it already exists; use --force to replace it"));
    }
    Ok(())
}

fn is_recording(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::with_capacity(MAGIC.len());
    let length = u64::try_from(MAGIC.len()).unwrap_or_default();
    file.take(length).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start == MAGIC)
}

fn refusal(why: &str) -> io::Error {
    io::Error::new(ErrorKind::AlreadyExists, why)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::tempdir;

    use super::*;

    fn why(path: &Path, existing: Existing) -> String {
        let error = OutputFile::open(path, existing).expect_err("it must not be written to");
        error.to_string()
    }

    #[test]
    fn a_new_file_is_for_its_owner_and_vanishes_if_it_is_not_kept() {
        let folder = tempdir().expect("a folder");
        let path = folder.path().join("node.trace");
        drop(OutputFile::open(&path, Existing::Keep).expect("a file"));
        assert!(!path.exists());
        create(&path, Existing::Keep).expect("a file");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // It is empty, so nothing is lost.
        create(&path, Existing::Keep).expect("a file");
    }

    #[test]
    fn what_is_there_is_replaced_on_request_alone_and_not_before_it_is_kept() {
        let folder = tempdir().expect("a folder");
        let path = folder.path().join("node.trace");
        fs::write(&path, "text").expect("a file");
        assert!(why(&path, Existing::Keep).contains("--force"));
        drop(OutputFile::open(&path, Existing::Replace).expect("a file"));
        assert_eq!(fs::read(&path).expect("a file"), b"text");
        let new = OutputFile::open(&path, Existing::Replace).expect("a file");
        assert_eq!(fs::read(&path).expect("a file"), b"text");
        new.keep().expect("a file");
        assert_eq!(fs::read(&path).expect("a file"), b"");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert_eq!(
            fs::metadata(&path).expect("a file").permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn an_export_replaces_an_export_but_no_recording() {
        let folder = tempdir().expect("a folder");
        let path = folder.path().join("out");
        fs::write(&path, "text").expect("a file");
        create(&path, Existing::KeepRecordings).expect("a file");
        assert_eq!(fs::read(&path).expect("a file"), b"");
        fs::write(&path, [MAGIC.as_slice(), b"more"].concat()).expect("a file");
        assert!(why(&path, Existing::KeepRecordings).contains("it is a recording"));
        create(&path, Existing::Replace).expect("a file");
    }

    #[test]
    fn no_link_is_followed() {
        let folder = tempdir().expect("a folder");
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        for target_exists in [false, true] {
            if target_exists {
                fs::write(&target, "").expect("a file");
            } else {
                symlink(&target, &link).expect("a link");
            }
            for existing in [Existing::Keep, Existing::KeepRecordings, Existing::Replace] {
                assert!(why(&link, existing).contains("symbolic link"));
            }
        }
        fs::remove_file(&link).expect("a link");
        fs::hard_link(&target, &link).expect("a link");
        assert!(why(&link, Existing::KeepRecordings).contains("hard links"));
        fs::write(&target, "text").expect("a file");
        create(&link, Existing::Replace).expect("a file");
        assert_eq!(fs::read(&target).expect("a file"), b"text");
    }

    #[test]
    fn devices_are_written_to_but_not_another_users_file() {
        create(Path::new("/dev/null"), Existing::Keep).expect("a device");
        create(Path::new("/dev/null"), Existing::Replace).expect("a device");
        let there = fs::metadata("/dev/null").expect("a device");
        assert!(there.file_type().is_char_device());
        let folder = tempdir().expect("a folder");
        let path = folder.path().join("theirs");
        fs::write(&path, "").expect("a file");
        if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() {
            for existing in [Existing::Keep, Existing::KeepRecordings] {
                assert!(why(&path, existing).contains("another user"));
            }
            create(&path, Existing::Replace).expect("a file");
            assert_eq!(fs::metadata(&path).expect("a file").uid(), geteuid().as_raw());
        }
    }
}
