//! Import cycles of files, and where each is cut with the least work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::modules::FileId;

type Graph = BTreeMap<FileId, BTreeSet<FileId>>;

/// Files that all reach each other through imports.
#[derive(Debug)]
pub(crate) struct Circle {
    pub(crate) files: Vec<FileId>,
    /// Loops that hold it together, the shortest first.
    pub(crate) loops: Vec<Loop>,
}

/// Each file uses the next, and the last uses the first.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) files: Vec<FileId>,
    /// The arrow that is the least work to remove. Removing it and those of the other loops breaks the cycle.
    pub(crate) lightest: (FileId, FileId),
}

impl Loop {
    /// Its arrows, in order.
    pub(crate) fn arrows(&self) -> impl Iterator<Item = (FileId, FileId)> {
        let next = self.files.iter().cycle().skip(1);
        self.files.iter().copied().zip(next.copied())
    }
}

/// Every cycle of more than one file. `weight` is the work of removing an arrow.
pub(crate) fn circles<W: Ord>(graph: &Graph, weight: impl Fn(FileId, FileId) -> W) -> Vec<Circle> {
    components(graph)
        .into_iter()
        .map(|files| {
            let inside: BTreeSet<FileId> = files.iter().copied().collect();
            let mut rest: Graph = files
                .iter()
                .map(|file| (*file, graph[file].intersection(&inside).copied().collect()))
                .collect();
            let mut loops = Vec::new();
            while let Some(files) = shortest_loop(&rest) {
                let mut found = Loop {
                    files,
                    lightest: (0, 0),
                };
                let lightest = found.arrows().min_by_key(|(from, to)| weight(*from, *to));
                let Some((from, to)) = lightest else {
                    break;
                };
                found.lightest = (from, to);
                rest.entry(from).or_default().remove(&to);
                loops.push(found);
            }
            Circle { files, loops }
        })
        .collect()
}

/// Groups of more than one file in which each file reaches every other.
fn components(graph: &Graph) -> Vec<Vec<FileId>> {
    let reached: BTreeMap<FileId, BTreeSet<FileId>> = graph
        .keys()
        .map(|file| (*file, reachable(graph, *file)))
        .collect();
    let mut grouped = BTreeSet::new();
    let mut groups = Vec::new();
    for (file, others) in &reached {
        if grouped.contains(file) || !others.contains(file) {
            continue;
        }
        let comes_back = |other: &FileId| reached.get(other).is_some_and(|back| back.contains(file));
        let group: Vec<FileId> = others.iter().copied().filter(comes_back).collect();
        grouped.extend(group.iter().copied());
        groups.push(group);
    }
    groups
}

fn reachable(graph: &Graph, start: FileId) -> BTreeSet<FileId> {
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(file) = open.pop() {
        for next in graph.get(&file).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(*next);
            }
        }
    }
    seen
}

fn shortest_loop(graph: &Graph) -> Option<Vec<FileId>> {
    graph
        .keys()
        .filter_map(|start| shortest_loop_through(graph, *start))
        .min_by_key(Vec::len)
}

fn shortest_loop_through(graph: &Graph, start: FileId) -> Option<Vec<FileId>> {
    let mut before = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(file) = open.pop_front() {
        for next in graph.get(&file).into_iter().flatten() {
            if *next == start {
                let mut path = vec![file];
                while let Some(previous) = before.get(&path[path.len() - 1]) {
                    path.push(*previous);
                }
                path.reverse();
                return Some(path);
            }
            if !before.contains_key(next) {
                before.insert(*next, file);
                open.push_back(*next);
            }
        }
    }
    None
}
