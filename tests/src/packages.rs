//! Debian packages: selected and verified by apt itself in our own root, unpacked into the cache.
//!
//! apt verifies the signature of each suite and the hash of each package, and resolves dependencies; nothing
//! is installed on the machine and no privilege is needed. The mirror is the machine's own ([`mirror`]).
//!
//! A tree that was unpacked once is reused without apt or the network.

mod apt;
mod cache;
mod command;
pub mod host;
pub mod mirror;
pub mod progress;
mod suite;
mod version;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

pub use apt::LISTS_AGE;
use apt::Root;
pub use cache::{Cache, Lock};
use command::run;
pub use suite::Suite;
pub use version::{Package, Version};

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

/// Fetches packages from these suites and unpacks them into one tree.
///
/// A package is `name`, or `name=version` for exactly that version.
pub fn unpack(
    cache: &Cache,
    suites: &[Suite],
    packages: &[&str],
    dependencies: Dependencies<'_>,
) -> Result<Tree> {
    ensure!(!packages.is_empty(), "no packages given");
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

/// Fetches the upstream part of a source package, its newest version in this suite, and returns the path of
/// the archive.
pub fn upstream_source(cache: &Cache, suite: Suite, package: &str) -> Result<PathBuf> {
    let _lock = cache.lock("apt")?;
    Root::open_sources(cache, suite)?
        .download_upstream(package)
        .with_context(|| format!("cannot fetch the source of {package}"))
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
    fs::rename(&partial, root).with_context(|| format!("cannot rename a folder to {}", root.display()))?;
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
    fn newest_is_by_version_and_not_alphabetical() {
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
    fn a_tree_without_its_manifest_is_incomplete() {
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
