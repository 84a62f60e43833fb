//! `tracer live`: trace now and show each flow, on a screen if there is a terminal, otherwise as lines.

use std::{io, path::PathBuf, time::Duration};

use anyhow::Context as _;

use super::{
    args::{LiveOptions, screen::ScreenOptions},
    ending::Ending,
    exit::Failure,
    output::cannot_write,
};
use crate::{
    confine::tracing,
    finding::sink::RecordSink,
    pipeline::live::{self, Settings},
    recording::{files::FileSink, output_file::Existing, recorder::Recorder},
    report::{
        escape::note,
        lines::{Form, Lines},
    },
    tui::{observer::ScreenObserver, screen::terminal},
};

/// Attaches, traces until a signal arrives or the user quits, and detaches.
pub(super) fn run(options: &LiveOptions) -> Result<(), Failure> {
    let sink = options.output.as_deref().map(|path| {
        let files = FileSink::open(path, None, None, Existing::for_recording(options.force))
            .with_context(|| cannot_write(path))?;
        Ok::<_, anyhow::Error>(Box::new(Recorder::new(Box::new(files))) as Box<dyn RecordSink>)
    });
    let sink = sink.transpose()?;
    let mut folders: Vec<PathBuf> = options
        .output
        .iter()
        .map(|path| tracing::folder_of(path))
        .collect();
    let selection = options.select.selection();
    if !options.json && !options.plain && !options.verbose && ScreenOptions::has_terminal() {
        // Attaching takes a while.
        note("attaching hooks");
        // The user may export there.
        folders.push(PathBuf::from("."));
        let mut screen = ScreenObserver::new(options.screen.theme(), &selection);
        let mut ending = Ending::new(&mut screen, &selection, &options.end, Duration::ZERO, true)?;
        live::run(
            &selection,
            &Settings {
                patience: options.patience,
                limits: options.memory.limits(),
                depth: options.depth.depth,
                deep_for: options.depth.deep_for,
            },
            &mut ending,
            sink,
            &folders,
            terminal::release,
        )?;
        return ending.finish();
    }
    let form = if options.json {
        Form::Json
    } else {
        Form::Plain {
            verbose: options.verbose,
        }
    };
    let mut lines = Lines::new(io::stdout(), form, &selection);
    let mut ending = Ending::new(&mut lines, &selection, &options.end, Duration::ZERO, false)?;
    live::run(
        &selection,
        &Settings {
            patience: options.patience,
            limits: options.memory.limits(),
            depth: options.depth.depth,
            deep_for: options.depth.deep_for,
        },
        &mut ending,
        sink,
        &folders,
        terminal::release,
    )?;
    ending.finish()
}
