//! Holds the flows that tracer printed against what a scenario expects.
