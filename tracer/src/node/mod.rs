//! Facts of the node, as the kernel tells them.

pub mod netns;
