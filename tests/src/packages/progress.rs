//! How far a long piece of work is: a bar on a terminal, a line for each piece elsewhere.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One piece of work that takes a while.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Work whose end is not known; `what` is said at once.
    #[must_use]
    pub fn spinner(what: &str) -> Self {
        Self::start(what, "{spinner} {msg} {elapsed}", None)
    }

    /// Work that counts to 100 %; `what` is said at once.
    #[must_use]
    pub fn percent(what: &str) -> Self {
        Self::start(
            what,
            "{spinner} {msg} [{bar:30}] {percent} % {elapsed}",
            Some(1000),
        )
    }

    fn start(what: &str, template: &str, length: Option<u64>) -> Self {
        if !stderr().is_terminal() {
            eprintln!("{what}");
            return Self { bar: None };
        }
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let bar = bar
            .with_style(style.progress_chars("=> "))
            .with_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(150));
        Self { bar: Some(bar) }
    }

    /// Sets how far the work is, in thousandths.
    pub fn set_permille(&self, permille: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(permille);
        }
    }

    /// Replaces what the bar says; silent where there is no bar.
    pub fn say(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
