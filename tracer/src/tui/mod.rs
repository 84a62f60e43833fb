//! The terminal user interface: failures, their causes, and the path of each flow through the kernel.
//!
//! [`update::update`] applies messages ([`message::Msg`]) to [`model::Model`] and returns commands; [`view::view`] draws
//! the model. They do no I/O and read no clock: live tracing, replay and tests send the same messages. [`screen`] owns
//! the terminal.

pub mod export;
pub mod filter;
pub mod flow_detail;
pub mod flow_update;
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
pub mod text;
pub mod theme;
pub mod totals;
pub mod update;
pub mod view;
