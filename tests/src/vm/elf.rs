//! The files that a program needs to start: its loader and its shared libraries, found in an unpacked tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, read::elf::SectionTable};

/// Folders of an unpacked tree that hold shared libraries, the usual one first.
const LIBRARY_FOLDERS: [&str; 4] = [
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib64",
    "lib64",
];

/// Shared libraries, by soname.
#[derive(Debug, Default)]
pub struct Libraries(BTreeMap<String, PathBuf>);

impl Libraries {
    /// Adds the libraries that `program` needs, recursively.
    pub fn add_needs_of(&mut self, tree: &Path, program: &Path) -> Result<()> {
        for name in needed(program)? {
            if self.0.contains_key(&name) {
                continue;
            }
            let path = find(tree, &name).with_context(|| {
                format!(
                    "{} needs {name}, which is in no unpacked package",
                    program.display()
                )
            })?;
            self.0.insert(name, path.clone());
            self.add_needs_of(tree, &path)?;
        }
        Ok(())
    }

    /// The name and file of each library.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.0.iter().map(|(name, path)| (name.as_str(), path.as_path()))
    }
}

/// The file name of the loader and the sonames that an ELF file needs; empty if it is static.
fn needed(program: &Path) -> Result<Vec<String>> {
    let data = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    names_in(&data).with_context(|| format!("{} is not a readable ELF file", program.display()))
}

fn names_in(data: &[u8]) -> Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let mut names = Vec::new();
    for segment in header.program_headers(endian, data)? {
        if segment.p_type(endian) != PT_INTERP {
            continue;
        }
        let Ok(loader) = segment.data(endian, data) else {
            bail!("PT_INTERP lies outside the file");
        };
        let loader = String::from_utf8_lossy(loader);
        let loader = loader.trim_end_matches('\0');
        names.push(loader.rsplit('/').next().unwrap_or(loader).to_owned());
    }
    let sections: SectionTable<'_, _> = header.sections(endian, data)?;
    if let Some((entries, link)) = sections.dynamic(endian, data)? {
        let strings = sections.strings(endian, data, link)?;
        for entry in entries {
            if entry.tag(endian) == DT_NEEDED {
                names.push(String::from_utf8(entry.string(endian, strings)?.to_vec())?);
            }
        }
    }
    Ok(names)
}

fn find(tree: &Path, name: &str) -> Option<PathBuf> {
    LIBRARY_FOLDERS
        .iter()
        .map(|folder| tree.join(folder).join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_needs_the_c_library_and_its_loader() {
        let names = needed(&std::env::current_exe().unwrap()).unwrap();
        assert!(names.iter().any(|name| name == "libc.so.6"), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("ld-linux")), "{names:?}");
    }

    #[test]
    fn a_text_file_is_rejected() {
        assert!(names_in(b"#!/bin/sh\n").is_err());
    }
}
