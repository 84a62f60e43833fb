//! The terminal user interface, fed with flows of the real engine: what each tab shows, and what keys do.

mod story;

#[path = "tui/keys.rs"]
mod keys;
#[path = "tui/million.rs"]
mod million;
#[path = "tui/recorded.rs"]
mod recorded;
#[path = "tui/screens.rs"]
mod screens;
#[path = "tui/show.rs"]
mod show;
#[path = "tui/views.rs"]
mod views;
