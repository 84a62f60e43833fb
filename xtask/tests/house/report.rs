//! The report on forbidden arrows, with what to move.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;

use crate::arrows::Arrows;
use crate::circles::{Circle, Loop, circles};
use crate::modules::{FileId, Modules};
use crate::rooms::{BARRED, PURE, floor, is_impure, room};
use crate::tree::Tree;
use crate::uses;

/// Everything that is wrong, one paragraph each.
pub(crate) fn report(tree: &Tree) -> Result<Vec<String>> {
    let modules = Modules::parse(tree)?;
    let arrows = uses::arrows(&modules);
    let report = Report {
        modules: &modules,
        arrows: &arrows,
    };
    let mut wrong = report.unreached();
    wrong.extend(report.unknown_rooms());
    wrong.extend(report.circles());
    wrong.extend(report.wrong_way());
    wrong.extend(report.barred());
    wrong.extend(report.impure());
    Ok(wrong)
}

struct Report<'a> {
    modules: &'a Modules,
    arrows: &'a Arrows,
}

impl Report<'_> {
    fn path(&self, file: FileId) -> &str {
        &self.modules.files[file].path
    }

    fn room(&self, file: FileId) -> Option<&str> {
        room(self.path(file))
    }

    /// `a.rs:3 uses X, Y of b.rs`
    fn arrow(&self, from: FileId, to: FileId) -> String {
        let names = &self.arrows.between[&(from, to)];
        let line = names.values().min().copied().unwrap_or_default();
        format!(
            "{}:{line} uses {} of {}",
            self.path(from),
            self.names(from, to),
            self.path(to)
        )
    }

    fn names(&self, from: FileId, to: FileId) -> String {
        let names: Vec<String> = self.arrows.between[&(from, to)]
            .keys()
            .map(|name| format!("`{name}`"))
            .collect();
        names.join(", ")
    }

    fn unreached(&self) -> Vec<String> {
        let files = self.modules.unreached.iter();
        files
            .map(|path| format!("No `mod` leads to {path}: declare it or delete it."))
            .collect()
    }

    fn unknown_rooms(&self) -> Vec<String> {
        let files = 0..self.modules.files.len();
        let rooms: BTreeSet<&str> = files.filter_map(|file| self.room(file)).collect();
        let unknown = rooms.into_iter().filter(|room| floor(room).is_none());
        unknown
            .map(|room| {
                format!(
                    "tracer/src/{room} is not a known room: move its files into one, or give it a floor in \
                     xtask/tests/house/rooms.rs and ARCHITECTURE.md."
                )
            })
            .collect()
    }

    fn circles(&self) -> Vec<String> {
        // A file uses the files in its folder; their use of that file is what must change.
        let weight = |from: FileId, to: FileId| {
            let is_upward = self.path(from).starts_with(&own_folder(self.path(to)));
            (!is_upward, self.arrows.between[&(from, to)].len())
        };
        circles(&self.arrows.graph(), weight)
            .iter()
            .map(|circle| self.circle(circle))
            .collect()
    }

    fn circle(&self, circle: &Circle) -> String {
        let mut text = format!("{} files form an import cycle:", circle.files.len());
        for file in &circle.files {
            let _ = write!(text, " {}", self.path(*file));
        }
        for found in &circle.loops {
            self.describe_loop(&mut text, found);
        }
        text
    }

    fn describe_loop(&self, text: &mut String, found: &Loop) {
        for (index, (from, to)) in found.arrows().enumerate() {
            let lead = if index == 0 { "-" } else { " " };
            let _ = write!(text, "\n  {lead} {}", self.arrow(from, to));
        }
        let (from, to) = found.lightest;
        let _ = write!(
            text,
            "\n    Shortest cut: move {} out of {} into a file below both, or hand it to {} as an argument.",
            self.names(from, to),
            self.path(to),
            self.path(from),
        );
    }

    /// Arrows from a room to another that is not on a lower floor.
    fn wrong_way(&self) -> Vec<String> {
        let mut found: BTreeMap<(&str, &str), Vec<(FileId, FileId)>> = BTreeMap::new();
        for (from, to) in self.arrows.between.keys() {
            let (Some(above), Some(below)) = (self.room(*from), self.room(*to)) else {
                continue;
            };
            let (Some(high), Some(low)) = (floor(above), floor(below)) else {
                continue;
            };
            if above != below && high <= low {
                found.entry((above, below)).or_default().push((*from, *to));
            }
        }
        let texts = found.into_iter().map(|((from, to), arrows)| {
            let way = if floor(from) == floor(to) {
                "is beside"
            } else {
                "is below"
            };
            let mut text = format!("`{from}` {way} `{to}` and must not import it:");
            for (from, to) in arrows {
                let _ = write!(text, "\n    {}", self.arrow(from, to));
            }
            let _ = write!(
                text,
                "\n    Move what is used to a room below both, or the code that uses it up."
            );
            text
        });
        texts.collect()
    }

    fn barred(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (from, to) in self.arrows.between.keys() {
            for (folder, barred) in BARRED {
                if self.path(*from).starts_with(folder) && self.room(*to) == Some(barred) {
                    found.push(format!(
                        "{folder} must not import `{barred}`: {}",
                        self.arrow(*from, *to)
                    ));
                }
            }
        }
        found
    }

    fn impure(&self) -> Vec<String> {
        let mut found = Vec::new();
        for ((file, path), line) in &self.arrows.foreign {
            let Some(room) = self.room(*file).filter(|room| PURE.contains(room)) else {
                continue;
            };
            if is_impure(path) {
                found.push(format!(
                    "{}:{line} uses `{path}`, but `{room}` does no I/O and reads no clock: let the caller hand it in.",
                    self.path(*file),
                ));
            }
        }
        found
    }
}

/// The folder of a file's submodules.
fn own_folder(path: &str) -> String {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let is_folder_itself = |name: &str| stem.ends_with(&format!("/{name}"));
    match stem.rfind('/') {
        Some(end) if ["mod", "lib", "main"].into_iter().any(is_folder_itself) => stem[..=end].to_owned(),
        _ => format!("{stem}/"),
    }
}
