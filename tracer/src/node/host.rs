//! The node's files: the machine's own, or a node's root directory that is mounted elsewhere.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Where the files of a node are.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    /// Folder of the counters and tables of the node's network namespace.
    net: PathBuf,
    is_live: bool,
}

impl Host {
    /// The machine itself.
    #[must_use]
    pub fn this() -> Self {
        Self {
            root: PathBuf::from("/"),
            net: PathBuf::from("/proc/net"),
            is_live: true,
        }
    }

    /// A node whose root directory is mounted here (`--host-root`). A tree of files without a running system is only read.
    ///
    /// # Errors
    /// The tree is that of a running node, and this process is in another network namespace: its sysctls and its netlink answers
    /// would be those of the wrong namespace.
    pub fn at(root: &Path) -> io::Result<Self> {
        fs::read_dir(root.join("proc"))?;
        let first = root.join("proc/1/ns/net");
        let is_live = match (fs::metadata(&first), fs::metadata("/proc/self/ns/net")) {
            (Ok(theirs), Ok(own)) if theirs.ino() == own.ino() => true,
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => false,
            (Err(error), _) => return Err(error),
            _ => {
                return Err(io::Error::other(
                    "this process is in another network namespace than the node; run it with hostNetwork: true",
                ));
            }
        };
        let of_first = root.join("proc/1/net");
        let net = if is_live { of_first } else { root.join("proc/net") };
        Ok(Self {
            root: root.to_owned(),
            net,
            is_live,
        })
    }

    /// Whether the kernel of the node can be queried, and not only its files.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.is_live
    }

    /// A path on the node, given without its first slash.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The text of a file, given without its first slash; `None` if it cannot be read.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    /// The text of a file without the white space around it.
    #[must_use]
    pub fn word(&self, path: &str) -> Option<String> {
        Some(self.text(path)?.trim().to_owned())
    }

    /// The text of a file of the node's network namespace, for example `stat/nf_conntrack`.
    #[must_use]
    pub fn net_text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.net.join(name)).ok()
    }

    /// The path of a file of the node's network namespace.
    #[must_use]
    pub fn net_path(&self, name: &str) -> PathBuf {
        self.net.join(name)
    }

    /// Names of the entries of a folder, sorted.
    #[must_use]
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}

/// The lines of a file from its start, as long as they are wanted. A table may have a million lines.
pub(super) fn first_lines(path: &Path, is_wanted: impl Fn(&str) -> bool) -> String {
    let Ok(file) = File::open(path) else {
        return String::new();
    };
    let lines = BufReader::with_capacity(1 << 14, file)
        .lines()
        .map_while(Result::ok);
    let mut out = String::new();
    for line in lines.take_while(|line| is_wanted(line)) {
        out.push_str(&line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_files_is_not_queried() {
        let root = tempfile::tempdir().unwrap();
        assert!(Host::at(root.path()).is_err());
        fs::create_dir_all(root.path().join("proc/net")).unwrap();
        fs::write(root.path().join("proc/net/netstat"), "x\n").unwrap();
        let host = Host::at(root.path()).unwrap();
        assert!(!host.is_live());
        assert_eq!(host.net_text("netstat").as_deref(), Some("x\n"));
        assert_eq!(host.names("proc"), ["net"]);
    }

    #[test]
    fn only_wanted_lines_are_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("table");
        fs::write(&path, "a 1\na 2\nb 3\na 4\n").unwrap();
        assert_eq!(first_lines(&path, |line| line.starts_with('a')), "a 1\na 2\n");
        assert_eq!(first_lines(Path::new("/no/such/file"), |_| true), "");
    }
}
