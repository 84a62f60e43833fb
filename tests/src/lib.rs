//! The lab: real kernels in QEMU, real SYNs that die, and what tracer must say of them.
//!
//! Host side: [`packages`] fetches Debian packages, [`vm`] boots a kernel with them, [`expect`] judges what
//! tracer said. Guest side: [`guest`] is PID 1 of the VM and plays a [`scenario`].

pub mod expect;
pub mod guest;
pub mod packages;
pub mod protocol;
pub mod scenario;
pub mod vm;
