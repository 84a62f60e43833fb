//! One hash over everything that the object is built from: the sources of the kernel half, its crates, and the build
//! settings.
//!
//! It reveals an outdated object without a compiler. Only `--check` covers the toolchain and its flags.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::provenance::sha256;

/// The packages of this workspace that are compiled into the object.
const PACKAGES: [&str; 2] = ["tracer-ebpf", "tracer-common"];

/// The hash, in hexadecimal.
pub(super) fn digest(workspace: &Path, settings: &str) -> Result<String> {
    let mut all = Vec::new();
    let mut add = |bytes: &[u8]| {
        all.extend(bytes.len().to_le_bytes());
        all.extend(bytes);
    };
    add(settings.as_bytes());
    for package in PACKAGES {
        let mut files = BTreeSet::new();
        collect(&workspace.join(package), &mut files)?;
        for file in files {
            let name = file.strip_prefix(workspace).unwrap_or(&file);
            add(name.as_os_str().as_encoded_bytes());
            add(&fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
        }
    }
    let lock = workspace.join("Cargo.lock");
    let text = fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    for line in crates(&text).with_context(|| format!("cannot parse {}", lock.display()))? {
        add(line.as_bytes());
    }
    Ok(sha256(&all))
}

fn collect(folder: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.insert(entry.path());
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

/// All dependencies of the kernel half, direct and indirect: name, version and checksum.
fn crates(lock: &str) -> Result<BTreeSet<String>> {
    let lock: Lock = toml::from_str(lock).context("invalid Cargo.lock")?;
    let mut by_name = BTreeMap::<&str, Vec<&Locked>>::new();
    for package in &lock.package {
        by_name.entry(&package.name).or_default().push(package);
    }
    let mut found = BTreeSet::new();
    let mut queue: Vec<String> = PACKAGES.map(str::to_owned).to_vec();
    while let Some(dependency) = queue.pop() {
        // `name`, or `name version` if there are several versions.
        let (name, version) = dependency.split_once(' ').unwrap_or((&dependency, ""));
        for package in by_name.get(name).into_iter().flatten() {
            let Locked {
                version: is,
                checksum,
                ..
            } = package;
            if !version.is_empty() && version.split(' ').next() != Some(is) {
                continue;
            }
            let checksum = checksum.as_deref().unwrap_or_default();
            if found.insert(format!("{name} {is} {checksum}")) {
                queue.extend(package.dependencies.iter().cloned());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dependencies_of_the_kernel_half_count() {
        let lock = |common: &str, other: &str| {
            format!(
                "[[package]]\nname = \"tracer-ebpf\"\nversion = \"0.1.0\"\ndependencies = [\"aya-ebpf\", \"tracer-common\"]\n\
                 [[package]]\nname = \"tracer-common\"\nversion = \"0.1.0\"\n\
                 [[package]]\nname = \"aya-ebpf\"\nversion = \"{common}\"\nchecksum = \"aa\"\n\
                 [[package]]\nname = \"ratatui\"\nversion = \"{other}\"\n"
            )
        };
        let before = crates(&lock("0.2.1", "1.0.0")).unwrap();
        assert_eq!(before, crates(&lock("0.2.1", "2.0.0")).unwrap());
        assert_ne!(before, crates(&lock("0.2.2", "1.0.0")).unwrap());
        assert!(before.contains("aya-ebpf 0.2.1 aa") && before.len() == 3);
    }

    #[test]
    fn a_changed_source_changes_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        for package in PACKAGES {
            fs::create_dir_all(folder.path().join(package).join("src")).unwrap();
        }
        let file = folder.path().join("tracer-ebpf/src/main.rs");
        fs::write(&file, "fn main() {}").unwrap();
        fs::write(folder.path().join("Cargo.lock"), "package = []").unwrap();
        let before = digest(folder.path(), "opt-level 3").unwrap();
        assert_eq!(before, digest(folder.path(), "opt-level 3").unwrap());
        assert_ne!(before, digest(folder.path(), "opt-level 2").unwrap());
        fs::write(&file, "fn main() { }").unwrap();
        assert_ne!(before, digest(folder.path(), "opt-level 3").unwrap());
    }
}
