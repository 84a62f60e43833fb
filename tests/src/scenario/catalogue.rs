//! The folder of scenarios, and choosing from it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{KernelName, Scenario};

/// A scenario and the name under which it is asked for: its file's, without `.toml`, and with IPv6 addresses `@ipv6`.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// What the file says, with the addresses with which it is played.
    pub scenario: Scenario,
}

impl Named {
    /// The name of its file, whatever the addresses.
    #[must_use]
    pub fn base(&self) -> &str {
        self.name.split('@').next().unwrap_or(&self.name)
    }
}

/// Reads every `NAME.toml` of a folder, in the order of their names.
pub fn load(folder: &Path) -> Result<Vec<Named>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut all = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot read {}", folder.display()))?
            .path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            all.extend(load_one(&path)?);
        }
    }
    ensure!(!all.is_empty(), "there is no scenario in {}", folder.display());
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// The scenario of a file, once for each family.
fn load_one(path: &Path) -> Result<Vec<Named>> {
    let file = || path.display().to_string();
    let name = path.file_stem().and_then(|stem| stem.to_str());
    let name = name.with_context(|| format!("{}: the name is not UTF-8", file()))?;
    ensure!(
        name.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)),
        "{}: the name of a scenario is made of a-z, 0-9, - and .",
        file()
    );
    let text = std::fs::read_to_string(path).with_context(file)?;
    let scenario = Scenario::from_toml(&text).with_context(file)?;
    let families = scenario.families.iter();
    let named = families.map(|&family| Named {
        name: format!("{name}{}", family.suffix()),
        file: path.to_owned(),
        scenario: scenario.in_family(family),
    });
    Ok(named.collect())
}

/// The names that are most like one that nobody has, in words.
fn alike(all: &[Named], name: &str) -> String {
    let mut names: Vec<(f64, &str)> = all
        .iter()
        .map(|named| (strsim::jaro_winkler(name, &named.name), named.name.as_str()))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .collect();
    names.sort_by(|one, other| other.0.total_cmp(&one.0));
    let names: Vec<&str> = names.into_iter().take(MOST_ALIKE).map(|(_, name)| name).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(" (is it {}?)", names.join(", or "))
}

/// Names are alike from this likeness on; 1 is the same name.
const ALIKE: f64 = 0.8;
const MOST_ALIKE: usize = 4;

/// The scenarios of these names in the order asked for, or, where none is named, all that run on the kernel. A
/// scenario that is asked for by name and does not run on the kernel is an error, as is a name that nobody has.
pub fn select<'a>(all: &'a [Named], names: &[String], kernel: &KernelName) -> Result<Vec<&'a Named>> {
    let mut chosen = Vec::new();
    for name in names {
        let Some(named) = all.iter().find(|named| named.name == *name) else {
            bail!(
                "there is no scenario `{name}`{}; `cargo xtask lab --list` names all",
                alike(all, name)
            );
        };
        if !named.scenario.runs_on(kernel) {
            let kernels: Vec<_> = named.scenario.kernels.iter().map(ToString::to_string).collect();
            bail!("`{name}` does not run on {kernel}, but on {}", kernels.join(", "));
        }
        chosen.push(named);
    }
    if names.is_empty() {
        chosen.extend(all.iter().filter(|named| named.scenario.runs_on(kernel)));
    }
    Ok(chosen)
}
