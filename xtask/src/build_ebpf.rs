//! `cargo xtask build-ebpf`: compiles the kernel half to the object that tracer carries inside.
//!
//! The object is committed, so that building tracer needs no BPF toolchain; `--check` proves that a rebuild gives the same
//! bytes. So nothing may depend on the machine: the toolchain is pinned ([`toolchain`]), paths of this checkout are
//! remapped, and all settings are in this file.

mod identity;
mod provenance;
mod sources;
mod strip;
mod toolchain;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use tracer_lab::packages::Cache;

use provenance::Provenance;
use toolchain::Toolchain;

/// Arguments of `cargo xtask build-ebpf`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "mutually exclusive switches")]
pub(crate) struct Arguments {
    /// Rebuild and compare with the committed object; change nothing
    #[arg(long, conflicts_with_all = ["debug", "newest"])]
    check: bool,
    /// Compare the hash of the sources only; build nothing
    #[arg(long, conflicts_with_all = ["check", "debug", "newest"])]
    is_current: bool,
    /// Build target/bpf/tracer-debug.bpf.o, with debug messages
    #[arg(long)]
    debug: bool,
    /// Build with Debian's newest toolchain and pin it
    #[arg(long)]
    newest: bool,
}

const TARGET: &str = "bpfel-unknown-none";

/// Build settings, which override the workspace's profile and the user's configuration.
const PROFILE: [(&str, &str); 10] = [
    ("OPT_LEVEL", "3"),
    // The debug information carries the BTF; it is stripped afterwards.
    ("DEBUG", "2"),
    // bpf-linker optimises the whole program itself.
    ("LTO", "off"),
    ("CODEGEN_UNITS", "1"),
    ("PANIC", "abort"),
    ("INCREMENTAL", "false"),
    ("DEBUG_ASSERTIONS", "false"),
    ("OVERFLOW_CHECKS", "false"),
    ("STRIP", "none"),
    ("SPLIT_DEBUGINFO", "off"),
];

/// Builds or checks the object.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let workspace = workspace()?;
    let committed = Committed::of(&workspace);
    let sources = sources::digest(&workspace, &format!("{PROFILE:?}"))?;
    if arguments.is_current {
        return committed.is_current(&sources);
    }
    let pinned = if arguments.newest {
        None
    } else {
        committed.provenance()?
    };
    let toolchain = Toolchain::install(&Cache::open()?, pinned.as_ref().map(|pinned| &pinned.toolchain))?;
    let object = compile(&workspace, &toolchain, arguments.debug)?;
    let made = Provenance::of(&toolchain, &object, sources);
    if arguments.debug {
        let path = target_folder(&workspace).join("tracer-debug.bpf.o");
        fs::write(&path, &object).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!(
            "wrote {} ({} bytes), with debug messages",
            path.display(),
            object.len()
        );
        return Ok(());
    }
    if arguments.check {
        let rebuilt = target_folder(&workspace).join("tracer.bpf.o");
        fs::write(&rebuilt, &object).with_context(|| format!("cannot write {}", rebuilt.display()))?;
        return committed.compare(&object, &made, &rebuilt);
    }
    committed.write(&object, &made)
}

/// The committed object and its provenance file.
#[derive(Debug)]
struct Committed {
    object: PathBuf,
    provenance: PathBuf,
}

impl Committed {
    fn of(workspace: &Path) -> Self {
        let folder = workspace.join("tracer/bpf");
        Self {
            object: folder.join("tracer.bpf.o"),
            provenance: folder.join("tracer.bpf.toml"),
        }
    }

    /// The provenance; `None` if the object was never built.
    fn provenance(&self) -> Result<Option<Provenance>> {
        if !self.provenance.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&self.provenance)
            .with_context(|| format!("cannot read {}", self.provenance.display()))?;
        Provenance::parse(&text)
            .map(Some)
            .with_context(|| format!("cannot parse {}", self.provenance.display()))
    }

    /// Fails unless the object matches its hash and was built from these sources.
    fn is_current(&self, sources: &str) -> Result<()> {
        const REMEDY: &str = "run `cargo xtask build-ebpf` and commit tracer/bpf";
        let object = fs::read(&self.object)
            .with_context(|| format!("cannot read {}; {REMEDY}", self.object.display()))?;
        let pinned = self
            .provenance()?
            .with_context(|| format!("{} is missing; {REMEDY}", self.provenance.display()))?;
        ensure!(
            pinned.sha256 == provenance::sha256(&object),
            "{} does not match the hash of the object; {REMEDY}",
            self.provenance.display()
        );
        ensure!(
            pinned.sources == sources,
            "{} is out of date: the sources of the kernel half have changed; {REMEDY}",
            self.object.display()
        );
        eprintln!("{} was built from these sources", self.object.display());
        Ok(())
    }

    fn write(&self, object: &[u8], made: &Provenance) -> Result<()> {
        let changed = fs::read(&self.object).ok().as_deref() != Some(object);
        if let Some(folder) = self.object.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&self.object, object).with_context(|| format!("cannot write {}", self.object.display()))?;
        fs::write(&self.provenance, made.to_text()?)
            .with_context(|| format!("cannot write {}", self.provenance.display()))?;
        let news = if changed { "wrote" } else { "unchanged:" };
        eprintln!(
            "{news} {} ({} bytes, sha256 {})",
            self.object.display(),
            object.len(),
            made.sha256
        );
        Ok(())
    }

    fn compare(&self, object: &[u8], made: &Provenance, rebuilt: &Path) -> Result<()> {
        let pinned = self.provenance()?.with_context(|| {
            format!(
                "{} is missing; run `cargo xtask build-ebpf`",
                self.provenance.display()
            )
        })?;
        let committed = fs::read(&self.object).with_context(|| {
            format!(
                "cannot read {}; run `cargo xtask build-ebpf`",
                self.object.display()
            )
        })?;
        if committed == object && pinned.sha256 == made.sha256 && pinned.sources == made.sources {
            eprintln!(
                "{} matches a rebuild (sha256 {})",
                self.object.display(),
                made.sha256
            );
            return Ok(());
        }
        let reason = if committed == object {
            "tracer.bpf.toml does not match the hash of the object or of its sources"
        } else if pinned.toolchain == made.toolchain {
            "the committed object does not match a rebuild"
        } else {
            "the pinned toolchain is not available, and the newest one builds a different object"
        };
        let remedy = if pinned.toolchain == made.toolchain {
            "run `cargo xtask build-ebpf` and commit tracer/bpf"
        } else {
            "run `cargo xtask build-ebpf --newest`, review the change and commit tracer/bpf"
        };
        bail!(
            "{reason}\n  committed  {} bytes, sha256 {}\n             built by {}\n  rebuilt    {} bytes, sha256 {} ({})\
             \n             built by {}\n{remedy}",
            committed.len(),
            provenance::sha256(&committed),
            pinned.toolchain,
            object.len(),
            made.sha256,
            rebuilt.display(),
            made.toolchain,
        );
    }
}

/// Compiles the kernel half and returns the stripped object.
fn compile(workspace: &Path, toolchain: &Toolchain, debug: bool) -> Result<Vec<u8>> {
    let target = target_folder(workspace);
    fs::create_dir_all(&target).with_context(|| format!("cannot create {}", target.display()))?;
    let cargo_home = cargo_home()?;
    // Fetched first, because the folders of the fetched sources are among the paths to remap.
    let mut fetch = toolchain.cargo();
    fetch
        .args(["fetch", "--quiet", "--locked", "--target", TARGET])
        .current_dir(workspace);
    run_to_end(&mut fetch).context("cannot fetch the crates of the kernel half")?;

    let remaps = remaps(workspace, &target, &cargo_home)?;
    refuse_sources(
        remaps
            .iter()
            .map(|(_, name)| Path::new(*name))
            .chain([toolchain.library_source().as_path()]),
    )?;

    eprintln!("   Build  kernel half with {}", toolchain.identity());
    let mut build = toolchain.cargo();
    build
        .args([
            "build",
            "--locked",
            "--release",
            "--package",
            "tracer-ebpf",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(workspace)
        .env("RUSTC_BOOTSTRAP", "aya_ebpf")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain, &remaps));
    for (name, value) in PROFILE {
        build.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    if debug {
        build.args(["--features", "log"]);
    }
    run_to_end(&mut build).context("cannot compile the kernel half")?;

    let built = target.join(TARGET).join("release/tracer-ebpf");
    let linked = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    strip::strip_debug(&linked).with_context(|| format!("cannot strip {}", built.display()))
}

/// The name in the object of each path on this machine.
fn remaps(workspace: &Path, target: &Path, cargo_home: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut remaps = vec![
        (workspace.to_owned(), "/tracer.source"),
        (target.to_owned(), "/tracer.target"),
        (cargo_home.to_owned(), "/tracer.cargo"),
    ];
    // The folders below are named after the registry's host, which may be a mirror.
    let registry = cargo_home.join("registry/src");
    let folders = fs::read_dir(&registry).with_context(|| format!("cannot read {}", registry.display()))?;
    for folder in folders {
        remaps.push((folder?.path(), "/tracer.crates"));
    }
    Ok(remaps)
}

/// Fails if a path that is named in the object exists: LLVM would copy source lines from it into the BTF.
fn refuse_sources<'a>(names: impl Iterator<Item = &'a Path>) -> Result<()> {
    for name in names {
        ensure!(
            !name.exists(),
            "cannot build reproducibly while {} exists: LLVM would copy source lines from it; move it away",
            name.display()
        );
    }
    Ok(())
}

fn rustflags(toolchain: &Toolchain, remaps: &[(PathBuf, &str)]) -> OsString {
    let mut linker = OsString::from("-Clinker=");
    linker.push(toolchain.linker());
    let mut flags = vec![
        OsString::from(r#"--cfg=bpf_target_arch="x86_64""#),
        OsString::from("-Cdebuginfo=2"),
        OsString::from("-Clink-arg=--btf"),
        linker,
    ];
    // The last match wins in rustc, so the most specific path comes last.
    for (path, name) in remaps {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(path);
        flag.push("=");
        flag.push(name);
        flags.push(flag);
    }
    flags.join(&OsString::from("\x1f"))
}

fn run_to_end(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(status.success(), "cargo failed: {status}");
    Ok(())
}

fn workspace() -> Result<PathBuf> {
    // At run time, so that a binary from another checkout does not build that checkout.
    let xtask = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let workspace = xtask.join("..");
    workspace
        .canonicalize()
        .with_context(|| format!("cannot find the workspace at {}", workspace.display()))
}

fn target_folder(workspace: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), PathBuf::from)
        .join("bpf")
}

fn cargo_home() -> Result<PathBuf> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir()
            .context("cannot find cargo's home: neither CARGO_HOME nor HOME is set")?
            .join(".cargo"),
    };
    fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    home.canonicalize()
        .with_context(|| format!("cannot find the folder {}", home.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::Identity;

    fn identity(rust: &str) -> Identity {
        Identity {
            rustc: format!("rustc {rust}"),
            llvm: "22.1.8".to_owned(),
            bpf_linker: "0.13.0".to_owned(),
            debian_rust: format!("{rust}-1"),
            debian_llvm: "1:22.1.8-1".to_owned(),
        }
    }

    fn made(rust: &str, object: &[u8]) -> Provenance {
        Provenance {
            sources: provenance::sha256(b"sources"),
            sha256: provenance::sha256(object),
            toolchain: identity(rust),
        }
    }

    /// Writes one object as committed and compares another with it.
    fn compare(committed: (&str, &[u8]), rebuilt: (&str, &[u8])) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let place = Committed::of(folder.path());
        place.write(committed.1, &made(committed.0, committed.1))?;
        place.compare(rebuilt.1, &made(rebuilt.0, rebuilt.1), Path::new("rebuilt.o"))
    }

    #[test]
    fn identical_bytes_pass_with_any_toolchain() {
        compare(("1.96.0", b"one"), ("1.96.0", b"one")).unwrap();
        compare(("1.96.0", b"one"), ("1.97.0", b"one")).unwrap();
    }

    #[test]
    fn different_bytes_fail_with_the_right_remedy() {
        let error = compare(("1.96.0", b"one"), ("1.96.0", b"two"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("run `cargo xtask build-ebpf` and commit"),
            "{error}"
        );
        let error = compare(("1.96.0", b"one"), ("1.97.0", b"two"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("rustc 1.96.0") && error.contains("rustc 1.97.0"),
            "{error}"
        );
        assert!(error.contains("--newest"), "{error}");
    }

    #[test]
    fn an_edited_hash_fails() {
        let folder = tempfile::tempdir().unwrap();
        let place = Committed::of(folder.path());
        place.write(b"one", &made("1.96.0", b"other")).unwrap();
        let error = place
            .compare(b"one", &made("1.96.0", b"one"), Path::new("rebuilt.o"))
            .unwrap_err();
        assert!(error.to_string().contains("does not match the hash"), "{error}");
    }

    #[test]
    fn an_existing_source_path_fails() {
        let folder = tempfile::tempdir().unwrap();
        refuse_sources([folder.path().join("none").as_path()].into_iter()).unwrap();
        refuse_sources([folder.path()].into_iter()).unwrap_err();
    }

    /// The committed object, without building anything.
    #[test]
    fn the_committed_object_has_btf_but_no_dwarf_and_no_local_paths() {
        use object::{Object as _, ObjectSection as _};

        let place = Committed::of(&workspace().unwrap());
        let bytes = fs::read(&place.object).unwrap();
        assert_eq!(
            provenance::sha256(&bytes),
            place.provenance().unwrap().unwrap().sha256
        );
        let object = object::File::parse(bytes.as_slice()).unwrap();
        let names: Vec<&str> = object.sections().map(|section| section.name().unwrap()).collect();
        for needed in [".BTF", ".BTF.ext", "license", "maps"] {
            assert!(names.contains(&needed), "{needed} is missing: {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("debug")), "{names:?}");
        let text = String::from_utf8_lossy(&bytes);
        for leak in ["/home/", "/root/", ".cargo/registry"] {
            assert!(!text.contains(leak), "the object contains {leak}");
        }
    }
}
