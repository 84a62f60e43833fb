//! Kernel modules: loaded at boot or on demand, and removed again.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};

use super::cancel::Cancel;
use crate::protocol::{MODULE_ALIASES, MODULE_NEEDS, module_path};

/// How long removed objects may keep a module in use: rules, for example, are destroyed some time after nft
/// has removed them.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);

/// Loads files in the order given.
pub(super) fn load(paths: &[String]) -> Result<()> {
    paths.iter().try_for_each(|path| load_one(path))
}

fn load_one(path: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    // Modules that create devices on loading would add leftovers to the node.
    let parameters = match path.rsplit('/').next() {
        Some("dummy.ko") => "numdummies=0",
        Some("ifb.ko") => "numifbs=0",
        _ => "",
    };
    let parameters = CString::new(parameters).context("a module parameter contains a NUL")?;
    match finit_module(&file, &parameters, ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot load {path}")),
    }
}

/// Loads a module by name or alias, after its dependencies.
pub(super) fn probe(name: &str) -> Result<()> {
    let name = resolve(name)?;
    let all = fs::read_to_string(MODULE_NEEDS).with_context(|| format!("cannot read {MODULE_NEEDS}"))?;
    let words = all
        .lines()
        .map(str::split_whitespace)
        .find(|words| words.clone().next() == Some(&name));
    let Some(words) = words else {
        bail!("no module {name} in the guest");
    };
    for need in words.skip(1) {
        load_one(&module_path(need))?;
    }
    load_one(&module_path(&name))
}

/// Removes a module, but not its dependencies.
pub(super) fn remove(name: &str) -> Result<()> {
    let name = resolve(name)?;
    unload(&name).with_context(|| format!("cannot remove the module {name}"))
}

fn unload(name: &str) -> Result<()> {
    let name = CString::new(name).context("a module name contains a NUL")?;
    match delete_module(&name, DeleteModuleFlags::O_NONBLOCK) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn resolve(name: &str) -> Result<String> {
    let name = name.replace('-', "_");
    let aliases =
        fs::read_to_string(MODULE_ALIASES).with_context(|| format!("cannot read {MODULE_ALIASES}"))?;
    let stands_for = aliases
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(alias, _)| *alias == name);
    Ok(stands_for.map_or(name, |(_, name)| name.to_owned()))
}

/// The loaded modules.
pub(super) fn loaded() -> Result<BTreeSet<String>> {
    let all = fs::read_to_string("/proc/modules").context("cannot read /proc/modules")?;
    let names = all.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

/// Removes all modules that are not in `before`, and loads those that are missing.
pub(super) fn restore(before: &BTreeSet<String>) -> Result<()> {
    let mut left: Vec<String> = Vec::new();
    let gone = Cancel::default().wait_until(RELEASE_LIMIT, || {
        // Each round frees modules that the last round's needed.
        loop {
            left = loaded()?.difference(before).cloned().collect();
            if !left.iter().any(|name| unload(name).is_ok()) {
                return Ok(left.is_empty());
            }
        }
    })?;
    ensure!(gone, "cannot remove modules: {}", left.join(", "));
    let now = loaded()?;
    before.difference(&now).try_for_each(|name| probe(name))
}

/// The guest's `modprobe`, for tools, steps and the kernel itself, which calls it with `-q --` and a name.
/// Returns the exit status.
pub(super) fn modprobe(arguments: impl Iterator<Item = String>) -> i32 {
    let (options, names): (Vec<String>, Vec<String>) =
        arguments.partition(|argument| argument.starts_with('-'));
    let quiet = options.iter().any(|option| option == "-q");
    let work = if options.iter().any(|option| option == "-r") {
        remove
    } else {
        probe
    };
    let mut status = 0;
    for name in names {
        if let Err(error) = work(&name) {
            status = 1;
            if !quiet {
                eprintln!("modprobe: {error:#}");
            }
        }
    }
    status
}
