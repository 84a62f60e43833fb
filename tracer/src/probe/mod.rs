//! From the kernel to records: where its fields lie, which hooks it offers, and the ring buffer.

pub mod attach;
pub mod btf;
pub mod costs;
pub mod demand;
pub mod fallback;
pub mod ipvs_proof;
mod kernel_log;
pub mod late;
mod links;
mod object;
pub mod offsets;
pub mod plan;
pub mod ring;
pub mod survey;
pub mod watch;
