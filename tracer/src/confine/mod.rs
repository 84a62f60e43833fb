//! Confinement: before untrusted input is read, a command gives up what it does not need any more.
//!
//! `live` and `record` do so once they are attached ([`tracing`]), commands that read recordings before they parse the first
//! byte ([`reading`]). A kernel or container that refuses a restriction does not stop tracer: what is in force is reported.

mod capabilities;
pub mod denied;
mod filter;
mod folder;
mod paths;
pub mod reading;
mod system_calls;
pub mod tracing;
