//! The archive format of a kernel's initramfs: cpio in the `newc` format.
//!
//! Several archives may follow one another, so the large, constant part can be cached and a run's own files
//! appended.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Component, Path};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHAR_DEVICE: u32 = 0o020_000;

/// Archives are padded to this size, as by cpio(1); the kernel skips zeros between two archives.
const BLOCK: usize = 512;

/// Writes one archive. Missing parent folders of an entry are created.
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    written: usize,
    inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            inode: 0,
            directories: BTreeSet::new(),
        }
    }

    /// Adds a folder.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        self.parents(path)?;
        self.directory_itself(relative(path))
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.entry(relative(path), FILE | permissions, (0, 0), content)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        self.entry(relative(path), SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device.
    pub fn char_device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.parents(path)?;
        self.entry(relative(path), CHAR_DEVICE | 0o600, (major, minor), &[])
    }

    /// Ends the archive and returns its writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.pad(BLOCK)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        let mut parent = String::new();
        let components = Path::new(relative(path))
            .parent()
            .into_iter()
            .flat_map(Path::components);
        for component in components {
            let Component::Normal(name) = component else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("unsupported path in the archive: {path}"),
                ));
            };
            if !parent.is_empty() {
                parent.push('/');
            }
            parent.push_str(&name.to_string_lossy());
            self.directory_itself(&parent)?;
        }
        Ok(())
    }

    fn directory_itself(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[])
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{path} is larger than 4 GiB"),
            )
        })?;
        let name_size = u32::try_from(path.len() + 1)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path longer than 4 GiB"))?;
        self.inode += 1;
        let fields = [
            self.inode, mode, 0, // uid
            0, // gid
            1, // links
            0, // mtime: nothing here may depend on when it was built
            size, 0, 0, // device that the file is on
            device.0, device.1, name_size, 0, // checksum: only the crc format has one
        ];
        let mut header = String::with_capacity(110);
        header.push_str("070701");
        for field in fields {
            use std::fmt::Write as _;
            let _ = write!(header, "{field:08x}");
        }
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad(4)?;
        self.put(content)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self, to: usize) -> io::Result<()> {
        const ZEROS: [u8; BLOCK] = [0; BLOCK];
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&ZEROS[..missing])
    }
}

fn relative(path: &str) -> &str {
    path.trim_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses headers as cpio(5) describes them: 6 bytes of magic, then thirteen fields of eight hex digits.
    fn entries(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            assert_eq!(&archive[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&archive[6 + 8 * n..14 + 8 * n]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(archive[110..110 + name_size - 1].to_vec()).unwrap();
            let content = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return found;
            }
            found.push((name, mode, archive[content..content + size].to_vec()));
            archive = &archive[(content + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn folders_precede_their_contents_and_appear_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/usr/bin/ip", 0o755, b"an ELF").unwrap();
        archive.file("/usr/bin/ss", 0o755, b"").unwrap();
        archive.directory("usr").unwrap();
        archive.symlink("/sbin", "usr/bin").unwrap();
        archive.char_device("/dev/console", 5, 1).unwrap();
        let bytes = archive.finish().unwrap();

        assert_eq!(bytes.len() % BLOCK, 0);
        let entries = entries(&bytes);
        let names: Vec<&str> = entries.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(
            names,
            [
                "usr",
                "usr/bin",
                "usr/bin/ip",
                "usr/bin/ss",
                "sbin",
                "dev",
                "dev/console"
            ]
        );
        assert_eq!(entries[2].1, 0o100_755);
        assert_eq!(entries[2].2, b"an ELF");
        assert_eq!(entries[4].2, b"usr/bin");
    }

    #[test]
    fn the_same_files_make_the_same_bytes() {
        let build = || {
            let mut archive = Archive::new(Vec::new());
            archive.file("a/b", 0o644, b"content").unwrap();
            archive.finish().unwrap()
        };
        assert_eq!(build(), build());
    }

    #[test]
    fn a_path_with_parent_components_is_rejected() {
        assert!(Archive::new(Vec::new()).file("a/../b", 0o644, b"").is_err());
    }
}
