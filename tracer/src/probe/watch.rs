//! Notices modules that come and go.
//!
//! The kernel tells of a module under `/sys/module`. A look costs one short file for each module that is watched, so
//! it can be had ten times a second; the uevents that the kernel also sends do not reach every container.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use tracer_common::{field, hook, hook::HookKind};

/// One loading of a module: the number of its folder, which sysfs gives anew each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Loading(u64);

/// What became of a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is loaded and has finished starting.
    Came(&'static str),
    /// It is gone, or is about to go.
    Gone(&'static str),
    /// Some other module came or went, and with it functions at addresses that may have been another's.
    Other,
}

/// The modules that are watched, as they were at the last look.
#[derive(Debug)]
pub struct Watch {
    folder: PathBuf,
    seen: BTreeMap<&'static str, Option<Loading>>,
    /// How many modules there are, as the folder counts its folders.
    count: Option<u64>,
}

impl Watch {
    /// Begins with what is there now.
    #[must_use]
    pub fn new(modules: impl IntoIterator<Item = &'static str>) -> Self {
        Self::of(Path::new("/sys/module"), modules)
    }

    fn of(folder: &Path, modules: impl IntoIterator<Item = &'static str>) -> Self {
        let folder = folder.to_owned();
        // First, so that what comes meanwhile counts as a change.
        let count = count(&folder);
        let seen = modules.into_iter().map(|name| (name, look(&folder, name)));
        Self {
            seen: seen.collect(),
            folder,
            count,
        }
    }

    /// What has changed since the last look. A module that was loaded again since then is gone first.
    pub fn changes(&mut self) -> Vec<Change> {
        let mut out = Vec::new();
        let count = count(&self.folder);
        for (name, seen) in &mut self.seen {
            let now = look(&self.folder, name);
            if now == *seen {
                continue;
            }
            if seen.is_some() {
                out.push(Change::Gone(name));
            }
            if now.is_some() {
                out.push(Change::Came(name));
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

/// The modules that hold a hooked function or describe a struct that is read.
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

/// `None` unless the module is loaded. What is built in has a folder too, but nothing in it tells of a state.
fn look(folder: &Path, name: &str) -> Option<Loading> {
    let look = || -> io::Result<Option<Loading>> {
        let folder = folder.join(name);
        let state = fs::read_to_string(folder.join("initstate"))?;
        if state.trim() != "live" {
            return Ok(None);
        }
        Ok(Some(Loading(fs::metadata(folder)?.ino())))
    };
    look().ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(folder: &Path, name: &str, state: &str) {
        let module = folder.join(name);
        fs::create_dir_all(&module).unwrap();
        fs::write(module.join("initstate"), format!("{state}\n")).unwrap();
    }

    /// What `watch` says of the modules that it watches.
    fn changes(watch: &mut Watch) -> Vec<Change> {
        let mut all = watch.changes();
        // Not every file system counts the folders in a folder.
        all.retain(|change| *change != Change::Other);
        all
    }

    #[test]
    fn each_way_to_come_and_go_is_noticed_once() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        set(folder, "nf_tables", "live");
        let mut watch = Watch::of(folder, ["ip_vs", "nf_tables", "built_in"]);
        assert_eq!(changes(&mut watch), []);

        set(folder, "ip_vs", "coming");
        assert_eq!(changes(&mut watch), []);
        set(folder, "ip_vs", "live");
        assert_eq!(changes(&mut watch), [Change::Came("ip_vs")]);
        assert_eq!(changes(&mut watch), []);
        set(folder, "ip_vs", "going");
        assert_eq!(changes(&mut watch), [Change::Gone("ip_vs")]);

        fs::create_dir(folder.join("built_in")).unwrap();
        fs::remove_dir_all(folder.join("nf_tables")).unwrap();
        assert_eq!(changes(&mut watch), [Change::Gone("nf_tables")]);
    }

    #[test]
    fn a_module_that_was_loaded_again_between_two_looks_is_gone_first() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        set(folder, "ip_vs", "live");
        let mut watch = Watch::of(folder, ["ip_vs"]);
        // Two folders at the same time have different numbers for certain.
        set(folder, "again", "live");
        fs::remove_dir_all(folder.join("ip_vs")).unwrap();
        fs::rename(folder.join("again"), folder.join("ip_vs")).unwrap();
        assert_eq!(
            changes(&mut watch),
            [Change::Gone("ip_vs"), Change::Came("ip_vs")]
        );
    }

    #[test]
    fn a_module_that_is_not_watched_is_noticed_too() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        let before = count(folder);
        let mut watch = Watch::of(folder, ["ip_vs"]);
        set(folder, "nft_reject", "live");
        if count(folder) != before {
            assert_eq!(watch.changes(), [Change::Other]);
        }
        assert_eq!(watch.changes(), []);
    }

    #[test]
    fn the_modules_of_both_tables_are_watched_and_nothing_else() {
        let wanted = wanted();
        assert!(wanted.contains("ip_vs") && wanted.contains("nf_tables") && wanted.contains("nf_conntrack"));
        assert!(!wanted.contains("") && !wanted.contains("net") && !wanted.contains("skb"));
    }
}
