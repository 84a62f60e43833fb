//! Which programs of the machine itself our commands call, and the packages that have them.
//!
//! What is missing is installed, or named, by [`tracer_lab::packages::host::ensure_programs`].

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tracer_lab::packages::host::{self, Program};
use tracer_lab::vm::qemu;

/// Debian's keys, without which apt trusts none of its packages. Ubuntu does not have them by itself.
const KEYRING: Program = Program {
    name: "/usr/share/keyrings/debian-archive-keyring.gpg",
    package: "debian-archive-keyring",
};

/// What fetching packages and booting guests needs.
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

/// Sees to the terminal on which the screen is tried.
pub(crate) fn ensure_terminal() -> Result<()> {
    host::ensure_programs(&[Program {
        name: "tmux",
        package: "tmux",
    }])
}

/// Browsers that show a page without a screen: Debian's, and what others call it.
const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
];

/// Letters for it. Without any, a page has no width.
const FONT: Program = Program {
    name: "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    package: "fonts-dejavu-core",
};

/// The browser that looks at pages, which is installed if there is none.
pub(crate) fn browser() -> Result<PathBuf> {
    ensure_file(FONT)?;
    let find = || BROWSERS.iter().find_map(|name| host::find(name));
    if find().is_none() {
        host::ensure_programs(&[Program {
            name: BROWSERS[0],
            package: "chromium",
        }])?;
    }
    find().context("the package chromium has no program of that name")
}

/// Sees to all that the lab needs of the machine.
pub(crate) fn ensure_lab() -> Result<()> {
    host::ensure_programs(&LAB)?;
    ensure_file(KEYRING)
}

/// Sees to what is no program, so nothing that could be found as one.
fn ensure_file(file: Program) -> Result<()> {
    if !Path::new(file.name).exists() {
        host::ensure_programs(&[file])?;
    }
    Ok(())
}
