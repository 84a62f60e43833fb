//! `use` items, one leaf at a time.

use syn::{ItemUse, UseTree, Visibility};

/// One name, or one `*`, that a `use` item brings in.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    /// The path without a last `self` or `*`.
    pub(crate) path: Vec<String>,
    /// Starts with `::`, so that its first segment is a crate.
    pub(crate) is_global: bool,
    pub(crate) name: Name,
    /// Whether it has a visibility, and so re-exports the name.
    pub(crate) is_reexport: bool,
    pub(crate) line: usize,
}

/// The name of a leaf where it is imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Word(String),
    /// `as _`: a trait for its methods.
    Nameless,
    /// `*`
    Every,
}

/// The leaves of a `use` item, in the order of the source.
pub(crate) fn leaves(item: &ItemUse) -> Vec<Leaf> {
    let mut found = Vec::new();
    let start = Leaf {
        path: Vec::new(),
        is_global: item.leading_colon.is_some(),
        name: Name::Nameless,
        is_reexport: !matches!(item.vis, Visibility::Inherited),
        line: item.use_token.span.start().line,
    };
    walk(&item.tree, &start, &mut found);
    found
}

fn walk(tree: &UseTree, above: &Leaf, found: &mut Vec<Leaf>) {
    let mut leaf = above.clone();
    match tree {
        UseTree::Path(path) => {
            leaf.path.push(path.ident.to_string());
            leaf.line = path.ident.span().start().line;
            walk(&path.tree, &leaf, found);
        }
        UseTree::Group(group) => {
            for inner in &group.items {
                walk(inner, above, found);
            }
        }
        UseTree::Glob(glob) => {
            leaf.name = Name::Every;
            leaf.line = glob.star_token.span.start().line;
            found.push(leaf);
        }
        UseTree::Name(name) => {
            leaf.line = name.ident.span().start().line;
            if name.ident != "self" {
                leaf.path.push(name.ident.to_string());
            }
            if let Some(last) = leaf.path.last() {
                leaf.name = Name::Word(last.clone());
                found.push(leaf);
            }
        }
        UseTree::Rename(renamed) => {
            leaf.line = renamed.ident.span().start().line;
            if renamed.ident != "self" {
                leaf.path.push(renamed.ident.to_string());
            }
            if renamed.rename != "_" {
                leaf.name = Name::Word(renamed.rename.to_string());
            }
            found.push(leaf);
        }
    }
}
