//! Flows for readers: lines and a page for people, and JSON lines for programs. Pure: text in, text out.

pub mod attempts;
pub mod escape;
pub mod html;
pub mod joined;
pub mod json;
pub mod ladder;
pub mod lines;
pub mod path;
pub mod plain;
pub mod summary;
pub mod time;
