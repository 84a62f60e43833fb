//! The guest's only file system: our init, tracer, the node's real tools, modules, and the job.
//!
//! It consists of three archives. Tools and modules only change with their packages and are cached; the third
//! one holds the files of one run: two binaries, the scenarios and the job.

mod contents;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::cpio::Archive;
use super::elf::Libraries;
use super::kernels::Kernel;
use super::kubernetes::Kubernetes;
use super::modules::{Module, Modules};
use crate::protocol::{
    JOB_PATH, Job, MODULE_ALIASES, MODULE_NEEDS, PWRU_DIR, SCENARIOS_DIR, TRACER_PATH, module_path,
};
pub use contents::TOOL_PACKAGES;
use contents::{MODULES, ON_DEMAND_MODULES, OPTIONAL_MODULES, TOOLS};

/// Bump this when the layout of the cached archives changes.
const FORMAT: u32 = 3;

/// Folders of a tree that contain programs.
const PROGRAM_FOLDERS: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];

/// Debian's library folder; iptables looks for its extensions in `xtables` below it.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";

/// The parts of a guest.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The folder of cached archives.
    pub cache: &'a Path,
    /// The kernel that will unpack it.
    pub kernel: &'a Kernel,
    /// The unpacked tree of [`TOOL_PACKAGES`] and their dependencies.
    pub tools: &'a Path,
    /// The static `lab-guest`.
    pub init: &'a Path,
    /// The static `tracer`.
    pub tracer: &'a Path,
    /// The programs of a control plane, for scenarios that have one.
    pub kubernetes: Option<&'a Kubernetes>,
    /// The unpacked tree of pwru and its dependencies, to measure beside it.
    pub pwru: Option<&'a Path>,
    /// The scenario files.
    pub scenarios: &'a [PathBuf],
    /// The job; its list of modules is filled in here.
    pub job: &'a Job,
}

/// Builds the initramfs at `path`.
pub fn build(parts: Parts<'_>, path: &Path) -> Result<()> {
    fs::create_dir_all(parts.cache).with_context(|| format!("cannot create {}", parts.cache.display()))?;
    let tools = tools_archive(&parts)?;
    let modules = modules_archive(&parts)?;

    let mut job = parts.job.clone();
    job.modules = fs::read_to_string(modules.with_extension("list"))
        .context("cannot read the list of modules")?
        .lines()
        .map(str::to_owned)
        .collect();

    let out = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut out = BufWriter::new(out);
    for kept in [&tools, &modules] {
        let mut kept = File::open(kept).with_context(|| format!("cannot open {}", kept.display()))?;
        io::copy(&mut kept, &mut out).context("cannot copy a cached archive")?;
    }
    let mut archive = Archive::new(out);
    archive.file("/init", 0o755, &read(parts.init)?)?;
    for name in ["modprobe", "netns", "syn-flood", "ipvs-entries", "screen-session"] {
        archive.symlink(&format!("bin/{name}"), "/init")?;
    }
    archive.file(TRACER_PATH, 0o755, &read(parts.tracer)?)?;
    if let Some(kubernetes) = parts.kubernetes {
        add_kubernetes(&mut archive, kubernetes, parts.tools)?;
    }
    if let Some(tree) = parts.pwru {
        add_pwru(&mut archive, tree)?;
    }
    archive.file(JOB_PATH, 0o644, &serde_json::to_vec_pretty(&job)?)?;
    for scenario in parts.scenarios {
        let name = scenario.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("{SCENARIOS_DIR}/{name}"), 0o644, &read(scenario)?)?;
    }
    archive.finish().context("cannot write the initramfs")?;
    Ok(())
}

/// The control plane's programs. They are not cached a second time: together they are larger than all else.
fn add_kubernetes<W: Write>(archive: &mut Archive<W>, kubernetes: &Kubernetes, tools: &Path) -> Result<()> {
    let mut libraries = Libraries::default();
    for program in kubernetes.programs() {
        libraries.add_needs_of(tools, &program)?;
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("bin/{name}"), 0o755, &read(&program)?)?;
    }
    add_libraries(archive, &libraries)?;
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n")?;
    Ok(())
}

/// pwru in a folder of its own: its libraries are newer than those of the tools.
fn add_pwru<W: Write>(archive: &mut Archive<W>, tree: &Path) -> Result<()> {
    let program = tree.join("usr/bin/pwru");
    let mut libraries = Libraries::default();
    libraries.add_needs_of(tree, &program)?;
    let folder = PWRU_DIR.trim_start_matches('/');
    archive.file(&format!("{folder}/pwru"), 0o755, &read(&program)?)?;
    for (name, file) in libraries.iter() {
        archive.file(&format!("{folder}/{name}"), 0o755, &read(file)?)?;
    }
    Ok(())
}

fn add_libraries<W: Write>(archive: &mut Archive<W>, libraries: &Libraries) -> Result<()> {
    for (name, file) in libraries.iter() {
        let folder = if name.starts_with("ld-linux") {
            "lib64"
        } else {
            LIBRARIES
        };
        archive.file(&format!("{folder}/{name}"), 0o755, &read(file)?)?;
    }
    Ok(())
}

/// The node's tools with their libraries, in a file system with merged folders like Debian's.
fn tools_archive(parts: &Parts<'_>) -> Result<PathBuf> {
    let mut key = Key::new();
    key.file(parts.tools)?;
    for (name, aliases) in TOOLS {
        key.text(name);
        for alias in *aliases {
            key.text(alias);
        }
    }
    let path = parts.cache.join(format!("tools-{}.cpio", key.finish()));
    if path.exists() {
        return Ok(path);
    }

    let mut archive = Archive::new(Vec::new());
    for folder in [
        "bin", LIBRARIES, "lib64", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var/run",
    ] {
        archive.directory(folder)?;
    }
    for (link, target) in [
        ("sbin", "bin"),
        ("usr/bin", "../bin"),
        ("usr/sbin", "../bin"),
        ("usr/lib", "../lib"),
    ] {
        archive.symlink(link, target)?;
    }
    archive.char_device("dev/console", 5, 1)?;

    let mut libraries = Libraries::default();
    for (name, aliases) in TOOLS {
        let program = PROGRAM_FOLDERS
            .iter()
            .map(|folder| parts.tools.join(folder).join(name))
            .find(|path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()))
            .with_context(|| format!("{name} is in none of the packages {}", TOOL_PACKAGES.join(", ")))?;
        libraries.add_needs_of(parts.tools, &program)?;
        archive.file(&format!("bin/{name}"), 0o755, &read(&program)?)?;
        for alias in *aliases {
            archive.symlink(&format!("bin/{alias}"), name)?;
        }
    }
    for extension in xtables_extensions(parts.tools)? {
        libraries.add_needs_of(parts.tools, &extension)?;
        let name = extension.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("{LIBRARIES}/xtables/{name}"), 0o644, &read(&extension)?)?;
    }
    add_libraries(&mut archive, &libraries)?;
    for name in ["protocols", "services"] {
        let path = parts.tools.join("etc").join(name);
        if path.is_file() {
            archive.file(&format!("etc/{name}"), 0o644, &read(&path)?)?;
        }
    }
    write_atomically(&path, &archive.finish()?)?;
    Ok(path)
}

fn xtables_extensions(tree: &Path) -> Result<Vec<PathBuf>> {
    let folder = ["usr/lib", "lib"]
        .iter()
        .map(|lib| tree.join(lib).join("x86_64-linux-gnu/xtables"))
        .find(|path| path.is_dir())
        .context("the package iptables contains no extensions")?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        // Some are links to others, because one extension serves several names.
        if path.is_file() && path.extension().is_some_and(|extension| extension == "so") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The kernel's modules, and next to the archive a list of their paths in load order.
fn modules_archive(parts: &Parts<'_>) -> Result<PathBuf> {
    let kernel = parts.kernel;
    let mut key = Key::new();
    key.file(&kernel.modules_dir)?;
    key.text(&kernel.release);
    for (name, file) in &kernel.overrides {
        key.text(name);
        key.file(file)?;
    }
    for names in [MODULES, ON_DEMAND_MODULES, OPTIONAL_MODULES] {
        for name in names {
            key.text(name);
        }
        key.text("");
    }
    let path = parts
        .cache
        .join(format!("modules-{}-{}.cpio", kernel.release, key.finish()));
    let list = path.with_extension("list");
    if path.exists() && list.exists() {
        return Ok(path);
    }

    let packaged = Modules::find(&kernel.modules_dir, &kernel.overrides)?;
    let mut order = String::new();
    for Module { name, .. } in packaged.closure(MODULES, OPTIONAL_MODULES)? {
        let _ = writeln!(order, "{}", module_path(&name));
    }
    let mut archive = Archive::new(Vec::new());
    let (mut all_needs, mut all_aliases) = (String::new(), String::new());
    let all: Vec<&str> = MODULES.iter().chain(ON_DEMAND_MODULES).copied().collect();
    for module in packaged.closure(&all, OPTIONAL_MODULES)? {
        let Module {
            name,
            content,
            needs,
            aliases,
        } = module;
        archive.file(&module_path(&name), 0o644, &content)?;
        let _ = writeln!(all_needs, "{name} {}", needs.join(" "));
        // Aliases with a pattern are for hardware.
        for alias in aliases.iter().filter(|alias| !alias.contains(['*', ' '])) {
            let _ = writeln!(all_aliases, "{alias} {name}");
        }
    }
    archive.file(MODULE_NEEDS, 0o644, all_needs.as_bytes())?;
    archive.file(MODULE_ALIASES, 0o644, all_aliases.as_bytes())?;
    write_atomically(&list, order.as_bytes())?;
    write_atomically(&path, &archive.finish()?)?;
    Ok(path)
}

/// Names a cached archive after its inputs. Packages are unpacked once and never changed, so a path with its
/// mtime and size identifies its content.
struct Key(Sha256);

impl Key {
    fn new() -> Self {
        let mut key = Self(Sha256::new());
        key.0.update(FORMAT.to_le_bytes());
        key
    }

    fn text(&mut self, text: &str) {
        self.0.update(text.as_bytes());
        self.0.update([0]);
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let metadata = path
            .metadata()
            .with_context(|| format!("cannot find {}", path.display()))?;
        self.text(&path.to_string_lossy());
        for number in [metadata.mtime(), metadata.mtime_nsec()] {
            self.0.update(number.to_le_bytes());
        }
        self.0.update(metadata.len().to_le_bytes());
        Ok(())
    }

    fn finish(self) -> String {
        self.0
            .finalize()
            .iter()
            .take(8)
            .fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }
}

/// Writes a file atomically: another guest, of this process or another one, may be built at the same time.
fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(content)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
