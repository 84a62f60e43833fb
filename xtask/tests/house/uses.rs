//! Reads one file: its imports, and the paths in its code, attributes and macros.
//!
//! `mod` and re-exports are not arrows. Method calls, and names that a macro assembles, are not visible without a compiler.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, ImplItem, Item, ItemMod, ItemUse, Macro, Meta, PatIdent, Path, Stmt, TraitItem,
    Visibility,
};

use crate::arrows::Arrows;
use crate::cfg::is_test_only;
use crate::imported::{Leaf, Name, leaves};
use crate::modules::{FileId, Meaning, ModuleId, Modules, attributes};
use crate::resolve::{Search, Target, Written};

/// The arrows of every module that is not for tests alone.
pub(crate) fn arrows(modules: &Modules) -> Arrows {
    let mut arrows = Arrows::default();
    for (id, module) in modules.all.iter().enumerate() {
        if !module.is_inline && !module.is_test_only {
            Reader::read(modules, id, &mut arrows);
        }
    }
    arrows
}

/// Walks through one file and adds its arrows.
struct Reader<'a> {
    modules: &'a Modules,
    arrows: &'a mut Arrows,
    file: FileId,
    module: ModuleId,
    /// Imports of the surrounding blocks.
    local: Vec<Vec<Leaf>>,
    /// Names of variables anywhere in the file: such a word does not count as an import.
    variables: BTreeSet<String>,
    /// Modules that were imported, with the name and the line.
    imported: Vec<(ModuleId, String, usize)>,
    /// Modules that paths in the code lead through.
    used: BTreeSet<ModuleId>,
}

impl<'a> Reader<'a> {
    /// Adds what the file of this module uses to the arrows.
    fn read(modules: &'a Modules, module: ModuleId, arrows: &'a mut Arrows) {
        let file = modules.all[module].file;
        let syntax = &modules.files[file].syntax;
        let mut variables = Variables::default();
        variables.visit_file(syntax);
        let mut reader = Reader {
            modules,
            arrows,
            file,
            module,
            local: Vec::new(),
            variables: variables.0,
            imported: Vec::new(),
            used: BTreeSet::new(),
        };
        reader.visit_file(syntax);
        for (target, name, line) in reader.imported {
            if !reader.used.contains(&target) {
                reader.arrows.add(file, modules.all[target].file, &name, line);
            }
        }
    }

    fn import(&mut self, leaf: &Leaf) {
        let written = Written {
            module: self.module,
            local: &self.local,
            path: &leaf.path,
            is_global: leaf.is_global,
        };
        for target in Search::new(self.modules).resolve(written) {
            match target {
                Target::Foreign(mut path) => {
                    if leaf.name == Name::Every {
                        path.push("*".to_owned());
                    }
                    self.arrows.add_foreign(self.file, &path, leaf.line);
                }
                _ if leaf.is_reexport => {}
                Target::Item { file, name } => self.arrows.add(self.file, file, &name, leaf.line),
                // The names that it brings in are seen where they are used.
                Target::Module(_) if leaf.name == Name::Every && self.local.is_empty() => {}
                Target::Module(module) => self.imported.push((module, leaf.path.join("::"), leaf.line)),
            }
        }
    }

    fn path(&mut self, path: &[String], is_global: bool, line: usize) {
        let written = Written {
            module: self.module,
            local: &self.local,
            path,
            is_global,
        };
        let mut search = Search::new(self.modules);
        for target in search.resolve(written) {
            match target {
                Target::Item { file, name } => self.arrows.add(self.file, file, &name, line),
                Target::Foreign(path) if path.len() > 1 => self.arrows.add_foreign(self.file, &path, line),
                Target::Foreign(_) | Target::Module(_) => {}
            }
        }
        self.used.extend(search.through);
    }

    /// A name without `::`: a re-export, something that `*` brings in, or a variable.
    fn word(&mut self, word: &str, line: usize) {
        if !self.variables.contains(word) {
            self.path(&[word.to_owned()], false, line);
        }
    }

    /// A macro without a path may be one that a surrounding module defined further up.
    fn macro_name(&mut self, name: &str, line: usize) {
        let mut at = Some(self.module);
        while let Some(module) = at {
            let module = &self.modules.all[module];
            for meaning in module.names.get(name).into_iter().flatten() {
                if let Meaning::Item(file) = meaning {
                    self.arrows.add(self.file, *file, name, line);
                    return;
                }
            }
            at = module.parent;
        }
        self.arrows
            .add_foreign(self.file, &["std".to_owned(), name.to_owned()], line);
    }

    /// Paths in what the parser leaves as tokens.
    fn tokens(&mut self, tokens: TokenStream, words: Words) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    self.tokens(group.stream(), words);
                    at += 1;
                }
                TokenTree::Ident(first) => {
                    let line = first.span().start().line;
                    let before = at.checked_sub(1).and_then(|before| punctuation(&tokens[before]));
                    let mut path = vec![first.to_string()];
                    at += 1;
                    while let Some(next) = segment(&tokens, at) {
                        path.push(next);
                        at += 3;
                    }
                    let is_variable_of_macro = before == Some('$') && path[0] != "crate";
                    if is_variable_of_macro || before == Some('.') {
                        continue;
                    }
                    match (path.as_slice(), words) {
                        ([word], Words::Too) => {
                            let is_call = matches!(tokens.get(at), Some(TokenTree::Group(group))
                                if group.delimiter() == Delimiter::Parenthesis);
                            if tokens.get(at).and_then(punctuation) == Some('!') {
                                self.macro_name(word, line);
                            } else if is_call || word.starts_with(char::is_uppercase) {
                                self.word(word, line);
                            }
                        }
                        ([_], Words::InPathsOnly) => {}
                        (path, _) => self.path(path, false, line),
                    }
                }
                _ => at += 1,
            }
        }
    }
}

/// Whether names without `::` count.
#[derive(Clone, Copy)]
enum Words {
    Too,
    InPathsOnly,
}

fn punctuation(token: &TokenTree) -> Option<char> {
    match token {
        TokenTree::Punct(sign) => Some(sign.as_char()),
        _ => None,
    }
}

/// The next segment of a path, if `::` and a name follow.
fn segment(tokens: &[TokenTree], at: usize) -> Option<String> {
    let [first, second, TokenTree::Ident(name)] = tokens.get(at..at + 3)? else {
        return None;
    };
    (punctuation(first) == Some(':') && punctuation(second) == Some(':')).then(|| name.to_string())
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test_only(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => return visit::visit_impl_item(self, item),
        };
        if !is_test_only(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        if !matches!(item, TraitItem::Fn(item) if is_test_only(&item.attrs)) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_test_only(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        if !is_test_only(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_test_only(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let Some((_, items)) = &item.content else {
            return;
        };
        if let Some(inner) = self.modules.inline(self.module, &item.ident) {
            let outer = std::mem::replace(&mut self.module, inner);
            for item in items {
                self.visit_item(item);
            }
            self.module = outer;
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for leaf in leaves(item) {
            self.import(&leaf);
        }
    }

    fn visit_block(&mut self, block: &'ast Block) {
        let imports = block.stmts.iter().filter_map(|statement| match statement {
            Stmt::Item(Item::Use(item)) if !is_test_only(&item.attrs) => Some(leaves(item)),
            _ => None,
        });
        self.local.push(imports.flatten().collect());
        visit::visit_block(self, block);
        self.local.pop();
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        let line = path
            .segments
            .first()
            .map_or(0, |segment| segment.ident.span().start().line);
        match segments.as_slice() {
            [word] if path.leading_colon.is_none() => self.word(word, line),
            segments => self.path(segments, path.leading_colon.is_some(), line),
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone(), Words::InPathsOnly);
        }
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        if let Some(name) = called.path.get_ident() {
            self.macro_name(&name.to_string(), name.span().start().line);
        }
        self.visit_path(&called.path);
        // The words in a definition mean what they mean where the macro is called.
        let words = if called.path.is_ident("macro_rules") {
            Words::InPathsOnly
        } else {
            Words::Too
        };
        self.tokens(called.tokens.clone(), words);
    }
}

/// The names that patterns bind.
#[derive(Default)]
struct Variables(BTreeSet<String>);

impl<'ast> Visit<'ast> for Variables {
    fn visit_pat_ident(&mut self, pattern: &'ast PatIdent) {
        let name = pattern.ident.to_string();
        if !name.starts_with(char::is_uppercase) {
            self.0.insert(name);
        }
        visit::visit_pat_ident(self, pattern);
    }
}
