//! `tracer diff`: two recordings, before and after a change.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    slice,
};

use super::{args::DiffOptions, confined, exit::Failure, output};
use crate::{
    confine::reading::Needs,
    finding::{Finding, Observer, head::Head, run::End, selection::Selection},
    pipeline::{recordings::Inputs, replay},
    report::{
        diff::{self, Difference, Side},
        escape,
    },
};

/// Reads both recordings and writes the difference.
pub(super) fn run(options: &DiffOptions) -> Result<(), Failure> {
    let files: Vec<PathBuf> = vec![options.before.clone(), options.after.clone()];
    let inputs = [&options.before, &options.after].map(|file| Inputs::open(slice::from_ref(file)));
    let [before, after] = inputs;
    let inputs = [before?, after?];
    let path = options.html.as_deref().filter(|path| *path != Path::new("-"));
    let out = output::open(path, &files, options.force)?;
    let output = out.path().map(ToOwned::to_owned);
    let mut reading = confined::confine(Needs {
        screen: false,
        output: output.as_deref(),
    });
    let [before, after] = [inputs[0].runs()?, inputs[1].runs()?];
    let mut out = out.begin()?;
    reading.output_is_named();
    let mut sides = Vec::new();
    for (runs, file) in [before, after].into_iter().zip(&files) {
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        let mut view = Gather {
            selection: options.select.selection(),
            side: Side::new(name.into_owned()),
        };
        for run in runs {
            replay::play(run, &mut view)?;
        }
        sides.push(view.side);
    }
    let [before, after] = sides.as_slice() else {
        return Ok(());
    };
    let difference = Difference::of(before, after);
    if options.html.is_some() {
        out.write_all(diff::page(&difference).as_bytes())?;
    } else if options.json {
        writeln!(out, "{}", escape::json(&difference).map_err(io::Error::from)?)?;
    } else {
        out.write_all(diff::text(&difference).as_str().as_bytes())?;
    }
    Ok(out.flush()?)
}

/// Collects the connections of one recording.
struct Gather {
    selection: Selection,
    side: Side,
}

impl Observer for Gather {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.side.begin(head);
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        self.side.add(finding, self.selection.wants(finding));
        Ok(())
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        self.side.end(end);
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        output::warn(what);
        self.side.add_damage(what);
        Ok(())
    }
}
