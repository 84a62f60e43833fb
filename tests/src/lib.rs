//! The lab: real kernels in QEMU, real SYNs that fail, and what tracer must report about them.
//!
//! Host side: [`packages`] fetches Debian packages, [`vm`] boots a kernel with them, [`expect`] checks
//! tracer's output. Guest side: [`guest`] is PID 1 of the VM and runs a [`scenario`].

pub mod expect;
pub mod guest;
pub mod packages;
pub mod protocol;
pub mod scenario;
mod tracer_text;
pub mod vm;
