//! Which programs of the machine itself our commands call, and the packages that have them.
//!
//! What is missing is installed, or named, by [`tracer_lab::packages::host::ensure_programs`].

use std::path::Path;

use anyhow::Result;
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

/// Sees to all that the lab needs of the machine.
pub(crate) fn ensure_lab() -> Result<()> {
    host::ensure_programs(&LAB)?;
    // No program, so nothing that could be found as one.
    if !Path::new(KEYRING.name).exists() {
        host::ensure_programs(&[KEYRING])?;
    }
    Ok(())
}
