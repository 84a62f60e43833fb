//! The report as a page: its content, its escaping of recorded text, and (with a browser) its layout.

mod story;

#[path = "html/browser.rs"]
mod browser;
#[path = "html/command.rs"]
mod command;
#[path = "html/form.rs"]
mod form;
#[path = "html/page.rs"]
mod page;
#[path = "html/pages.rs"]
mod pages;
