//! What the debug build of the kernel half says. The usual object says nothing.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// The messages of a debug object, on their way to stderr.
pub(super) struct KernelLog(EbpfLogger<Stderr>);

impl KernelLog {
    /// `None` for an object without messages.
    pub(super) fn of(ebpf: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(ebpf, Stderr).ok().map(Self)
    }

    /// Prints what is there.
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
        eprintln!("tracer-ebpf: {}", record.args());
    }

    fn flush(&self) {}
}
