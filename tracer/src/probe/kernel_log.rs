//! Messages of the debug build of the kernel half. The release object has none.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use crate::report::escape::note;

/// Prints the messages of a debug object to stderr.
pub(super) struct KernelLog(EbpfLogger<Stderr>);

impl KernelLog {
    /// `None` if the object has no messages.
    pub(super) fn of(ebpf: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(ebpf, Stderr).ok().map(Self)
    }

    /// Prints the pending messages.
    pub(super) fn print(&mut self) {
        self.0.flush();
    }
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        note(format_args!("kernel half: {}", record.args()));
    }

    fn flush(&self) {}
}
