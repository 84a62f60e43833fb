//! The running kernel: functions, modules, and offsets of struct members.

use std::{io, sync::Arc, thread};

use super::{
    btf::BtfError,
    offsets::Offsets,
    plan::{self, Planned},
    without_btf,
};
use crate::{
    facts::{kallsyms::Symbols, modules::Modules},
    node::{kallsyms, modules},
};

/// Why the kernel could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KernelInfoError {
    /// Its BTF is missing or malformed.
    #[error("cannot use the kernel's BTF")]
    Btf(#[from] BtfError),
    /// Its list of functions cannot be read.
    #[error("cannot read /proc/kallsyms")]
    Symbols(#[source] io::Error),
    /// Its list of modules cannot be read.
    #[error("cannot read the list of modules")]
    Modules(#[source] io::Error),
    /// The thread that reads the kernel while tracing could not be started.
    #[error("cannot start a thread to re-read the kernel's modules")]
    Thread(#[source] io::Error),
}

/// The kernel at one moment. Modules may be loaded and unloaded later.
#[derive(Clone, Debug)]
pub struct KernelInfo {
    /// The kernel's functions by name and address.
    pub symbols: Arc<Symbols>,
    /// The modules that are there.
    pub modules: Modules,
    /// Offsets of struct members.
    pub offsets: Offsets,
}

impl KernelInfo {
    /// Reads the running kernel, without offsets that have to be proven.
    pub fn read() -> Result<Self, KernelInfoError> {
        let modules = modules::read().map_err(KernelInfoError::Modules)?;
        // The two slowest parts, which do not depend on each other.
        let (symbols, offsets) = thread::scope(|scope| {
            let symbols = thread::Builder::new().spawn_scoped(scope, kallsyms::read);
            let offsets = Offsets::from_btf(&modules);
            let symbols = match symbols {
                Ok(reader) => reader
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => kallsyms::read(),
            };
            (symbols, offsets)
        });
        let symbols = Arc::new(symbols.map_err(KernelInfoError::Symbols)?);
        let mut offsets = offsets?;
        offsets.set_variables(&symbols);
        without_btf::propose(&mut offsets, &modules);
        Ok(Self {
            symbols,
            modules,
            offsets,
        })
    }

    /// Whether offsets are missing that [`KernelInfo::prove`] can find.
    #[must_use]
    pub fn is_proof_due(&self) -> bool {
        without_btf::is_proof_due(&self.offsets, &self.modules)
    }

    /// Proves offsets that no BTF describes, by an experiment in a network namespace of its own. May take seconds, at most
    /// [`without_btf::PROOF_LIMIT`].
    pub fn prove(&mut self) {
        without_btf::prove(&mut self.offsets, &self.modules);
    }

    /// The planned state of each hook.
    #[must_use]
    pub fn plan(&self) -> Vec<Planned> {
        plan::plan(&self.symbols, &self.modules, &self.offsets)
    }
}
