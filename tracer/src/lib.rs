//! tracer: the user half.
