//! Notices modules that are loaded and unloaded.
//!
//! It reads one short file in `/sys/module` for each watched module, which is cheap enough to do ten times a second. The
//! kernel's uevents do not reach every container.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use tracer_common::{field, hook, hook::HookKind};

/// One loading of a module, identified by the inode number of its folder: sysfs assigns a new one each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Loading(u64);

/// A change of the modules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// This module was loaded and has finished starting.
    Loaded(&'static str),
    /// This module was unloaded, or is being unloaded.
    Unloaded(&'static str),
    /// A module that is not watched was loaded or unloaded, and with it functions at reused addresses.
    Other,
}

/// The watched modules as they were at the last check.
#[derive(Debug)]
pub struct ModuleWatch {
    folder: PathBuf,
    seen: BTreeMap<&'static str, Option<Loading>>,
    /// Number of modules: the link count of the folder.
    count: Option<u64>,
}

impl ModuleWatch {
    /// Starts with the modules that are loaded now.
    #[must_use]
    pub fn new(modules: impl IntoIterator<Item = &'static str>) -> Self {
        Self::of(Path::new("/sys/module"), modules)
    }

    fn of(folder: &Path, modules: impl IntoIterator<Item = &'static str>) -> Self {
        let folder = folder.to_owned();
        // Counted first, so that a module loaded meanwhile counts as a change.
        let count = count(&folder);
        let seen = modules.into_iter().map(|name| (name, loading(&folder, name)));
        Self {
            seen: seen.collect(),
            folder,
            count,
        }
    }

    /// The changes since the last call. A module that was reloaded since then is first unloaded, then loaded.
    pub fn changes(&mut self) -> Vec<Change> {
        let mut out = Vec::new();
        let count = count(&self.folder);
        for (name, seen) in &mut self.seen {
            let now = loading(&self.folder, name);
            if now == *seen {
                continue;
            }
            if seen.is_some() {
                out.push(Change::Unloaded(name));
            }
            if now.is_some() {
                out.push(Change::Loaded(name));
            }
            *seen = now;
        }
        if count != self.count && out.is_empty() {
            out.push(Change::Other);
        }
        self.count = count;
        out
    }
}

/// The modules to watch: those with a hooked function or a struct that is read.
#[must_use]
pub fn wanted() -> BTreeSet<&'static str> {
    let hooks = hook::ALL
        .iter()
        .filter(|info| info.kind != HookKind::Tracepoint)
        .map(|info| info.module);
    let fields = field::ALL.iter().map(|field| field.module);
    hooks.chain(fields).filter(|module| !module.is_empty()).collect()
}

fn count(folder: &Path) -> Option<u64> {
    fs::metadata(folder).ok().map(|metadata| metadata.nlink())
}

/// The current loading of a module. `None` unless it is loaded: a built-in module has a folder too, but no `initstate`.
fn loading(folder: &Path, name: &str) -> Option<Loading> {
    let read = || -> io::Result<Option<Loading>> {
        let folder = folder.join(name);
        let state = fs::read_to_string(folder.join("initstate"))?;
        if state.trim() != "live" {
            return Ok(None);
        }
        Ok(Some(Loading(fs::metadata(folder)?.ino())))
    };
    read().ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(folder: &Path, name: &str, state: &str) {
        let module = folder.join(name);
        fs::create_dir_all(&module).unwrap();
        fs::write(module.join("initstate"), format!("{state}\n")).unwrap();
    }

    /// The changes of watched modules.
    fn changes(watch: &mut ModuleWatch) -> Vec<Change> {
        let mut all = watch.changes();
        // Not every file system counts the folders in a folder.
        all.retain(|change| *change != Change::Other);
        all
    }

    #[test]
    fn each_load_and_unload_is_noticed_once() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        set(folder, "nf_tables", "live");
        let mut watch = ModuleWatch::of(folder, ["ip_vs", "nf_tables", "built_in"]);
        assert_eq!(changes(&mut watch), []);

        set(folder, "ip_vs", "coming");
        assert_eq!(changes(&mut watch), []);
        set(folder, "ip_vs", "live");
        assert_eq!(changes(&mut watch), [Change::Loaded("ip_vs")]);
        assert_eq!(changes(&mut watch), []);
        set(folder, "ip_vs", "going");
        assert_eq!(changes(&mut watch), [Change::Unloaded("ip_vs")]);

        fs::create_dir(folder.join("built_in")).unwrap();
        fs::remove_dir_all(folder.join("nf_tables")).unwrap();
        assert_eq!(changes(&mut watch), [Change::Unloaded("nf_tables")]);
    }

    #[test]
    fn a_module_reloaded_between_two_checks_is_unloaded_first() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        set(folder, "ip_vs", "live");
        let mut watch = ModuleWatch::of(folder, ["ip_vs"]);
        // Two folders that exist at the same time have different inode numbers.
        set(folder, "reloaded", "live");
        fs::remove_dir_all(folder.join("ip_vs")).unwrap();
        fs::rename(folder.join("reloaded"), folder.join("ip_vs")).unwrap();
        assert_eq!(
            changes(&mut watch),
            [Change::Unloaded("ip_vs"), Change::Loaded("ip_vs")]
        );
    }

    #[test]
    fn an_unwatched_module_is_noticed_too() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        let before = count(folder);
        let mut watch = ModuleWatch::of(folder, ["ip_vs"]);
        set(folder, "nft_reject", "live");
        if count(folder) != before {
            assert_eq!(watch.changes(), [Change::Other]);
        }
        assert_eq!(watch.changes(), []);
    }

    #[test]
    fn only_modules_of_hooks_and_fields_are_watched() {
        let wanted = wanted();
        assert!(wanted.contains("ip_vs") && wanted.contains("nf_tables") && wanted.contains("nf_conntrack"));
        assert!(!wanted.contains("") && !wanted.contains("net") && !wanted.contains("skb"));
    }
}
