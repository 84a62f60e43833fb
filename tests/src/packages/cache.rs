//! The cache of everything that the lab downloads and builds.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The folder that keeps downloads, unpacked packages and everything built from them.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens `$TRACER_CACHE` or, if it is unset, `target/lab` of this workspace, which `cargo clean` removes.
    pub fn open() -> Result<Self> {
        let target = || {
            env::var_os("CARGO_TARGET_DIR").map_or_else(
                || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
                PathBuf::from,
            )
        };
        Self::at(&env::var_os("TRACER_CACHE").map_or_else(|| target().join("lab"), PathBuf::from))
    }

    /// Opens a cache in this folder.
    pub fn at(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("cannot create the cache {}", root.display()))?;
        // apt and the linkers that run later change directory, so the path must be absolute.
        let root = root
            .canonicalize()
            .with_context(|| format!("cannot resolve the cache {}", root.display()))?;
        Ok(Self { root })
    }

    /// The cache's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Locks `what` for this process until the returned lock is dropped; if another process holds it, prints
    /// that and waits.
    pub fn lock(&self, what: &str) -> Result<Lock> {
        let path = self.root.join(format!("{what}.lock"));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("waiting for another process that holds {}", path.display());
            file.lock()
                .with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(Lock { _file: file })
    }
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}
