//! Progress of long operations: a bar on a terminal, otherwise one line per operation.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A long operation.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// An operation of unknown length; `what` is printed at once.
    #[must_use]
    pub fn spinner(what: &str) -> Self {
        Self::start(what, "{spinner} {msg} {elapsed}", None)
    }

    /// An operation that counts to 100 %; `what` is printed at once.
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

    /// Sets the progress, in thousandths.
    pub fn set_permille(&self, permille: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(permille);
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
