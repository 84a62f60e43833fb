//! What the running kernel offers: functions, modules, and where their structs keep their members.

use std::{io, sync::Arc, thread};

use super::{
    btf::BtfError,
    fallback::{self, Rehearsal},
    offsets::Offsets,
    plan::{self, Planned},
};
use crate::{
    facts::{kallsyms::Symbols, modules::Modules},
    node::{kallsyms, modules},
};

/// Why the kernel could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// Its types.
    #[error("the kernel's BTF cannot be used")]
    Btf(#[from] BtfError),
    /// Its functions.
    #[error("cannot read /proc/kallsyms")]
    Symbols(#[source] io::Error),
    /// Its modules.
    #[error("cannot read the list of modules")]
    Modules(#[source] io::Error),
    /// No thread could be started to look while tracing goes on.
    #[error("cannot start a thread to look at what is new in the kernel")]
    Thread(#[source] io::Error),
}

/// One look at the kernel. Modules may come and go after it.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Functions by name and address.
    pub symbols: Arc<Symbols>,
    /// Modules that are there.
    pub modules: Modules,
    /// Offsets of members.
    pub offsets: Offsets,
}

impl Survey {
    /// Looks. What only a proof can tell is not known yet.
    pub fn take() -> Result<Self, SurveyError> {
        let modules = modules::read().map_err(SurveyError::Modules)?;
        // The two take the most time here, and neither needs the other.
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
        let symbols = Arc::new(symbols.map_err(SurveyError::Symbols)?);
        let mut offsets = offsets?;
        offsets.set_variables(&symbols);
        fallback::propose(&mut offsets, &modules);
        Ok(Self {
            symbols,
            modules,
            offsets,
        })
    }

    /// Could more be learned by [`Survey::prove`]?
    #[must_use]
    pub fn is_proof_due(&self) -> bool {
        fallback::is_proof_due(&self.offsets, &self.modules)
    }

    /// Learns by experiment what the kernel does not describe; takes as long as that takes.
    pub fn prove(&mut self, rehearsal: &Rehearsal) {
        fallback::prove(&mut self.offsets, &self.modules, rehearsal);
    }

    /// What is to become of each hook.
    #[must_use]
    pub fn plan(&self) -> Vec<Planned> {
        plan::plan(&self.symbols, &self.modules, &self.offsets)
    }
}
