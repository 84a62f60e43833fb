//! What a toolchain is known by.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// Which toolchain exactly: all that can change the object's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Identity {
    /// The first line of `rustc -vV`.
    pub(super) rustc: String,
    /// The LLVM that rustc and the linker share.
    pub(super) llvm: String,
    pub(super) bpf_linker: String,
    /// The version of Debian's packages rustc-web, cargo-web and libstd-rust-web-dev-bpf.
    pub(super) debian_rust: String,
    /// The version of Debian's package of the LLVM library.
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
