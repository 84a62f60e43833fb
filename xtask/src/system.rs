//! Which programs of the machine itself our commands call, and the packages that have them.
//!
//! What is missing is installed, or named, by [`tracer_lab::packages::host::ensure_programs`].

use tracer_lab::packages::host::Program;
use tracer_lab::vm::qemu;

/// What fetching packages and booting guests needs.
pub(crate) const LAB: [Program; 5] = [
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
