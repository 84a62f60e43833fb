//! The terminal user interface: what dies, why, and the way of each flow through the kernel.
//!
//! [`model::Model`] is fed with messages ([`message::Msg`]) by [`update::update`], which answers with commands, and
//! drawn by [`view::view`]. These do no input or output and know of no clock: live tracing, a recording and a test send
//! the same messages. [`screen`] owns the terminal.

pub mod export;
pub mod filter;
pub mod keys;
pub mod list;
pub mod message;
pub mod model;
pub mod names;
pub mod observer;
pub mod playback;
pub mod row;
pub mod screen;
pub mod store;
pub mod story;
pub mod text;
pub mod theme;
pub mod totals;
pub mod update;
pub mod view;
