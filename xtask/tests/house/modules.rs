//! The crates as modules: which file each is in, and which names it declares.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use syn::{Attribute, Expr, ExprLit, Item, ItemMod, Lit, Meta};

use crate::cfg::is_test_only;
use crate::imported::{Leaf, Name, leaves};
use crate::tree::{Root, Tree, roots};

pub(crate) type FileId = usize;
pub(crate) type ModuleId = usize;

/// All crates of the workspace, parsed.
#[derive(Default)]
pub(crate) struct Modules {
    pub(crate) files: Vec<File>,
    pub(crate) all: Vec<Module>,
    /// The root modules of libraries, by the crate's name.
    pub(crate) libraries: BTreeMap<String, ModuleId>,
    /// Files that no `mod` leads to.
    pub(crate) unreached: Vec<String>,
}

pub(crate) struct File {
    /// Relative to the workspace.
    pub(crate) path: String,
    pub(crate) syntax: Rc<syn::File>,
}

pub(crate) struct Module {
    pub(crate) file: FileId,
    pub(crate) parent: Option<ModuleId>,
    /// The root module of its crate.
    pub(crate) root: ModuleId,
    pub(crate) names: BTreeMap<String, Vec<Meaning>>,
    /// The modules that it imports with `*`.
    pub(crate) globs: Vec<Leaf>,
    /// Written inside its parent's file.
    pub(crate) is_inline: bool,
    pub(crate) is_test_only: bool,
}

/// One meaning of a name in a module; a type, a value and a macro may share it.
#[derive(Clone)]
pub(crate) enum Meaning {
    /// Defined in this file.
    Item(FileId),
    Module(ModuleId),
    Import(Leaf),
}

/// Where the files of a module's children are.
#[derive(Clone)]
struct Folder {
    /// For `mod name;`.
    children: String,
    /// For `#[path]`.
    paths: String,
}

impl Modules {
    /// Parses every crate of the tree, from its root along its `mod` declarations.
    pub(crate) fn parse(tree: &Tree) -> Result<Self> {
        let mut modules = Self::default();
        for Root { file, name } in roots(tree)? {
            let folder = folder_of(&file).to_owned();
            let folder = Folder {
                children: folder.clone(),
                paths: folder,
            };
            let root = modules.add_file(tree, &file, None, &folder, false)?;
            if let Some(name) = name {
                modules.libraries.insert(name, root);
            }
        }
        let reached: BTreeSet<&str> = modules.files.iter().map(|file| file.path.as_str()).collect();
        let sources = tree.keys().filter(|path| !path.ends_with("Cargo.toml"));
        modules.unreached = sources
            .filter(|path| !reached.contains(path.as_str()))
            .cloned()
            .collect();
        Ok(modules)
    }

    fn add_file(
        &mut self,
        tree: &Tree,
        path: &str,
        parent: Option<ModuleId>,
        folder: &Folder,
        under_test: bool,
    ) -> Result<ModuleId> {
        let known = self.files.iter().position(|file| file.path == path);
        let file = known.unwrap_or(self.files.len());
        if known.is_none() {
            let text = tree.get(path).with_context(|| format!("no file {path}"))?;
            let syntax = syn::parse_file(text).with_context(|| format!("cannot parse {path}"))?;
            self.files.push(File {
                path: path.to_owned(),
                syntax: Rc::new(syntax),
            });
        }
        let syntax = Rc::clone(&self.files[file].syntax);
        let under_test = under_test || is_test_only(&syntax.attrs);
        let module = self.add(file, parent, false, under_test);
        self.declare(tree, module, &syntax.items, folder)?;
        Ok(module)
    }

    fn add(
        &mut self,
        file: FileId,
        parent: Option<ModuleId>,
        is_inline: bool,
        is_test_only: bool,
    ) -> ModuleId {
        let id = self.all.len();
        let root = parent.map_or(id, |parent| self.all[parent].root);
        self.all.push(Module {
            file,
            parent,
            root,
            names: BTreeMap::new(),
            globs: Vec::new(),
            is_inline,
            is_test_only,
        });
        id
    }

    fn declare(&mut self, tree: &Tree, module: ModuleId, items: &[Item], folder: &Folder) -> Result<()> {
        let here = Meaning::Item(self.all[module].file);
        for item in items {
            if let Item::Mod(declared) = item {
                let under_test = self.all[module].is_test_only || is_test_only(&declared.attrs);
                let child = self.add_module(tree, module, declared, folder, under_test)?;
                if !under_test {
                    self.name(module, &declared.ident, &Meaning::Module(child));
                }
                continue;
            }
            if is_test_only(attributes(item)) {
                continue;
            }
            match item {
                Item::Use(import) => {
                    for leaf in leaves(import) {
                        match &leaf.name {
                            Name::Every => self.all[module].globs.push(leaf),
                            Name::Word(name) => self.name(module, name, &Meaning::Import(leaf.clone())),
                            Name::Nameless => {}
                        }
                    }
                }
                Item::Macro(defined) => {
                    if let Some(name) = &defined.ident {
                        self.name(module, name, &here);
                        if defined
                            .attrs
                            .iter()
                            .any(|attribute| attribute.path().is_ident("macro_export"))
                        {
                            self.name(self.all[module].root, name, &here);
                        }
                    }
                }
                _ => {
                    if let Some(name) = defined(item) {
                        self.name(module, name, &here);
                    }
                }
            }
        }
        Ok(())
    }

    fn add_module(
        &mut self,
        tree: &Tree,
        parent: ModuleId,
        declared: &ItemMod,
        folder: &Folder,
        under_test: bool,
    ) -> Result<ModuleId> {
        let name = declared.ident.to_string();
        if let Some((_, items)) = &declared.content {
            let module = self.add(self.all[parent].file, Some(parent), true, under_test);
            let inner = format!("{}{name}/", folder.children);
            self.declare(
                tree,
                module,
                items,
                &Folder {
                    children: inner.clone(),
                    paths: inner,
                },
            )?;
            return Ok(module);
        }
        if let Some(path) = path_attribute(&declared.attrs) {
            let path = normal(&format!("{}{path}", folder.paths));
            let own = folder_of(&path).to_owned();
            let folder = Folder {
                children: own.clone(),
                paths: own,
            };
            return self.add_file(tree, &path, Some(parent), &folder, under_test);
        }
        let own = format!("{}{name}/", folder.children);
        let flat = format!("{}{name}.rs", folder.children);
        let nested = format!("{own}mod.rs");
        let (path, paths) = if tree.contains_key(&flat) {
            (flat, folder.children.clone())
        } else {
            (nested, own.clone())
        };
        self.add_file(
            tree,
            &path,
            Some(parent),
            &Folder { children: own, paths },
            under_test,
        )
        .with_context(|| format!("`mod {name};` in {}", self.files[self.all[parent].file].path))
    }

    fn name(&mut self, module: ModuleId, name: &impl ToString, meaning: &Meaning) {
        self.all[module]
            .names
            .entry(name.to_string())
            .or_default()
            .push(meaning.clone());
    }

    /// The inline module of this name.
    pub(crate) fn inline(&self, parent: ModuleId, name: &syn::Ident) -> Option<ModuleId> {
        self.all[parent]
            .names
            .get(&name.to_string())?
            .iter()
            .find_map(|meaning| match meaning {
                Meaning::Module(child) if self.all[*child].is_inline => Some(*child),
                _ => None,
            })
    }
}

/// The one name that an item other than `use`, `mod` and a macro defines.
fn defined(item: &Item) -> Option<&syn::Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::TraitAlias(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

/// The attributes of an item of any kind.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text), ..
            }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

/// The folder of a file, with its last `/`; empty at the top.
fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |end| &path[..=end])
}

/// The path without `.` and `..`.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
