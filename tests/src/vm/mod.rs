//! The virtual machine: which packages make a kernel, the initramfs, QEMU.

mod ipvs_flavour;
pub mod kernels;
