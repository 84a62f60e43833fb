//! The QEMU that boots the guests: the machine's own, or a newer build for the same libraries if that is too
//! old.
//!
//! Before 8.1, a guest with several emulated processors could continue with stale translations of code that
//! another processor had just patched. A kernel that attaches probes patches itself all the time: guests with
//! 5.10 and 6.12 hit a breakpoint that was already removed, and crashed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::packages::host::{self, Program};
use crate::packages::{Cache, Dependencies, Suite, Version, unpack};

/// The program that boots the guests.
pub const PROGRAM: Program = Program {
    name: "qemu-system-x86_64",
    package: "qemu-system-x86",
};

/// The first version without that bug.
const FIRST_GOOD: &str = "8.1";

/// The packages of a QEMU that boots PCs. It uses the libraries of the machine's own QEMU.
const PACKAGES: [&str; 4] = [
    "qemu-system-x86",
    "qemu-system-common",
    "qemu-system-data",
    "seabios",
];

/// Returns the program to run.
pub(super) fn find(cache: &Cache) -> Result<PathBuf> {
    let own = host::find(PROGRAM.name).with_context(|| format!("{} is not installed", PROGRAM.name))?;
    let version = version(&own)?;
    if version >= Version::new(FIRST_GOOD) {
        return Ok(own);
    }
    match newer(cache) {
        Ok(newer) => Ok(newer),
        Err(error) => {
            eprintln!(
                "    QEMU  using the machine's own {version}, older than {FIRST_GOOD} (a guest may crash while probes are \
                 attached), because no newer one is available: {error:#}"
            );
            Ok(own)
        }
    }
}

fn newer(cache: &Cache) -> Result<PathBuf> {
    let tree = unpack(cache, &[Suite::BOOKWORM_BACKPORTS], &PACKAGES, Dependencies::None)?;
    let program = tree.root.join("usr/bin").join(PROGRAM.name);
    let version = version(&program)?;
    ensure!(version >= Version::new(FIRST_GOOD), "its version is {version}");
    Ok(program)
}

/// The version that the program reports.
pub(super) fn version(program: &Path) -> Result<Version> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let output_text = String::from_utf8_lossy(&output.stdout);
    parse_version(&output_text).with_context(|| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        format!(
            "{} does not report its version: {}",
            program.display(),
            stderr.trim()
        )
    })
}

fn parse_version(output_text: &str) -> Option<Version> {
    let version = output_text
        .split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)?;
    version
        .starts_with(|first: char| first.is_ascii_digit())
        .then(|| Version::new(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed_and_compared() {
        let of = |text: &str| parse_version(text);
        let old =
            of("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c)").unwrap();
        let new = of("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)").unwrap();
        assert!(old < Version::new(FIRST_GOOD) && new >= Version::new(FIRST_GOOD));
        assert!(of("").is_none() && of("QEMU emulator version unknown").is_none());
    }
}
