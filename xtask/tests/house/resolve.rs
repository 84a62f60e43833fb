//! From a path in the source to the file that defines what it names.

use crate::imported::{Leaf, Name};
use crate::modules::{FileId, Meaning, ModuleId, Modules};

/// The target of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An item, and the file that defines it. An item that a macro generates counts as defined where the search ends.
    Item {
        file: FileId,
        name: String,
    },
    Module(ModuleId),
    /// Something of another crate, such as `std::fs::read`.
    Foreign(Vec<String>),
}

/// A path as written, and where.
#[derive(Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) module: ModuleId,
    /// Imports inside the surrounding blocks, innermost last.
    pub(crate) local: &'a [Vec<Leaf>],
    pub(crate) path: &'a [String],
    pub(crate) is_global: bool,
}

/// Follows one path; [`Self::through`] lists the modules on the way.
pub(crate) struct Search<'a> {
    modules: &'a Modules,
    /// The imports being followed, so that one that leads to itself ends.
    open: Vec<*const Leaf>,
    pub(crate) through: Vec<ModuleId>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(modules: &'a Modules) -> Self {
        Self {
            modules,
            open: Vec::new(),
            through: Vec::new(),
        }
    }

    /// Everything that the path names: a type, a value and a macro may share a name.
    pub(crate) fn resolve(&mut self, written: Written<'_>) -> Vec<Target> {
        let Some((first, rest)) = written.path.split_first() else {
            return Vec::new();
        };
        let module = &self.modules.all[written.module];
        let start = match first.as_str() {
            "Self" => return Vec::new(),
            _ if written.is_global => self.foreign(first),
            "crate" => vec![Target::Module(module.root)],
            "self" => vec![Target::Module(written.module)],
            "super" => vec![Target::Module(module.parent.unwrap_or(written.module))],
            name => self.in_scope(written, name),
        };
        self.walk(start, rest)
    }

    fn in_scope(&mut self, written: Written<'_>, name: &str) -> Vec<Target> {
        let local = written.local.iter().rev().flatten();
        let mut local = local.filter(|leaf| matches!(&leaf.name, Name::Word(word) if word == name));
        if let Some(leaf) = local.next() {
            let found = self.follow(written.module, leaf);
            if !found.is_empty() {
                return found;
            }
        }
        let found = self.look_up(written.module, name);
        if found.is_empty() {
            self.foreign(name)
        } else {
            found
        }
    }

    /// A crate by its name.
    fn foreign(&self, name: &str) -> Vec<Target> {
        vec![match self.modules.libraries.get(name) {
            Some(root) => Target::Module(*root),
            None => Target::Foreign(vec![name.to_owned()]),
        }]
    }

    /// The targets of a name in a module: its own names first, then those that `*` imports.
    fn look_up(&mut self, module: ModuleId, name: &str) -> Vec<Target> {
        let modules = self.modules;
        let module_id = module;
        let module = &modules.all[module_id];
        let mut found = Vec::new();
        for meaning in module.names.get(name).into_iter().flatten() {
            match meaning {
                Meaning::Item(file) => found.push(Target::Item {
                    file: *file,
                    name: name.to_owned(),
                }),
                Meaning::Module(child) => found.push(Target::Module(*child)),
                Meaning::Import(leaf) => found.extend(self.follow(module_id, leaf)),
            }
        }
        if !found.is_empty() {
            return found;
        }
        for leaf in &module.globs {
            for target in self.follow(module_id, leaf) {
                if let Target::Module(source) = target {
                    self.open.push(std::ptr::from_ref(leaf));
                    found.extend(self.look_up(source, name));
                    self.open.pop();
                }
            }
        }
        found
    }

    fn follow(&mut self, module: ModuleId, leaf: &Leaf) -> Vec<Target> {
        let this = std::ptr::from_ref(leaf);
        if self.open.contains(&this) {
            return Vec::new();
        }
        self.open.push(this);
        let found = self.resolve(Written {
            module,
            local: &[],
            path: &leaf.path,
            is_global: leaf.is_global,
        });
        self.open.pop();
        found
    }

    fn walk(&mut self, start: Vec<Target>, rest: &[String]) -> Vec<Target> {
        let mut targets = start;
        for segment in rest {
            // Only a module or a type can precede `::`, not a function of the same name.
            if targets.iter().any(|target| matches!(target, Target::Module(_))) {
                targets.retain(|target| !matches!(target, Target::Item { .. }));
            }
            let mut next = Vec::new();
            for target in targets {
                match target {
                    // `Type::function`, `Enum::Variant`.
                    Target::Item { .. } => next.push(target),
                    Target::Foreign(mut path) => {
                        path.push(segment.clone());
                        next.push(Target::Foreign(path));
                    }
                    Target::Module(module) => next.extend(self.step(module, segment)),
                }
            }
            targets = next;
        }
        targets
    }

    fn step(&mut self, module: ModuleId, segment: &str) -> Vec<Target> {
        if !self.through.contains(&module) {
            self.through.push(module);
        }
        let here = &self.modules.all[module];
        match segment {
            "self" => vec![Target::Module(module)],
            "super" => vec![Target::Module(here.parent.unwrap_or(module))],
            name => {
                let found = self.look_up(module, name);
                if found.is_empty() {
                    return vec![Target::Item {
                        file: here.file,
                        name: name.to_owned(),
                    }];
                }
                found
            }
        }
    }
}
