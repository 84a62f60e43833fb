//! The control plane of Kubernetes 1.20 for a guest: kube-proxy, the API server, etcd and kubectl.
//!
//! Debian packages etcd and kubectl. kube-proxy and the API server are built here from the upstream part of
//! Debian's source package, which contains all of their dependencies, with the Go of that time: with a newer
//! one the API server crashes. Nothing but Debian's archive is used.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::packages::host::{Program, ensure_programs};
use crate::packages::progress::Progress;
use crate::packages::{Cache, Dependencies, Suite, unpack, upstream_source};

/// The version that is built. Debian's source package contains it under a higher version number.
const VERSION: &str = "1.20.2";

/// The suite whose source package `kubernetes` contains [`VERSION`], and that has etcd and kubectl.
const SUITE: Suite = Suite::BOOKWORM;

/// The compiler, and the suite that has it.
const GO: &[&str] = &["golang-1.15-go", "golang-1.15-src"];
const GO_SUITE: Suite = Suite::BULLSEYE;
const GO_ROOT: &str = "usr/lib/go-1.15";

/// Packages with the programs that need no build.
const PACKAGES: &[&str] = &["etcd-server", "kubernetes-client"];

/// The path of the source below `GOPATH/src`.
const IMPORT_PATH: &str = "k8s.io/kubernetes";

/// Environment of the compiler: no modules, no network, no C, and no more than two compilers at once, each of
/// which takes hundreds of megabytes.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("GO111MODULE", "off"),
    ("GOPROXY", "off"),
    ("CGO_ENABLED", "0"),
    ("GOFLAGS", "-trimpath -p=2"),
];

/// Linker options: no symbols, and the version that the programs report.
const LINKER: &str = "-s -w -X k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitVersion=v1.20.2 \
                      -X k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitMajor=1 \
                      -X k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitMinor=20";

/// Where directories may request a generated description of their types.
const TAGGED_FOLDERS: [&str; 3] = ["pkg", "staging/src", "vendor/k8s.io"];
const TAG: &str = "+k8s:openapi-gen=";

/// Parts of the source that have their own descriptions.
const NOT_DESCRIBED: [&str; 4] = [
    "k8s.io/code-generator/",
    "k8s.io/sample-apiserver/",
    "/testdata/",
    "_test.go",
];

/// Bump this when the steps of the build change.
const RECIPE: u32 = 1;

const PROGRAMS: [Program; 2] = [
    Program {
        name: "gzip",
        package: "gzip",
    },
    Program {
        name: "grep",
        package: "grep",
    },
];

/// The programs of a control plane.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    built: PathBuf,
    packaged: PathBuf,
}

impl Kubernetes {
    /// Builds what is not in the cache yet, which takes minutes, and fetches the rest.
    pub fn fetch(cache: &Cache) -> Result<Self> {
        let built =
            build(cache).with_context(|| format!("cannot build kube-proxy and kube-apiserver {VERSION}"))?;
        let packaged = unpack(cache, &[SUITE], PACKAGES, Dependencies::None)?;
        Ok(Self {
            built,
            packaged: packaged.root,
        })
    }

    /// Each program's path on this machine.
    #[must_use]
    pub fn programs(&self) -> [PathBuf; 4] {
        [
            self.built.join("kube-apiserver"),
            self.built.join("kube-proxy"),
            self.packaged.join("usr/bin/etcd"),
            self.packaged.join("usr/bin/kubectl"),
        ]
    }
}

/// Returns the folder with both programs.
fn build(cache: &Cache) -> Result<PathBuf> {
    let name = format!("kubernetes-{VERSION}-{}", recipe_hash());
    let folder = cache.root().join(&name);
    if folder.exists() {
        return Ok(folder);
    }
    let _lock = cache.lock("kubernetes")?;
    // Another process may have built it in the meantime.
    if folder.exists() {
        return Ok(folder);
    }
    ensure_programs(&PROGRAMS)?;
    let archive = upstream_source(cache, SUITE, "kubernetes")?;
    ensure!(
        archive.to_string_lossy().contains(VERSION),
        "{} is not {VERSION}",
        archive.display()
    );
    let go = unpack(cache, &[GO_SUITE], GO, Dependencies::None)?.root;
    let work = cache.root().join(format!("{name}.partial"));
    remove(&work)?;
    let build = Build {
        go: go.join(GO_ROOT),
        source: work.join("gopath/src").join(IMPORT_PATH),
        programs: work.join("programs"),
        work: work.clone(),
    };
    build.run(&archive)?;
    fs::rename(&build.programs, &folder)
        .with_context(|| format!("cannot rename a folder to {}", folder.display()))?;
    // Gigabytes that are no longer needed.
    remove(&work)?;
    remove(&go)?;
    Ok(folder)
}

/// A build in progress.
#[derive(Debug)]
struct Build {
    /// `GOROOT`.
    go: PathBuf,
    /// The unpacked source.
    source: PathBuf,
    /// Where the programs go.
    programs: PathBuf,
    /// The folder of everything temporary.
    work: PathBuf,
}

impl Build {
    fn run(&self, archive: &Path) -> Result<()> {
        for folder in [&self.source, &self.programs, &self.work.join("tmp")] {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let progress = Progress::spinner(&format!("unpacking the source of Kubernetes {VERSION}"));
        run(Command::new("tar")
            .args(["--extract", "--gzip", "--no-same-owner", "--strip-components=1"])
            .arg("--file")
            .arg(archive)
            .arg("--directory")
            .arg(&self.source))?;
        drop(progress);
        self.compile("kube-proxy", "./cmd/kube-proxy", &self.programs, "2 minutes")?;
        let generator = "./vendor/k8s.io/kube-openapi/cmd/openapi-gen";
        self.compile("openapi-gen", generator, &self.work, "10 seconds")?;
        self.describe_types()?;
        self.compile(
            "kube-apiserver",
            "./cmd/kube-apiserver",
            &self.programs,
            "3 minutes",
        )
    }

    fn compile(&self, name: &str, package: &str, to: &Path, takes: &str) -> Result<()> {
        let _progress = Progress::spinner(&format!(
            "building {name} of Kubernetes {VERSION}, about {takes} on two idle cores"
        ));
        let mut command = self.command(&self.go.join("bin/go"));
        command.args(["build", "-ldflags", LINKER, "-o"]);
        run(command.arg(to.join(name)).arg(package))
    }

    /// Generates the description of the API's types, without which the API server does not compile.
    fn describe_types(&self) -> Result<()> {
        let _progress = Progress::spinner("generating the description of the API's types");
        let listed = Command::new("grep")
            .args([
                "--recursive",
                "--files-with-matches",
                "--include=*.go",
                "--fixed-strings",
            ])
            .arg(TAG)
            .args(TAGGED_FOLDERS)
            .current_dir(&self.source)
            .output()
            .context("cannot run grep")?;
        let tagged = tagged_packages(&String::from_utf8_lossy(&listed.stdout));
        ensure!(!tagged.is_empty(), "no package of the source has the tag {TAG}");
        let mut command = self.command(&self.work.join("openapi-gen"));
        command
            .arg("--logtostderr")
            .args(["--input-dirs", &tagged.join(",")])
            .args([
                "--output-package",
                &format!("{IMPORT_PATH}/pkg/generated/openapi"),
            ])
            .args(["--output-file-base", "zz_generated.openapi"])
            .args([
                "--go-header-file",
                "vendor/k8s.io/code-generator/hack/boilerplate.go.txt",
            ])
            .arg("--report-filename")
            .arg(self.work.join("violations"));
        run(&mut command)
    }

    /// A program in the source's folder, with the compiler's environment and nothing of ours.
    fn command(&self, program: &Path) -> Command {
        let bin = self.go.join("bin");
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
        let mut command = Command::new(program);
        command
            .current_dir(&self.source)
            .env_clear()
            .envs(ENVIRONMENT)
            .env("PATH", path)
            .env("HOME", &self.work)
            .env("GOROOT", &self.go)
            .env("GOPATH", self.work.join("gopath"))
            .env("GOCACHE", self.work.join("cache"))
            .env("GOTMPDIR", self.work.join("tmp"));
        command
    }
}

/// The import paths of the tagged packages, from the names of tagged files.
fn tagged_packages(files: &str) -> Vec<String> {
    let files = files
        .lines()
        .filter(|file| !NOT_DESCRIBED.iter().any(|part| file.contains(part)));
    let packages: BTreeSet<String> = files
        .filter_map(|file| file.rsplit_once('/'))
        .map(|(folder, _)| {
            // `vendor` has links to what is in `staging`.
            let folder = folder.replacen("staging/src/", "vendor/", 1);
            format!("{IMPORT_PATH}/{folder}")
        })
        .collect();
    packages.into_iter().collect()
}

/// A name for everything that the result depends on.
fn recipe_hash() -> String {
    let recipe = format!(
        "{RECIPE} {VERSION} {SUITE:?} {GO:?} {GO_SUITE:?} {ENVIRONMENT:?} {LINKER} {TAGGED_FOLDERS:?} {TAG} \
         {NOT_DESCRIBED:?}"
    );
    let hash = Sha256::digest(recipe);
    hash.iter()
        .take(4)
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tagged_packages_are_import_paths_without_those_described_elsewhere() {
        let files = "pkg/apis/abac/v1beta1/doc.go\n\
            staging/src/k8s.io/api/core/v1/doc.go\n\
            staging/src/k8s.io/api/core/v1/types.go\n\
            staging/src/k8s.io/code-generator/_examples/apiserver/apis/example/v1/doc.go\n\
            staging/src/k8s.io/apiserver/pkg/thing/thing_test.go\n\
            vendor/k8s.io/kube-openapi/pkg/common/common.go\n";
        assert_eq!(
            tagged_packages(files),
            [
                "k8s.io/kubernetes/pkg/apis/abac/v1beta1",
                "k8s.io/kubernetes/vendor/k8s.io/api/core/v1",
                "k8s.io/kubernetes/vendor/k8s.io/kube-openapi/pkg/common",
            ]
        );
    }
}
