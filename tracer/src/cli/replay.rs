//! `tracer replay`: each flow of a recording, as `live` would have shown it.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
    thread,
};

use anyhow::{Context as _, anyhow};

use super::{
    args::{ReplayOptions, screen::ScreenOptions},
    confined,
    exit::{self, Failure},
};
use crate::{
    confine::reading::Needs,
    finding::{outcome::Outcome, selection::Selection, totals::Totals},
    pipeline::{
        merge,
        recordings::{Inputs, Run},
        replay::{self, Played},
        signals::Signals,
    },
    report::{
        escape::note,
        lines::{Form, Lines},
    },
    tui::{
        playback::{Player, control::Control, scan::Scan},
        screen::terminal,
    },
};

/// Replays the recordings; those of several runs are merged by wall-clock time.
pub(super) fn run(options: &ReplayOptions) -> Result<(), Failure> {
    if !options.json && !options.plain && !options.verbose && ScreenOptions::has_terminal() {
        return on_screen(options);
    }
    let form = if options.json {
        Form::Json
    } else {
        Form::Plain {
            verbose: options.verbose,
        }
    };
    let runs = confined::runs(&options.files)?;
    let mut out = BufWriter::new(io::stdout().lock());
    print(
        runs,
        &mut out,
        form,
        &options.select.selection(),
        &options.fail_on,
    )
}

/// Prints each flow of these recordings.
pub(super) fn print(
    runs: Vec<Run>,
    out: &mut impl Write,
    form: Form,
    selection: &Selection,
    fail_on: &[Outcome],
) -> Result<(), Failure> {
    if runs.len() > 1 {
        let all = merge::write(runs, out, |host, width| {
            Lines::new(Vec::new(), form, selection)
                .of_recording()
                .of_host(host, width)
        })?;
        return all
            .iter()
            .try_for_each(|lines| exit::fail_on(fail_on, lines.totals()));
    }
    for run in runs {
        let mut lines = Lines::new(&mut *out, form, selection).of_recording();
        replay::play(run, &mut lines)?;
        exit::fail_on(fail_on, lines.totals())?;
    }
    Ok(())
}

/// Shows the recording on the screen until the user quits.
fn on_screen(options: &ReplayOptions) -> Result<(), Failure> {
    let inputs = Inputs::open(&options.files)?;
    if let Some(path) = inputs.unrewindable() {
        let what = if path == Path::new("-") {
            "on standard input".to_owned()
        } else {
            format!("in the pipe {}", path.display())
        };
        return Err(Failure::Usage(format!(
            "cannot scrub a recording {what}: give a file, or use --plain"
        )));
    }
    confined::confine(Needs {
        screen: true,
        output: None,
    });
    note("reading the recording");
    let selection = options.select.selection();
    let mut scan = Scan::new(&selection);
    let runs = inputs.runs()?;
    if runs.len() != 1 {
        return Err(Failure::Usage(
            "cannot show several runs on one screen: give the recordings of one run, or use --plain"
                .to_owned(),
        ));
    }
    for run in runs {
        replay::play(run, &mut scan)?;
    }
    let control = Arc::new(Control::new(scan.begin_ns, scan.end_ns, scan.failures));
    let signals = Signals::listen(terminal::release).context("cannot handle signals")?;
    let stopped = Arc::clone(&control);
    thread::spawn(move || {
        signals.wait();
        stopped.stop();
    });
    let mut player = Player::open(options.screen.theme(), &selection, control, scan.damage)?;
    let totals = play(&inputs, &mut player)?;
    player.close();
    exit::fail_on(&options.fail_on, &totals)
}

/// Replays the recording, and starts over each time the user seeks backwards.
fn play(inputs: &Inputs, player: &mut Player) -> Result<Totals, Failure> {
    let mut totals = Totals::default();
    loop {
        let run = inputs.runs()?.pop();
        let run = run.ok_or_else(|| Failure::Failed(anyhow!("cannot rewind: the recording changed")))?;
        if replay::play(run, player)? == Played::Whole {
            totals = player.wait_at_end();
        }
        if player.is_over() {
            return Ok(totals);
        }
        player.rewind();
    }
}
