//! The virtual machine: which packages make a kernel, the initramfs, QEMU.

pub mod cpio;
pub mod elf;
pub mod initramfs;
pub mod kernels;
pub mod modules;
pub mod qemu;
pub mod run;

use std::path::PathBuf;

/// Where a program is on this machine: in `PATH`, or in the folders for administrators, which users lack there.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
