//! The report as a page: what is on it, that nothing that was recorded can do anything there, and (where there is a
//! browser) what it looks like in one.

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
