//! The BPF backend: struct offsets (BTF or proven), the hooks the kernel offers, attaching them, and the ring buffer.

pub mod attach;
pub mod btf;
pub mod costs;
pub mod demand;
pub mod flow_table;
pub mod ipvs_proof;
pub mod kernel_info;
mod kernel_log;
pub mod kernel_watch;
mod links;
mod missed;
pub mod module_watch;
mod object;
pub mod offsets;
pub mod plan;
pub mod ring;
pub mod without_btf;
