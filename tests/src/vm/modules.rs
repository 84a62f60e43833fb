//! Kernel modules: resolves a list of names to files in load order.
//!
//! Debian's packages contain no `modules.dep` (depmod writes it at installation), so dependencies are read
//! from depmod's own source: the `.modinfo` section of each module.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

/// One module, ready for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name in the kernel's spelling, with underscores.
    pub name: String,
    /// The uncompressed content of its `.ko` file.
    pub content: Vec<u8>,
    /// Its dependencies, in load order.
    pub needs: Vec<String>,
    /// Its aliases.
    pub aliases: Vec<String>,
}

/// The modules of one kernel.
#[derive(Debug)]
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: Option<BTreeSet<String>>,
}

impl Modules {
    /// Searches `lib/modules/RELEASE`; the files in `overrides` replace the packaged ones.
    pub fn find(folder: &Path, overrides: &[(String, PathBuf)]) -> Result<Self> {
        let mut files = BTreeMap::new();
        collect(&folder.join("kernel"), &mut files)
            .with_context(|| format!("cannot list the modules in {}", folder.display()))?;
        for (name, path) in overrides {
            files.insert(normalized(name), path.clone());
        }
        // Some kernels' list of built-in modules is in a separate package that nothing depends on.
        let builtin = fs::read_to_string(folder.join("modules.builtin"))
            .ok()
            .map(|list| list.lines().map(|line| name_of(Path::new(line))).collect());
        Ok(Self { files, builtin })
    }

    /// The named modules and their dependencies, dependencies first. Built-in modules are omitted, and so are
    /// missing `optional` ones.
    pub fn closure(&self, required: &[&str], optional: &[&str]) -> Result<Vec<Module>> {
        let mut closure = Closure {
            modules: self,
            seen: BTreeSet::new(),
            ordered: Vec::new(),
        };
        for name in required {
            closure.add(&normalized(name), true)?;
        }
        for name in optional {
            closure.add(&normalized(name), false)?;
        }
        Ok(closure.ordered)
    }
}

struct Closure<'a> {
    modules: &'a Modules,
    seen: BTreeSet<String>,
    ordered: Vec<Module>,
}

impl Closure<'_> {
    fn add(&mut self, name: &str, required: bool) -> Result<()> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.modules.files.get(name) else {
            if required
                && self
                    .modules
                    .builtin
                    .as_ref()
                    .is_some_and(|builtin| !builtin.contains(name))
            {
                bail!("module {name} is neither available nor built into this kernel");
            }
            return Ok(());
        };
        let content = read(path)?;
        let info = Info::of(&content)
            .with_context(|| format!("cannot read the module info of {}", path.display()))?;
        let mut direct = Vec::new();
        for dependency in info.depends {
            self.add(&dependency, true)?;
            direct.push(dependency);
        }
        for wish in info.softdep_pre {
            // A soft dependency may name an algorithm: `crc32c` is provided by `crc32c_generic` everywhere.
            for wish in [format!("{wish}_generic"), wish] {
                self.add(&wish, false)?;
                direct.push(wish);
            }
        }
        let needs = self.dependencies_of(&direct);
        self.ordered.push(Module {
            name: name.to_owned(),
            content,
            needs,
            aliases: info.aliases,
        });
        Ok(())
    }

    /// These modules and their dependencies, as far as they exist, in load order.
    fn dependencies_of(&self, direct: &[String]) -> Vec<String> {
        let mut needs: Vec<String> = Vec::new();
        for name in direct {
            let Some(module) = self.ordered.iter().find(|module| module.name == *name) else {
                continue;
            };
            for need in module.needs.iter().chain([name]) {
                if !needs.contains(need) {
                    needs.push(need.clone());
                }
            }
        }
        needs
    }
}

/// A module's own dependency information.
#[derive(Debug, Default, PartialEq, Eq)]
struct Info {
    depends: Vec<String>,
    softdep_pre: Vec<String>,
    aliases: Vec<String>,
}

impl Info {
    fn of(module: &[u8]) -> Result<Self> {
        let file = object::read::elf::ElfFile64::<object::Endianness>::parse(module)?;
        let section = file.section_by_name(".modinfo").context("no .modinfo section")?;
        Ok(Self::parse(section.data()?))
    }

    fn parse(section: &[u8]) -> Self {
        let mut info = Self::default();
        for entry in section.split(|byte| *byte == 0) {
            let entry = String::from_utf8_lossy(entry);
            if let Some(list) = entry.strip_prefix("depends=") {
                info.depends
                    .extend(list.split(',').filter(|name| !name.is_empty()).map(normalized));
            } else if let Some(list) = entry.strip_prefix("softdep=") {
                // "pre: a b post: c"
                let before = list
                    .split_whitespace()
                    .skip_while(|word| *word != "pre:")
                    .skip(1)
                    .take_while(|word| !word.ends_with(':'));
                info.softdep_pre.extend(before.map(normalized));
            } else if let Some(alias) = entry.strip_prefix("alias=") {
                info.aliases.push(normalized(alias));
            }
        }
        info
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if path.to_string_lossy().contains(".ko") {
            files.insert(name_of(&path), path);
        }
    }
    Ok(())
}

/// `kernel/net/ipv4/nf-x.ko.xz` is the module `nf_x`.
fn name_of(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    normalized(file.split(".ko").next().unwrap_or_default())
}

fn normalized(name: &str) -> String {
    name.replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let packed = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut content = Vec::new();
    match path.extension().and_then(OsStr::to_str) {
        Some("xz") => {
            lzma_rust2::XzReader::new(packed.as_slice(), false)
                .read_to_end(&mut content)
                .with_context(|| format!("cannot decompress {}", path.display()))?;
        }
        Some("zst") => {
            ruzstd::decoding::StreamingDecoder::new(packed.as_slice())
                .map_err(|error| anyhow::anyhow!("{error}"))
                .and_then(|mut reader| Ok(reader.read_to_end(&mut content)?))
                .with_context(|| format!("cannot decompress {}", path.display()))?;
        }
        _ => content = packed,
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_info_is_parsed_like_depmod() {
        let section = b"license=GPL\0softdep=pre: crc32c xts-aes post: later\0depends=nf_conntrack,nf-defrag-ipv4\0alias=ipt_X\0name=ip_vs\0";
        assert_eq!(
            Info::parse(section),
            Info {
                depends: vec!["nf_conntrack".into(), "nf_defrag_ipv4".into()],
                softdep_pre: vec!["crc32c".into(), "xts_aes".into()],
                aliases: vec!["ipt_X".into()],
            }
        );
        assert_eq!(Info::parse(b"depends=\0name=libcrc32c\0"), Info::default());
    }

    #[test]
    fn module_names_use_the_kernels_spelling() {
        assert_eq!(
            name_of(Path::new("kernel/net/netfilter/ipvs/ip_vs.ko.xz")),
            "ip_vs"
        );
        assert_eq!(
            name_of(Path::new("kernel/crypto/crc32c-intel.ko")),
            "crc32c_intel"
        );
    }
}
