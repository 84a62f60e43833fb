//! Programs that must be installed on the machine, and their packages.
//!
//! [`tracer_lab::packages::host::ensure_programs`] installs what is missing, or prints the command that does.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tracer_lab::packages::host::{self, Program};
use tracer_lab::vm::qemu;

/// Debian's keys, which apt needs to verify packages. Ubuntu does not install them by default.
const KEYRING: Program = Program {
    name: "/usr/share/keyrings/debian-archive-keyring.gpg",
    package: "debian-archive-keyring",
};

/// Programs that fetch packages and boot guests.
const LAB: [Program; 5] = [
    qemu::PROGRAM,
    Program {
        name: "apt-get",
        package: "apt",
    },
    Program {
        name: "dpkg-deb",
        package: "dpkg",
    },
    Program {
        name: "gpgv",
        package: "gpgv",
    },
    Program {
        name: "setpriv",
        package: "util-linux",
    },
];

/// Installs tmux, the terminal of the screen test.
pub(crate) fn ensure_terminal() -> Result<()> {
    host::ensure_programs(&[Program {
        name: "tmux",
        package: "tmux",
    }])
}

/// Names of a headless browser, Debian's first.
const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
];

/// A font. Without one, a page has no width.
const FONT: Program = Program {
    name: "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    package: "fonts-dejavu-core",
};

/// A headless browser, installed if there is none.
pub(crate) fn browser() -> Result<PathBuf> {
    ensure_file(FONT)?;
    let find = || BROWSERS.iter().find_map(|name| host::find(name));
    if find().is_none() {
        host::ensure_programs(&[Program {
            name: BROWSERS[0],
            package: "chromium",
        }])?;
    }
    find().context("cannot find chromium, although its package is installed")
}

/// Installs the programs that the lab needs.
pub(crate) fn ensure_lab() -> Result<()> {
    host::ensure_programs(&LAB)?;
    ensure_file(KEYRING)
}

/// Installs the package of a file that is not a program.
fn ensure_file(file: Program) -> Result<()> {
    if !Path::new(file.name).exists() {
        host::ensure_programs(&[file])?;
    }
    Ok(())
}
