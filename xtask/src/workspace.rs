//! Where this workspace is, and the cargo that runs us.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The folder with the scenarios.
pub(crate) fn scenarios() -> PathBuf {
    root().join("tests/scenarios")
}

/// The cargo that started us, else the one in `PATH`.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
