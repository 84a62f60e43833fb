//! `tracer record`: trace now into a file, and say on stderr how it goes.

use std::{
    io::{self, IsTerminal as _, Write as _, stderr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    args::{RecordOptions, Until},
    exit::Failure,
    output::cannot_write,
};
use crate::{
    finding::{
        Finding, Observer,
        head::Head,
        observer::Progress,
        run::{End, Health, Hooks},
        selection::Selection,
        totals::Totals,
    },
    pipeline::live,
    recording::{
        files::FileSink,
        flight_recorder::FlightRecorder,
        recorder::{ChunkSink, Recorder},
    },
    tui::screen::terminal,
};

/// Attaches, records until it is time to end, and detaches.
pub(super) fn run(options: &RecordOptions) -> Result<(), Failure> {
    let is_row = options.rotate_size.is_some() || options.ring.is_some();
    if is_row && options.output == Path::new("-") {
        return Err(Failure::Usage(
            "standard output is one file: --rotate-size and --ring need another name".to_owned(),
        ));
    }
    // Before anything is attached: what cannot be written is known at once.
    let sink = open(options).with_context(|| cannot_write(&options.output))?;
    let selection = options.select.selection();
    let mut progress = ProgressLine::new(options, &selection);
    let recorder = Box::new(Recorder::new(sink));
    live::run(
        &selection,
        options.patience,
        &mut progress,
        Some(recorder),
        terminal::give_back,
    )?;
    Ok(())
}

fn open(options: &RecordOptions) -> io::Result<Box<dyn ChunkSink>> {
    let path = &options.output;
    if let Some(most) = options.ring {
        return Ok(Box::new(FlightRecorder::open(path, most)?));
    }
    let count = options
        .rotate_count
        .map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    Ok(Box::new(FileSink::open(path, options.rotate_size, count)?))
}

/// Says on stderr how a recording goes, and when it is to end.
struct ProgressLine {
    options: RecordOptions,
    selection: Selection,
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

impl ProgressLine {
    fn new(options: &RecordOptions, selection: &Selection) -> Self {
        Self {
            options: options.clone(),
            selection: selection.clone(),
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

    fn is_awaited(&self, finding: &Finding<'_>) -> bool {
        self.options.until.iter().any(|until| match until {
            Until::Fate(fate) => finding.fate == *fate,
            Until::Cause(cause) => finding.diagnosis.cause == Some(*cause),
        })
    }

    fn so_far(&self, progress: Progress) -> String {
        let lost = match self.lost {
            0 => String::new(),
            lost => format!(", {lost} lost"),
        };
        let flows = match self.totals.flows() {
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

impl Observer for ProgressLine {
    fn start(&mut self, head: &Head) -> io::Result<()> {
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

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        self.say(&format!("{}: {} hooks attached", hooks.why, hooks.attached));
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        if !self.selection.wants(finding) {
            return Ok(());
        }
        self.totals.add(finding);
        if self
            .ends
            .is_none_or(|ends| ends > Instant::now() + self.options.after)
            && self.is_awaited(finding)
        {
            self.ends_by(Some(Instant::now() + self.options.after));
            let cause = finding.diagnosis.cause.map(|cause| format!(", {cause}"));
            self.say(&format!(
                "seen: {} -> {} {}{}; recording goes on for {} s",
                finding.flow.client(),
                finding.flow.node(),
                finding.fate,
                cause.unwrap_or_default(),
                self.options.after.as_secs_f64()
            ));
        }
        Ok(())
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        self.lost = health.lost();
        if !self.is_terminal {
            self.say(&format!("{} records were lost so far", self.lost));
        }
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        // A live run reads no recording.
        self.say(what);
        Ok(())
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
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

    fn is_done(&self) -> bool {
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
