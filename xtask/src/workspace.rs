//! The paths of this workspace, its tracked files, and cargo.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The folder with the scenarios.
pub(crate) fn scenarios() -> PathBuf {
    root().join("tests/scenarios")
}

/// The folder with the scenarios of a real control plane.
pub(crate) fn kubernetes_scenarios() -> PathBuf {
    root().join("tests/kubernetes")
}

/// The cargo that runs this program, otherwise the one in `PATH`.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The path of this program. cargo may replace the file during a run, which Linux marks in the path.
pub(crate) fn program() -> Result<PathBuf> {
    let path = env::current_exe().context("cannot find the path of this program")?;
    Ok(without_mark(path))
}

fn without_mark(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(bytes) => PathBuf::from(OsStr::from_bytes(bytes)),
        None => path,
    }
}

/// The files that git tracks and that exist, relative to [`root`], in the order of their paths.
pub(crate) fn tracked_files() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "-z"])
        .output()
        .context("cannot run git")?;
    ensure!(
        output.status.success(),
        "cannot list the tracked files: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let names = output.stdout.split(|byte| *byte == 0);
    let paths = names.map(|name| PathBuf::from(OsStr::from_bytes(name)));
    Ok(paths.filter(|path| root().join(path).is_file()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_replaced_program_stays_valid() {
        for path in ["/t/debug/xtask", "/t/debug/xtask (deleted)"] {
            assert_eq!(without_mark(path.into()), Path::new("/t/debug/xtask"));
        }
    }

    #[test]
    fn this_file_is_tracked() {
        let files = tracked_files().unwrap();
        assert!(
            files
                .iter()
                .any(|file| file == Path::new("xtask/src/workspace.rs"))
        );
    }
}
