//! IPVS with the behaviour of kernels before 5.9, built for a current kernel.
//!
//! Kernels 4.6 to 5.8 drop the SYN of every reused port if IPVS uses conntrack; since 5.9 they do so only if
//! the conntrack entry is an old, confirmed one. No distribution that Debian still archives has such a
//! kernel. So `ip_vs.ko` is built here from Debian's own source of 5.10 with that one condition reverted,
//! against the headers of the very kernel that will load it. Everything else, including the SYN that is
//! dropped after the entry was expired, is the same in 5.10 as before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, bail, ensure};

use crate::packages::host::{Program, ensure_programs};
use crate::packages::progress::Progress;
use crate::packages::{Cache, Dependencies, Suite, Version, unpack};

const PROGRAMS: [Program; 4] = [
    Program {
        name: "gcc",
        package: "gcc",
    },
    Program {
        name: "make",
        package: "make",
    },
    Program {
        name: "strip",
        package: "binutils",
    },
    Program {
        name: "xz",
        package: "xz-utils",
    },
];

/// The condition of `ip_vs_conn_uses_old_conntrack()` in `include/net/ip_vs.h` since 5.9 …
const SINCE_5_9: &str = "if (ct && nf_ct_is_confirmed(ct))";
/// … and that of `ip_vs_conn_uses_conntrack()`, which it replaced.
const BEFORE_5_9: &str = "if (ct && (cp->flags & IP_VS_CONN_F_NFCT))";

/// Builds only `ip_vs.ko`, with our header before the kernel's.
const KBUILD: &str = "\
include $(src)/packaged.mk
obj-m := ip_vs.o
NOSTDINC_FLAGS := -I$(src)/include $(NOSTDINC_FLAGS)
";

/// Environment variables that would affect the build.
const BUILD_ENVIRONMENT: [&str; 8] = [
    "ARCH",
    "CROSS_COMPILE",
    "KBUILD_OUTPUT",
    "KCFLAGS",
    "LOCALVERSION",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
];

/// Builds `ip_vs.ko` with the old condition for the 5.10 kernel with this release and package version, and
/// returns its path.
pub(super) fn build(cache: &Cache, suites: &[Suite], release: &str, version: &Version) -> Result<PathBuf> {
    let _lock = cache.lock("ipvs-pre-5.9")?;
    let folder = cache
        .root()
        .join("ipvs-pre-5.9")
        .join(format!("{release}-{version}"));
    let module = folder.join("ip_vs.ko");
    if module.exists() {
        return Ok(module);
    }
    ensure_programs(&PROGRAMS)?;
    let sources = Sources::unpack(cache, suites, release, version)?;
    let build = folder.join("build");
    if build.exists() {
        fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    }
    fs::create_dir_all(build.join("include/net"))?;

    let progress = Progress::spinner(&format!(
        "building the pre-5.9 ip_vs.ko for {release}, about 20 s"
    ));
    sources.prepare(&build)?;
    sources.make(&build)?;
    sources.compare_symbols(&build)?;
    // The debug information is most of the file, and the guest does not use it.
    run(Command::new("strip")
        .args(["--strip-debug", "-o"])
        .args([&module, &build.join("ip_vs.ko")]))?;
    drop(progress);
    fs::remove_dir_all(&build).ok();
    Ok(module)
}

/// The parts of the kernel's source.
#[derive(Debug)]
struct Sources {
    tarball: PathBuf,
    /// Headers and configuration of this kernel.
    headers: PathBuf,
    /// Headers shared by all kernels of this version.
    common: PathBuf,
    /// Libraries for the programs that come with the headers.
    libraries: PathBuf,
}

impl Sources {
    fn unpack(cache: &Cache, suites: &[Suite], release: &str, version: &Version) -> Result<Self> {
        // The common headers of 5.10.0-46-cloud-amd64 are named after 5.10.0-46.
        let (abi, _) = release
            .split_once("-cloud")
            .with_context(|| format!("{release} is not a cloud kernel"))?;
        let line = "5.10";
        ensure!(release.starts_with(line), "{release} is not a {line} kernel");
        let packages = [
            format!("linux-headers-{release}={version}"),
            format!("linux-headers-{abi}-common={version}"),
            format!("linux-kbuild-{line}={version}"),
            format!("linux-source-{line}={version}"),
            // Needed by linux-kbuild's objtool.
            "libelf1".to_owned(),
        ];
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        let tree = unpack(cache, suites, &packages, Dependencies::None)?;
        let source = tree.root.join("usr/src");
        Ok(Self {
            tarball: source.join(format!("linux-source-{line}.tar.xz")),
            headers: source.join(format!("linux-headers-{release}")),
            common: source.join(format!("linux-headers-{abi}-common")),
            libraries: tree.root.join("usr/lib/x86_64-linux-gnu"),
        })
    }

    /// Puts IPVS's own source and the changed header in place.
    fn prepare(&self, build: &Path) -> Result<()> {
        let member = Path::new(self.tarball.file_name().unwrap_or_default())
            .with_extension("")
            .with_extension("")
            .join("net/netfilter/ipvs");
        run(Command::new("tar")
            .args([
                "--extract",
                "--xz",
                "--no-same-owner",
                "--strip-components=4",
                "--file",
            ])
            .arg(&self.tarball)
            .arg("--directory")
            .args([build, &member]))?;
        fs::rename(build.join("Makefile"), build.join("packaged.mk"))
            .context("the IPVS source has no Makefile")?;
        fs::write(build.join("Kbuild"), KBUILD)?;
        let header = self.common.join("include/net/ip_vs.h");
        let text =
            fs::read_to_string(&header).with_context(|| format!("cannot read {}", header.display()))?;
        fs::write(build.join("include/net/ip_vs.h"), revert_condition(&text)?)?;
        Ok(())
    }

    fn make(&self, build: &Path) -> Result<()> {
        let jobs = available_parallelism().map_or(1, usize::from);
        let mut command = Command::new("make");
        for name in BUILD_ENVIRONMENT {
            command.env_remove(name);
        }
        // The headers' Makefile includes the common one by its installed path.
        command
            .arg(format!("--jobs={jobs}"))
            .arg("--directory")
            .arg(&self.headers)
            .arg("--file")
            .arg(self.common.join("Makefile"))
            .arg(format!("M={}", build.display()))
            // The headers refer to Debian 11's compiler by name.
            .arg("CC=gcc")
            .arg("modules")
            .env("LD_LIBRARY_PATH", &self.libraries);
        run(&mut command)
    }

    /// Checks that the exported symbols' checksums match: otherwise modules that use IPVS would not load.
    fn compare_symbols(&self, build: &Path) -> Result<()> {
        let read = |path: PathBuf| {
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let packaged = read(self.headers.join("Module.symvers"))?;
        let packaged = symbols(&packaged, "net/netfilter/ipvs/ip_vs");
        let built = read(build.join("Module.symvers"))?;
        let built = symbols(&built, &build.join("ip_vs").to_string_lossy());
        ensure!(!packaged.is_empty(), "the headers list no symbols of ip_vs");
        ensure!(
            packaged == built,
            "the symbols of the built module differ from the packaged one's: \
             {built:?} instead of {packaged:?}"
        );
        Ok(())
    }
}

/// Reverts the header to the condition before 5.9.
fn revert_condition(header: &str) -> Result<String> {
    let count = header.matches(SINCE_5_9).count();
    ensure!(
        count == 1,
        "include/net/ip_vs.h contains the condition `{SINCE_5_9}` {count} times, expected 1"
    );
    Ok(header.replace(SINCE_5_9, BEFORE_5_9))
}

/// The checksum and name of each symbol that a module exports, sorted, from a Module.symvers.
fn symbols<'a>(text: &'a str, module: &str) -> Vec<(&'a str, &'a str)> {
    let mut symbols: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (checksum, name) = (fields.next()?, fields.next()?);
            (fields.next()? == module).then_some((name, checksum))
        })
        .collect();
    symbols.sort_unstable();
    symbols
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
    fn only_the_condition_is_reverted() {
        let header =
            "\tct = nf_ct_get(skb, &ctinfo);\n\tif (ct && nf_ct_is_confirmed(ct))\n\t\treturn true;\n";
        let changed = revert_condition(header).unwrap();
        assert!(
            changed.contains("\tif (ct && (cp->flags & IP_VS_CONN_F_NFCT))\n"),
            "{changed}"
        );
        assert_eq!(changed.lines().count(), header.lines().count());
    }

    #[test]
    fn a_changed_header_is_rejected() {
        revert_condition("if (ct)\n").unwrap_err();
        revert_condition(&SINCE_5_9.repeat(2)).unwrap_err();
    }

    #[test]
    fn only_the_modules_own_symbols_are_listed() {
        let text = "0x02\tip_vs_conn_put\tnet/netfilter/ipvs/ip_vs\tEXPORT_SYMBOL\t\n\
            0x01\tip_vs_conn_new\tnet/netfilter/ipvs/ip_vs\tEXPORT_SYMBOL\t\n\
            0x03\tother\tnet/netfilter/ipvs/ip_vs_ftp\tEXPORT_SYMBOL\t\n";
        let found = symbols(text, "net/netfilter/ipvs/ip_vs");
        assert_eq!(found, [("ip_vs_conn_new", "0x01"), ("ip_vs_conn_put", "0x02")]);
    }
}
