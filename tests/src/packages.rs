//! Debian packages: selected and verified by apt itself in our own root, unpacked into the cache.
//!
//! apt verifies the signature of each suite and the hash of each package, and resolves dependencies; nothing
//! is installed on the machine and no privilege is needed. The mirror is the machine's own ([`mirror`]).
//!
//! A tree that was unpacked once is reused without asking apt or the network.

mod apt;
pub mod host;
pub mod mirror;
pub mod progress;
mod version;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use apt::LISTS_AGE;
use apt::Root;
pub use version::Version;

/// A suite of Debian's archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suite(&'static str);

impl Suite {
    /// Debian 11.
    pub const BULLSEYE: Self = Self("bullseye");
    /// Security updates of Debian 11.
    pub const BULLSEYE_SECURITY: Self = Self("bullseye-security");
    /// Debian 12.
    pub const BOOKWORM: Self = Self("bookworm");
    /// Security updates of Debian 12.
    pub const BOOKWORM_SECURITY: Self = Self("bookworm-security");
    /// Newer packages rebuilt for Debian 12.
    pub const BOOKWORM_BACKPORTS: Self = Self("bookworm-backports");
    /// Debian 13.
    pub const TRIXIE: Self = Self("trixie");
    /// Security updates of Debian 13.
    pub const TRIXIE_SECURITY: Self = Self("trixie-security");
    /// Newer packages rebuilt for Debian 13.
    pub const TRIXIE_BACKPORTS: Self = Self("trixie-backports");

    /// Its name in a sources list.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0
    }

    /// Security updates have their own archive.
    fn is_security(self) -> bool {
        self.0.ends_with("-security")
    }
}

/// One version of one package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// Its version, in Debian's order of versions.
    pub version: Version,
}

impl Package {
    /// `name=version`: the argument of [`unpack`] for exactly this version.
    #[must_use]
    pub fn pinned(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// The dependencies to unpack as well.
#[derive(Clone, Copy, Debug)]
pub enum Dependencies<'a> {
    /// None: only the packages named.
    None,
    /// All that apt resolves, including the C library.
    All,
    /// All but these packages (and what only they need), because the machine provides them.
    Except(&'a [&'a str]),
}

/// Unpacked packages.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The folder that represents `/`. `bin`, `sbin`, `lib` and `lib64` in it are links into `usr`.
    pub root: PathBuf,
    /// The packages in it.
    pub packages: Vec<Package>,
}

impl Tree {
    /// The version of a package in this tree.
    #[must_use]
    pub fn version_of(&self, name: &str) -> Option<&Version> {
        self.packages
            .iter()
            .find(|package| package.name == name)
            .map(|package| &package.version)
    }
}

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

/// Fetches packages from these suites and unpacks them into one tree.
///
/// A package is `name`, or `name=version` for exactly that version.
pub fn unpack(
    cache: &Cache,
    suites: &[Suite],
    packages: &[&str],
    dependencies: Dependencies<'_>,
) -> Result<Tree> {
    ensure!(!packages.is_empty(), "no package named");
    let root = cache
        .root()
        .join("trees")
        .join(tree_name(suites, packages, dependencies));
    if let Some(packages) = read_manifest(&root)? {
        return Ok(Tree { root, packages });
    }
    let _lock = cache.lock("apt")?;
    // Another process may have unpacked it in the meantime.
    if let Some(packages) = read_manifest(&root)? {
        return Ok(Tree { root, packages });
    }
    let provided = match dependencies {
        Dependencies::Except(provided) => provided,
        Dependencies::None | Dependencies::All => &[],
    };
    let apt = Root::open(cache, suites, provided)?;
    let with_dependencies = !matches!(dependencies, Dependencies::None);
    let archives = apt
        .download(packages, with_dependencies)
        .with_context(|| format!("cannot fetch the Debian packages {}", packages.join(" ")))?;
    let contents = extract(&archives, &root)?;
    Ok(Tree {
        root,
        packages: contents,
    })
}

/// Returns the newest package, in Debian's order, whose entire name matches a POSIX extended regular
/// expression.
pub fn newest(cache: &Cache, suites: &[Suite], pattern: &str) -> Result<Package> {
    let _lock = cache.lock("apt")?;
    let found = Root::open(cache, suites, &[])?.matching(pattern)?;
    newest_of(found)
        .with_context(|| format!("no package named like {pattern} in {}", apt::names(suites, ", ")))
}

/// Whether these suites still offer exactly this version.
pub fn available(cache: &Cache, suites: &[Suite], package: &Package) -> Result<bool> {
    let _lock = cache.lock("apt")?;
    Ok(Root::open(cache, suites, &[])?
        .versions(&package.name)?
        .contains(&package.version))
}

fn newest_of(packages: Vec<Package>) -> Option<Package> {
    packages.into_iter().max_by(|a, b| a.version.cmp(&b.version))
}

/// A folder name that is unique to the request and starts with its first package.
fn tree_name(suites: &[Suite], packages: &[&str], dependencies: Dependencies<'_>) -> String {
    let mut wanted = packages.to_vec();
    wanted.sort_unstable();
    let mut hash = Sha256::new();
    // Bump the number when the layout of a tree changes.
    hash.update(format!("2 {suites:?} {wanted:?} {dependencies:?}"));
    let hash: String = hash
        .finalize()
        .iter()
        .take(6)
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let first = packages[0].split('=').next().unwrap_or_default();
    format!("{first}-{hash}")
}

const MANIFEST: &str = ".packages";

/// The packages of a complete tree; `None` if there is none.
fn read_manifest(root: &Path) -> Result<Option<Vec<Package>>> {
    let path = root.join(MANIFEST);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let packages = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, version)| Package {
            name: name.to_owned(),
            version: Version::new(version),
        });
    Ok(Some(packages.collect()))
}

/// Unpacks archives into `root`, which only appears once it is complete.
fn extract(archives: &[PathBuf], root: &Path) -> Result<Vec<Package>> {
    let partial = root.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    // As on current Debian, so that a file has the same path whichever release its package is from.
    for name in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(partial.join("usr").join(name))?;
        std::os::unix::fs::symlink(format!("usr/{name}"), partial.join(name))?;
    }
    let mut contents = Vec::new();
    for archive in archives {
        unpack_archive(archive, &partial)?;
        contents.push(read_archive(archive)?);
    }
    let manifest = contents.iter().fold(String::new(), |text, package| {
        format!("{text}{} {}\n", package.name, package.version)
    });
    fs::write(partial.join(MANIFEST), manifest)?;
    fs::rename(&partial, root).with_context(|| format!("cannot put {} in place", root.display()))?;
    Ok(contents)
}

/// Unpacks with tar, because `dpkg-deb --extract` would replace the tree's links with a package's folders.
fn unpack_archive(archive: &Path, root: &Path) -> Result<()> {
    let what = || format!("cannot unpack {}", archive.display());
    let mut source = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(what)?;
    let stream = source.stdout.take().with_context(what)?;
    let unpacked = run(Command::new("tar")
        .args([
            "--extract",
            "--keep-directory-symlink",
            "--no-same-owner",
            "--warning=no-timestamp",
        ])
        .arg("--directory")
        .arg(root)
        .stdin(stream));
    let status = source.wait()?;
    unpacked.with_context(what)?;
    ensure!(
        status.success(),
        "cannot unpack {}: dpkg-deb failed ({status})",
        archive.display()
    );
    Ok(())
}

fn read_archive(archive: &Path) -> Result<Package> {
    let fields = run(Command::new("dpkg-deb")
        .args(["--show", "--showformat=${Package} ${Version}"])
        .arg(archive))?;
    let Some((name, version)) = fields.trim().split_once(' ') else {
        bail!("{} has no name and version", archive.display());
    };
    Ok(Package {
        name: name.to_owned(),
        version: Version::new(version),
    })
}

/// Runs a command and returns its output; its stderr becomes part of the error.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}; the lab needs Debian or Ubuntu"))?;
    if !output.status.success() {
        bail!(
            "{program} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: Version::new(version),
        }
    }

    #[test]
    fn newest_is_by_version_and_not_by_letters() {
        let found = vec![
            package("linux-image-6.12.9-cloud-amd64", "6.12.9-1"),
            package("linux-image-6.12.107-cloud-amd64", "6.12.107-1~bpo12+1"),
            package("linux-image-6.12.95-cloud-amd64", "6.12.95-1"),
        ];
        assert_eq!(newest_of(found).unwrap().name, "linux-image-6.12.107-cloud-amd64");
    }

    #[test]
    fn tree_name_depends_on_the_request_but_not_on_its_order() {
        let name = |packages: &[&str], dependencies: Dependencies<'_>| {
            let name = tree_name(&[Suite::BOOKWORM], packages, dependencies);
            name.rsplit_once('-').unwrap().1.to_owned()
        };
        let plain = name(&["a", "b"], Dependencies::None);
        assert_eq!(plain, name(&["b", "a"], Dependencies::None));
        assert_ne!(plain, name(&["a", "b"], Dependencies::All));
        assert_ne!(plain, name(&["a", "b=1"], Dependencies::None));
    }

    #[test]
    fn a_tree_without_its_manifest_is_not_taken_for_complete() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_manifest(folder.path()).unwrap().is_none());
        fs::write(
            folder.path().join(MANIFEST),
            "ipset 7.17-1\nnftables 1.0.6-2+deb12u2\n",
        )
        .unwrap();
        let packages = read_manifest(folder.path()).unwrap().unwrap();
        assert_eq!(packages[1], package("nftables", "1.0.6-2+deb12u2"));
    }
}
