//! Who looks on while a recording is made: tells on stderr how it goes, and says when it is to end.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    time::{Duration, Instant},
};

use super::{
    args::{RecordOptions, Until},
    exit::Failure,
    select,
    totals::Totals,
    view::{Progress, Told, View},
};
use crate::trace::{
    head::Head,
    item::{End, Health, Hooks},
};

/// See the module.
pub(super) struct Watch {
    options: RecordOptions,
    begun: Instant,
    /// When it is to end, once that is known.
    ends: Option<Instant>,
    totals: Totals,
    lost: u64,
    last: Progress,
    is_terminal: bool,
    /// Is there a line on the terminal that is written over?
    has_line: bool,
}

impl Watch {
    pub(super) fn new(options: &RecordOptions) -> Self {
        Self {
            options: options.clone(),
            begun: Instant::now(),
            ends: None,
            totals: Totals::default(),
            lost: 0,
            last: Progress::default(),
            is_terminal: stderr().is_terminal(),
            has_line: false,
        }
    }

    fn ends_by(&mut self, moment: Option<Instant>) {
        self.ends = match (self.ends, moment) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// A line that stays. Nobody may be there to read it: that is no reason to end a recording.
    fn say(&mut self, line: &str) {
        let over = if self.has_line { "\r\x1b[K" } else { "" };
        self.has_line = false;
        let _ = writeln!(stderr(), "{over}{line}");
    }

    fn is_awaited(&self, told: &Told<'_>) -> bool {
        self.options.until.iter().any(|until| match until {
            Until::Fate(fate) => told.fate == *fate,
            Until::Cause(cause) => told.diagnosis.cause == Some(*cause),
        })
    }

    fn so_far(&self, progress: Progress) -> String {
        let lost = match self.lost {
            0 => String::new(),
            lost => format!(", {lost} lost"),
        };
        let flows = match self.totals.flows {
            0 => "no flow".to_owned(),
            1 => "1 flow".to_owned(),
            flows => format!("{flows} flows"),
        };
        let fates = match self.totals.counts().fates() {
            fates if fates.is_empty() => fates,
            fates => format!(" ({fates})"),
        };
        format!("{} records{lost}, {flows}{fates}", progress.events)
    }
}

impl View for Watch {
    fn start(&mut self, head: &Head) -> Result<(), Failure> {
        self.begun = Instant::now();
        self.ends_by(self.options.duration.map(|duration| self.begun + duration));
        let where_to = match self.options.ring {
            Some(_) => "memory, written at the end and at SIGUSR1, to",
            None => "file",
        };
        self.say(&format!(
            "recording on {}, kernel {}: {} hooks attached, ports followed: {}; to {where_to} {}; Ctrl-C ends",
            head.host,
            head.kernel,
            head.attached(),
            head.ports.len(),
            self.options.output.display(),
        ));
        Ok(())
    }

    fn hooks(&mut self, hooks: &Hooks) -> Result<(), Failure> {
        self.say(&format!("{}: {} hooks attached", hooks.why, hooks.attached));
        Ok(())
    }

    fn flow(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        if !select::is_wanted(&self.options.select, told) {
            return Ok(());
        }
        self.totals.said(told.flow, told.fate, told.diagnosis.cause);
        if self
            .ends
            .is_none_or(|ends| ends > Instant::now() + self.options.after)
            && self.is_awaited(told)
        {
            self.ends_by(Some(Instant::now() + self.options.after));
            let cause = told.diagnosis.cause.map(|cause| format!(", {cause}"));
            self.say(&format!(
                "seen: {} -> {} {}{}; recording goes on for {} s",
                told.flow.client(),
                told.flow.node(),
                told.fate,
                cause.unwrap_or_default(),
                self.options.after.as_secs_f64()
            ));
        }
        Ok(())
    }

    fn health(&mut self, health: &Health) -> Result<(), Failure> {
        self.lost = health.lost();
        if !self.is_terminal {
            self.say(&format!("{} records were lost so far", self.lost));
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), Failure> {
        self.lost = end.lost;
        let progress = Progress {
            events: end.events,
            ..self.last
        };
        let line = format!(
            "recorded {} to {}",
            self.so_far(progress),
            self.options.output.display()
        );
        self.say(&line);
        Ok(())
    }

    fn progress(&mut self, progress: Progress) {
        self.last = progress;
        if !self.is_terminal {
            return;
        }
        let seconds = self.begun.elapsed().as_secs();
        let time = Duration::from_secs(seconds);
        let line = format!(
            "{:02}:{:02}:{:02}  {}, {}",
            seconds / 3600,
            seconds / 60 % 60,
            time.as_secs() % 60,
            self.so_far(progress),
            size(progress.bytes)
        );
        self.has_line = true;
        let mut out = stderr().lock();
        let _ = write!(out, "\r\x1b[K{line}").and_then(|()| out.flush());
    }

    fn is_over(&self) -> bool {
        self.ends.is_some_and(|ends| Instant::now() >= ends)
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20),
    }
}
