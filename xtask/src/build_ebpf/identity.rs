//! The identity of a toolchain.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// The versions of a toolchain: everything that can change the object's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Identity {
    /// The first line of `rustc -vV`.
    pub(super) rustc: String,
    /// The version of LLVM that rustc and the linker share.
    pub(super) llvm: String,
    /// The version of bpf-linker.
    pub(super) bpf_linker: String,
    /// The version of Debian's packages rustc-web, cargo-web and libstd-rust-web-dev-bpf, which is the same.
    pub(super) debian_rust: String,
    /// The version of Debian's LLVM library package.
    pub(super) debian_llvm: String,
}

impl Display for Identity {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} (Debian {}), LLVM {} (Debian {}), bpf-linker {}",
            self.rustc, self.debian_rust, self.llvm, self.debian_llvm, self.bpf_linker
        )
    }
}
