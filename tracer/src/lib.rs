//! tracer: the user half.

pub mod node;
pub mod probe;
