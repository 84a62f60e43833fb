//! The uses of one file by another.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::FileId;

/// All arrows between the files of a tree.
#[derive(Default)]
pub(crate) struct Arrows {
    /// The names that one file uses of another, each with the first line that does.
    pub(crate) between: BTreeMap<(FileId, FileId), BTreeMap<String, usize>>,
    /// The items of crates outside the workspace that a file uses, with the first line.
    pub(crate) foreign: BTreeMap<(FileId, String), usize>,
}

impl Arrows {
    pub(crate) fn add(&mut self, from: FileId, to: FileId, name: &str, line: usize) {
        if from != to {
            let names = self.between.entry((from, to)).or_default();
            let first = names.entry(name.to_owned()).or_insert(line);
            *first = line.min(*first);
        }
    }

    pub(crate) fn add_foreign(&mut self, from: FileId, path: &[String], line: usize) {
        let first = self.foreign.entry((from, path.join("::"))).or_insert(line);
        *first = line.min(*first);
    }

    /// The files that each file uses.
    pub(crate) fn graph(&self) -> BTreeMap<FileId, BTreeSet<FileId>> {
        let mut graph: BTreeMap<FileId, BTreeSet<FileId>> = BTreeMap::new();
        for (from, to) in self.between.keys() {
            graph.entry(*from).or_default().insert(*to);
        }
        graph
    }
}
