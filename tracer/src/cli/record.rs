//! `tracer record`: trace now into a file, with progress on stderr.

use std::{
    io::{self, IsTerminal as _, Write as _, stderr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{args::RecordOptions, ending::Ending, exit::Failure, output::cannot_write};
use crate::{
    confine::tracing,
    diagnose::words::count,
    finding::{
        Finding, Observer,
        head::Head,
        observer::Progress,
        run::{End, Health, Hooks},
        selection::Selection,
        totals::Totals,
    },
    flow::rank::Evicted,
    pipeline::live::{self, Settings},
    recording::{
        files::FileSink,
        flight_recorder::FlightRecorder,
        output_file::Existing,
        recorder::{ChunkSink, Recorder},
    },
    report::escape::clean,
    tui::screen::terminal,
};

/// Attaches, records until an end condition is met or a signal arrives, and detaches.
pub(super) fn run(options: &RecordOptions) -> Result<(), Failure> {
    let is_file_set = options.rotate_size.is_some() || options.ring.is_some();
    if is_file_set && options.output == Path::new("-") {
        return Err(Failure::Usage(
            "cannot write several files to standard output: with --rotate-size or --ring, name a file with --output"
                .to_owned(),
        ));
    }
    // An output that cannot be written is reported before anything is attached.
    let sink = open(options).with_context(|| cannot_write(&options.output))?;
    let selection = options.select.selection();
    let mut progress = ProgressLine::new(options, &selection);
    let mut ending = Ending::new(&mut progress, &selection, &options.end, options.after, false)?;
    let recorder = Box::new(Recorder::new(sink));
    live::run(
        &selection,
        &Settings {
            patience: options.patience,
            limits: options.memory.limits(),
            depth: options.depth.depth,
            deep_for: options.depth.deep_for,
        },
        &mut ending,
        Some(recorder),
        &[tracing::folder_of(&options.output)],
        terminal::release,
    )?;
    ending.finish()
}

fn open(options: &RecordOptions) -> io::Result<Box<dyn ChunkSink>> {
    let path = &options.output;
    let existing = Existing::for_recording(options.force);
    if let Some(most) = options.ring {
        return Ok(Box::new(FlightRecorder::open(path, most, existing)?));
    }
    let count = options
        .rotate_count
        .map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    Ok(Box::new(FileSink::open(
        path,
        options.rotate_size,
        count,
        existing,
    )?))
}

/// Reports progress on stderr.
struct ProgressLine {
    options: RecordOptions,
    selection: Selection,
    begun: Instant,
    totals: Totals,
    lost: u64,
    evicted: Evicted,
    last: Progress,
    is_terminal: bool,
    /// Whether there is a progress line on the terminal to overwrite.
    has_line: bool,
}

impl ProgressLine {
    fn new(options: &RecordOptions, selection: &Selection) -> Self {
        Self {
            options: options.clone(),
            selection: selection.clone(),
            begun: Instant::now(),
            totals: Totals::default(),
            lost: 0,
            evicted: Evicted::default(),
            last: Progress::default(),
            is_terminal: stderr().is_terminal(),
            has_line: false,
        }
    }

    /// Prints a permanent line. If nobody can read it, the recording goes on.
    fn print(&mut self, line: &str) {
        let over = if self.has_line { "\r\x1b[K" } else { "" };
        self.has_line = false;
        let _ = writeln!(stderr(), "{over}{}", clean(line));
    }

    /// The evicted flows, as the end of a list.
    fn evictions(&self) -> String {
        match self.evicted.total() {
            0 => String::new(),
            _ => format!(", {}", self.evicted),
        }
    }

    fn summary(&self, progress: Progress) -> String {
        let lost = match self.lost {
            0 => String::new(),
            lost => format!(", {} lost", count(lost, "record")),
        };
        let flows = match self.totals.flows() {
            0 => "no flows".to_owned(),
            flows => count(flows, "flow"),
        };
        let fates = match self.totals.counts().fates() {
            fates if fates.is_empty() => fates,
            fates => format!(" ({fates})"),
        };
        let evicted = self.evictions();
        format!(
            "{}{lost}{evicted}, {flows}{fates}",
            count(progress.events, "record")
        )
    }
}

impl Observer for ProgressLine {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.begun = Instant::now();
        let file = self.options.output.display();
        let target = match self.options.ring {
            Some(_) => format!("memory, written to {file} at the end and on SIGUSR1"),
            None => format!("file {file}"),
        };
        self.print(&format!(
            "recording on {}, kernel {}: {} attached, tracing {}{}; to {target}; Ctrl-C stops",
            head.host,
            head.kernel,
            count(head.attached(), "hook"),
            count(head.ports.len(), "port"),
            head.confined(),
        ));
        Ok(())
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        self.print(&format!(
            "{}: {} attached",
            hooks.why,
            count(hooks.attached, "hook")
        ));
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        if self.selection.wants(finding) {
            self.totals.add(finding);
        }
        Ok(())
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        self.evicted.clone_from(&health.evicted);
        self.lost = health.lost();
        if !self.is_terminal {
            let evicted = self.evictions();
            self.print(&format!("{} lost{evicted} so far", count(self.lost, "record")));
        }
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        // A live run reads no recording.
        self.print(what);
        Ok(())
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        self.evicted.clone_from(&end.evicted);
        self.lost = end.lost;
        let progress = Progress {
            events: end.events,
            ..self.last
        };
        let line = format!(
            "recorded {} to {}",
            self.summary(progress),
            self.options.output.display()
        );
        self.print(&line);
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
            self.summary(progress),
            size(progress.bytes)
        );
        self.has_line = true;
        let mut out = stderr().lock();
        let _ = write!(out, "\r\x1b[K{line}").and_then(|()| out.flush());
    }

    fn matched(&mut self, what: &str) {
        self.print(what);
    }
}

/// A size as text, in units of 1024.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20),
    }
}
