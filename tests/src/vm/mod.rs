//! The virtual machine: kernels, the initramfs, QEMU.

pub mod cpio;
pub mod elf;
pub mod initramfs;
mod ipvs_flavour;
pub mod kernels;
pub mod kubernetes;
pub mod modules;
pub mod qemu;
mod qemu_program;
pub mod run;
