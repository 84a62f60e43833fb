//! tracer: the user half.

pub mod probe;
