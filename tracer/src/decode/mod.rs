//! Decodes the bytes of the ring buffer, or of a recording, into events: the same for live and replay. Pure.

pub mod bytes;
pub mod event;
pub mod payload;
pub mod record;
pub mod watch;
