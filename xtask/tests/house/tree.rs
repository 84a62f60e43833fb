//! The sources as text: every `.rs` file and every `Cargo.toml` of the workspace, by path.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Text by path; paths are relative to the workspace and separated by `/`.
pub(crate) type Tree = BTreeMap<String, String>;

/// Reads the workspace from disk, without build output and hidden folders.
pub(crate) fn read(workspace: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    collect(workspace, "", &mut tree)?;
    Ok(tree)
}

fn collect(folder: &Path, prefix: &str, tree: &mut Tree) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, &format!("{prefix}{name}/"), tree)?;
            }
        } else if name == "Cargo.toml" || has_extension(&name) {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            tree.insert(format!("{prefix}{name}"), text);
        }
    }
    Ok(())
}

fn has_extension(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "rs")
}

/// Every file that Cargo compiles as the root of a crate, with the crate's name if others can import it.
pub(crate) fn roots(tree: &Tree) -> Result<Vec<Root>> {
    let mut roots = Vec::new();
    for (path, text) in tree {
        let Some(folder) = path.strip_suffix("Cargo.toml") else {
            continue;
        };
        let manifest: toml::Table = toml::from_str(text).with_context(|| format!("cannot parse {path}"))?;
        let Some(package) = manifest
            .get("package")
            .and_then(|package| package.get("name")?.as_str())
        else {
            continue;
        };
        let library = named_path(&manifest, "lib").unwrap_or_else(|| "src/lib.rs".to_owned());
        let library = format!("{folder}{library}");
        let mut named = Vec::new();
        for kind in ["bin", "test", "bench", "example"] {
            let targets = manifest.get(kind).and_then(toml::Value::as_array);
            for target in targets.into_iter().flatten() {
                named.extend(
                    target
                        .get("path")
                        .and_then(|path| Some(format!("{folder}{}", path.as_str()?))),
                );
            }
        }
        for file in tree.keys() {
            let Some(inner) = file.strip_prefix(folder) else {
                continue;
            };
            if *file == library {
                let name = Some(package.replace('-', "_"));
                roots.push(Root {
                    file: file.clone(),
                    name,
                });
            } else if is_root(inner) || named.contains(file) {
                roots.push(Root {
                    file: file.clone(),
                    name: None,
                });
            }
        }
    }
    Ok(roots)
}

/// The root of one crate.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) file: String,
    /// For a library: the name that other crates import it by.
    pub(crate) name: Option<String>,
}

fn named_path(manifest: &toml::Table, target: &str) -> Option<String> {
    Some(manifest.get(target)?.get("path")?.as_str()?.to_owned())
}

/// Whether Cargo compiles this file of a package as a crate root by default.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["build.rs"] | ["src", "main.rs"] => true,
        ["src", "bin", file] | ["tests" | "benches" | "examples", file] => has_extension(file),
        ["src", "bin", _, file] | ["tests" | "benches" | "examples", _, file] => *file == "main.rs",
        _ => false,
    }
}
