//! The toolchain that builds the object: Debian's Rust, which includes the compiled core library for BPF, and bpf-linker
//! with the same LLVM.
//!
//! Debian's packages are unpacked into the cache. They need no nightly Rust, no library sources and no privilege, and do not
//! touch other Rust toolchains on the machine.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use tracer_lab::packages::host::{Program, ensure_programs};
use tracer_lab::packages::progress::Progress;
use tracer_lab::packages::{Cache, Dependencies, Package, Suite, Tree, Version, available, newest, unpack};

use super::identity::Identity;

const SUITES: [Suite; 2] = [Suite::BOOKWORM, Suite::BOOKWORM_SECURITY];

/// Built from one source package, so all have the same version.
const RUST: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Packages that every machine with a Rust compiler already has. A second C library would conflict with the machine's own.
const PROVIDED: [&str; 6] = ["libc6", "libgcc-s1", "gcc", "libc-dev", "binutils", "debconf"];

const BPF_LINKER: &str = "0.13.0";

/// A toolchain ready for use.
#[derive(Debug)]
pub(super) struct Toolchain {
    tree: Tree,
    linker: PathBuf,
    identity: Identity,
}

impl Toolchain {
    /// Unpacks the pinned toolchain into the cache, if it is not there yet; the newest one if Debian no longer has that.
    pub(super) fn install(cache: &Cache, pinned: Option<&Identity>) -> Result<Self> {
        ensure_programs(&[
            Program {
                name: "cc",
                package: "gcc",
            },
            Program {
                name: "ld",
                package: "binutils",
            },
        ])?;
        let tree = match pinned {
            Some(pinned) => unpack_pinned(cache, pinned)?,
            None => unpack_newest(cache)?,
        };
        let mut toolchain = Self {
            linker: PathBuf::new(),
            identity: identify(&tree)?,
            tree,
        };
        toolchain.linker = toolchain.install_linker(cache)?;
        Ok(toolchain)
    }

    /// The versions of this toolchain.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The path of bpf-linker.
    pub(super) fn linker(&self) -> &Path {
        &self.linker
    }

    /// The path of the core library's source when Debian compiled it, as in its debug information.
    pub(super) fn library_source(&self) -> PathBuf {
        let version = self.identity.rustc.split(' ').nth(1).unwrap_or_default();
        PathBuf::from(format!("/usr/src/rustc-{version}"))
    }

    /// This toolchain's cargo, isolated from build settings in the environment.
    pub(super) fn cargo(&self) -> Command {
        let mut command = tool(&self.tree, "cargo");
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            // The user's registries, folders and proxies still apply.
            let kept = [
                "CARGO_HOME",
                "CARGO_HTTP_",
                "CARGO_NET_",
                "CARGO_REGISTR",
                "CARGO_SOURCE_",
                "CARGO_TERM_",
            ];
            let about_rust = text.starts_with("CARGO") || text.starts_with("RUST");
            if about_rust && !kept.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.env("RUSTC", self.tree.root.join("usr/bin/rustc"));
        // Empty, so that wrappers from the user's configuration do not run.
        command
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "");
        command
    }

    /// Builds bpf-linker for this toolchain's LLVM into the cache, if it is not there yet.
    fn install_linker(&self, cache: &Cache) -> Result<PathBuf> {
        let llvm = &self.identity.llvm;
        let root = cache.root().join(format!("bpf-linker-{BPF_LINKER}-llvm-{llvm}"));
        let linker = root.join("bin/bpf-linker");
        let _lock = cache.lock("bpf-linker")?;
        if linker.exists() {
            return Ok(linker);
        }
        let major = llvm.split('.').next().unwrap_or_default();
        let prefix = root.join("llvm");
        link_llvm(&self.tree, &prefix, llvm)?;
        let progress = Progress::spinner(&format!(
            "   Build  bpf-linker {BPF_LINKER} for LLVM {llvm} (a minute or two)"
        ));
        let feature = format!("llvm-{major}");
        let output = self
            .cargo()
            .args([
                "install",
                "--quiet",
                "--locked",
                "bpf-linker",
                "--version",
                BPF_LINKER,
            ])
            .args(["--no-default-features", "--features", &feature, "--root"])
            .arg(&root)
            .arg("--target-dir")
            .arg(root.join("target"))
            .env("LLVM_PREFIX", &prefix)
            // LLVM does most of its work, so it links as fast with less optimisation, and builds in half the time.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .output()
            .context("cannot run Debian's cargo")?;
        drop(progress);
        if !output.status.success() {
            bail!(
                "cannot build bpf-linker {BPF_LINKER}:\n{}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        fs::remove_dir_all(root.join("target")).ok();
        Ok(linker)
    }
}

/// A program of the tree, with the tree's libraries.
fn tool(tree: &Tree, name: &str) -> Command {
    let mut command = Command::new(tree.root.join("usr/bin").join(name));
    command.env("LD_LIBRARY_PATH", libraries(tree));
    command
}

fn libraries(tree: &Tree) -> PathBuf {
    tree.root.join("usr/lib/x86_64-linux-gnu")
}

fn unpack_pinned(cache: &Cache, pinned: &Identity) -> Result<Tree> {
    let llvm = Package {
        name: llvm_package(&pinned.llvm),
        version: Version::new(&pinned.debian_llvm),
    };
    let rust = Version::new(&pinned.debian_rust);
    unpack_exactly(cache, &rust, Some(&llvm)).or_else(|error| {
        let compiler = Package {
            name: RUST[0].to_owned(),
            version: rust,
        };
        if available(cache, &SUITES, &compiler)? && available(cache, &SUITES, &llvm)? {
            return Err(error);
        }
        eprintln!("Debian no longer has the pinned toolchain ({pinned}); using the newest");
        unpack_newest(cache)
    })
}

fn unpack_newest(cache: &Cache) -> Result<Tree> {
    let compiler = newest(cache, &SUITES, RUST[0])?;
    unpack_exactly(cache, &compiler.version, None)
}

fn unpack_exactly(cache: &Cache, rust: &Version, llvm: Option<&Package>) -> Result<Tree> {
    let packages: Vec<String> = RUST
        .iter()
        .map(|name| format!("{name}={rust}"))
        .chain(llvm.map(Package::pinned))
        .collect();
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    unpack(cache, &SUITES, &packages, Dependencies::Except(&PROVIDED))
        .context("cannot get Debian's Rust toolchain for BPF")
}

/// The package of an LLVM version: `libllvm22` for `22.1.8`.
fn llvm_package(version: &str) -> String {
    format!("libllvm{}", version.split('.').next().unwrap_or_default())
}

fn identify(tree: &Tree) -> Result<Identity> {
    let output = tool(tree, "rustc")
        .arg("-vV")
        .output()
        .context("cannot run Debian's rustc")?;
    ensure!(
        output.status.success(),
        "cannot run Debian's rustc: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let rustc = text.lines().next().unwrap_or_default().to_owned();
    let llvm = text
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .context("cannot find the LLVM version in the output of Debian's rustc")?
        .to_owned();
    let version = |name: &str| {
        tree.version_of(name)
            .map(ToString::to_string)
            .with_context(|| format!("cannot find {name} among the unpacked packages"))
    };
    Ok(Identity {
        rustc,
        debian_llvm: version(&llvm_package(&llvm))?,
        llvm,
        bpf_linker: BPF_LINKER.to_owned(),
        debian_rust: version(RUST[0])?,
    })
}

/// Creates the folder that bpf-linker's build expects, with lib/libLLVM.so.
fn link_llvm(tree: &Tree, prefix: &Path, version: &str) -> Result<()> {
    let folder = prefix.join("lib");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut numbers = version.split('.');
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    let library = libraries(tree).join(format!("libLLVM.so.{major}.{minor}"));
    ensure!(library.exists(), "{} is missing", library.display());
    let link = folder.join("libLLVM.so");
    // A link from an earlier build may point to a removed tree.
    fs::remove_file(&link).ok();
    symlink(&library, &link).with_context(|| format!("cannot create {}", link.display()))
}
