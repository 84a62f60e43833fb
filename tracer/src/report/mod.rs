//! Flows for readers: lines and a page for people, JSON for programs. Opens no files: output goes to any writer.

pub mod attempts;
pub mod diff;
pub mod escape;
pub mod hazards;
pub mod html;
pub mod joined;
pub mod json;
pub mod ladder;
pub mod lines;
pub mod path;
pub mod plain;
pub mod summary;
pub mod time;
