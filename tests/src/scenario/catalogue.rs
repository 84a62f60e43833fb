//! The folder of scenarios, and how scenarios are chosen from it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{KernelName, Scenario};

/// A scenario and its name: that of its file without `.toml`, and with `@ipv6` for IPv6 addresses.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// The scenario, with the addresses of its family.
    pub scenario: Scenario,
}

impl Named {
    /// The name of its file, whatever the family.
    #[must_use]
    pub fn base(&self) -> &str {
        self.name.split('@').next().unwrap_or(&self.name)
    }
}

/// Reads every `NAME.toml` of a folder, sorted by name.
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
    ensure!(!all.is_empty(), "no scenarios in {}", folder.display());
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
        "{}: a scenario name may contain only a-z, 0-9, - and .",
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

/// Suggests the names closest to an unknown one, as the end of an error message.
fn suggestion(all: &[Named], name: &str) -> String {
    let mut names: Vec<(f64, &str)> = all
        .iter()
        .map(|named| (strsim::jaro_winkler(name, &named.name), named.name.as_str()))
        .filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
        .collect();
    names.sort_by(|one, other| other.0.total_cmp(&one.0));
    let names: Vec<&str> = names
        .into_iter()
        .take(MAX_SUGGESTIONS)
        .map(|(_, name)| name)
        .collect();
    if names.is_empty() {
        return String::new();
    }
    format!(" (did you mean {}?)", names.join(" or "))
}

/// The lowest Jaro-Winkler similarity at which a name is suggested; 1 is the same name.
const MIN_SIMILARITY: f64 = 0.8;
const MAX_SUGGESTIONS: usize = 4;

/// Returns the scenarios of these names in that order or, without names, all that run on the kernel. Fails on
/// an unknown name and on a scenario that does not run on the kernel.
pub fn select<'a>(all: &'a [Named], names: &[String], kernel: &KernelName) -> Result<Vec<&'a Named>> {
    let mut chosen = Vec::new();
    for name in names {
        let Some(named) = all.iter().find(|named| named.name == *name) else {
            bail!(
                "no scenario `{name}`{}; `cargo xtask lab --list` shows all",
                suggestion(all, name)
            );
        };
        if !named.scenario.runs_on(kernel) {
            let kernels: Vec<_> = named.scenario.kernels.iter().map(ToString::to_string).collect();
            bail!(
                "`{name}` does not run on {kernel}, only on {}",
                kernels.join(", ")
            );
        }
        chosen.push(named);
    }
    if names.is_empty() {
        chosen.extend(all.iter().filter(|named| named.scenario.runs_on(kernel)));
    }
    Ok(chosen)
}
