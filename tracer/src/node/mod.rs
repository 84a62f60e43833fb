//! Facts of the node, as the kernel tells them.

pub mod ipvs;
pub mod netns;
pub mod sysctl;
