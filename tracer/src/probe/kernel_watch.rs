//! Follows modules that are loaded and unloaded while tracing.
//!
//! An unloaded module is noticed at once. After one was loaded, the kernel is read again: its functions and the layout of
//! its structs, on kernels without module BTF by a proof. That takes a while and happens on a thread of its own.

use std::{collections::BTreeSet, thread};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    kernel_info::{KernelInfo, KernelInfoError},
    module_watch::{self, Change, ModuleWatch},
};

/// A new reading of the kernel after modules were loaded or unloaded.
#[derive(Debug)]
pub struct KernelUpdate {
    /// The kernel as it is now.
    pub kernel: KernelInfo,
    /// The modules loaded since the last complete reading.
    pub loaded: Vec<&'static str>,
    /// Whether the reading is complete. If not, another one with the proven offsets follows.
    pub is_complete: bool,
}

/// Reads the kernel, and reads it again whenever modules are loaded or unloaded.
#[derive(Debug)]
pub struct KernelWatch {
    modules: ModuleWatch,
    /// Loaded modules that no complete update has reported yet.
    loaded: BTreeSet<&'static str>,
    /// Whether a thread is reading the kernel.
    is_reading: bool,
    /// Whether a module changed since the last reading began.
    is_outdated: bool,
    sender: UnboundedSender<Reading>,
    readings: UnboundedReceiver<Reading>,
}

/// A result of the reading thread.
#[derive(Debug)]
struct Reading {
    kernel: Result<KernelInfo, KernelInfoError>,
    is_complete: bool,
}

impl KernelWatch {
    /// Starts watching modules. This must come before the kernel is first read, so that no change is missed.
    #[must_use]
    pub fn new() -> Self {
        let (sender, readings) = unbounded_channel();
        Self {
            modules: ModuleWatch::new(module_watch::wanted()),
            loaded: BTreeSet::new(),
            is_reading: false,
            is_outdated: false,
            sender,
            readings,
        }
    }

    /// Reads the kernel on the calling thread, including offsets that have to be proven.
    pub fn read_kernel(&self) -> Result<KernelInfo, KernelInfoError> {
        let mut kernel = KernelInfo::read()?;
        if kernel.is_proof_due() {
            kernel.prove();
        }
        Ok(kernel)
    }

    /// Checks for loaded and unloaded modules, and starts a new reading if there are any. Returns the unloaded ones. Costs
    /// a few microseconds.
    pub fn poll_modules(&mut self) -> Vec<&'static str> {
        let mut unloaded = Vec::new();
        for change in self.modules.changes() {
            match change {
                Change::Unloaded(module) => {
                    self.loaded.remove(module);
                    unloaded.push(module);
                }
                Change::Loaded(module) => drop(self.loaded.insert(module)),
                // It may be the scheduler that a proof lacked.
                Change::Other => {}
            }
            self.is_outdated = true;
        }
        self.start_reading();
        unloaded
    }

    /// Waits for the next reading of the kernel.
    pub async fn update(&mut self) -> Result<KernelUpdate, KernelInfoError> {
        loop {
            let Some(Reading { kernel, is_complete }) = self.readings.recv().await else {
                // Cannot happen: `self.sender` keeps the channel open.
                return std::future::pending().await;
            };
            self.is_reading &= !is_complete;
            if self.is_outdated {
                // A module has changed meanwhile, so another reading follows this one.
                continue;
            }
            let kernel = kernel?;
            let loaded = self.loaded.iter().copied().collect();
            if is_complete {
                self.loaded.clear();
            }
            return Ok(KernelUpdate {
                kernel,
                loaded,
                is_complete,
            });
        }
    }

    /// Starts a thread that reads the kernel, if that is due.
    fn start_reading(&mut self) {
        if !self.is_outdated || self.is_reading {
            return;
        }
        self.is_outdated = false;
        self.is_reading = true;
        let sender = self.sender.clone();
        let read = move || {
            // Nobody receives it if tracing has ended.
            let send = |kernel, is_complete| drop(sender.send(Reading { kernel, is_complete }));
            let mut kernel = match KernelInfo::read() {
                Ok(kernel) => kernel,
                Err(error) => return send(Err(error), true),
            };
            if kernel.is_proof_due() {
                send(Ok(kernel.clone()), false);
                kernel.prove();
            }
            send(Ok(kernel), true);
        };
        if let Err(error) = thread::Builder::new().name("read-kernel".to_owned()).spawn(read) {
            let _ = self.sender.send(Reading {
                kernel: Err(KernelInfoError::Thread(error)),
                is_complete: true,
            });
        }
    }
}

impl Default for KernelWatch {
    fn default() -> Self {
        Self::new()
    }
}
