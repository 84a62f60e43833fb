//! `tracer report`: what happened in a recording.

use std::io::{self, Write as _};

use super::{
    args::{ReportOptions, Select},
    exit::Failure,
    play, select,
    view::{Told, View},
};
use crate::{
    report::summary::{self, Collection},
    trace::{
        head::Head,
        item::{End, Health, Hooks},
    },
};

/// Plays the recordings and sums up.
pub(super) fn run(options: &ReportOptions) -> Result<(), Failure> {
    let mut view = Gather {
        select: options.select.clone(),
        collection: Collection::default(),
    };
    for run in play::open(&options.files)? {
        play::play(run, &mut view)?;
    }
    let summary = view.collection.summary();
    let mut out = io::stdout().lock();
    if options.json {
        serde_json::to_writer(&mut out, &summary).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        out.write_all(summary::text(&summary).as_bytes())?;
    }
    Ok(out.flush()?)
}

struct Gather {
    select: Select,
    collection: Collection,
}

impl View for Gather {
    fn start(&mut self, head: &Head) -> Result<(), Failure> {
        self.collection.begin(&head.host, &head.kernel, head.patience_ns);
        Ok(())
    }

    fn hooks(&mut self, _: &Hooks) -> Result<(), Failure> {
        Ok(())
    }

    fn flow(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        if select::is_wanted(&self.select, told) {
            self.collection
                .add(told.flow, told.fate, &told.diagnosis, told.facts, told.clock);
        }
        Ok(())
    }

    fn health(&mut self, _: &Health) -> Result<(), Failure> {
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), Failure> {
        self.collection.end(end.events, end.lost);
        Ok(())
    }
}
