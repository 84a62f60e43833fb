//! The provenance file next to the object: its sources and the tools that built it.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{identity::Identity, toolchain::Toolchain};

const HEADER: &str = "\
# Written by `cargo xtask build-ebpf`: the hash of tracer.bpf.o, the hash of its sources, and its toolchain.
# `cargo xtask build-ebpf --check` proves that a rebuild gives the same bytes.
";

/// The contents of tracer.bpf.toml.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Provenance {
    /// The SHA-256 of the object, in hexadecimal.
    pub(super) sha256: String,
    /// The hash of its sources, in hexadecimal: see [`super::sources`].
    pub(super) sources: String,
    pub(super) toolchain: Identity,
}

impl Provenance {
    pub(super) fn of(toolchain: &Toolchain, object: &[u8], sources: String) -> Self {
        Self {
            sha256: sha256(object),
            sources,
            toolchain: toolchain.identity().clone(),
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("invalid provenance")
    }

    pub(super) fn to_text(&self) -> Result<String> {
        Ok(format!("{HEADER}\n{}", toml::to_string(self)?))
    }
}

/// The SHA-256 of these bytes, in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provenance_survives_a_round_trip() {
        let toolchain = Identity {
            rustc: "rustc 1.96.0 (ac68faa20 2026-05-25)".to_owned(),
            llvm: "22.1.8".to_owned(),
            bpf_linker: "0.13.0".to_owned(),
            debian_rust: "1.96.0+dfsg1-1~deb12u2".to_owned(),
            debian_llvm: "1:22.1.8-1~deb12u1".to_owned(),
        };
        let written = Provenance {
            sha256: sha256(b""),
            sources: sha256(b"x"),
            toolchain,
        };
        assert_eq!(Provenance::parse(&written.to_text().unwrap()).unwrap(), written);
        assert!(Provenance::parse("sha256 = \"\"").is_err());
    }
}
