//! From the kernel to records: where its fields lie, which hooks it offers.

pub mod btf;
pub mod ipvs_proof;
pub mod kallsyms;
pub mod modules;
