//! The virtual machine: which packages make a kernel, the initramfs, QEMU.
