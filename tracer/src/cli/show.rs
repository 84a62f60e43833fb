//! `tracer show`: the way of one flow of a recording.

use std::io::{self, Write as _};

use anyhow::anyhow;

use super::{
    args::ShowOptions,
    exit::Failure,
    play,
    view::{Told, View},
};
use crate::{
    report::ladder,
    trace::{
        head::Head,
        item::{End, Health, Hooks},
    },
};

/// Plays the recording and shows what was last told of the flow.
pub(super) fn run(options: &ShowOptions) -> Result<(), Failure> {
    let mut view = One {
        id: options.id,
        text: None,
        flows: 0,
    };
    for run in play::open(std::slice::from_ref(&options.file))? {
        play::play(run, &mut view)?;
    }
    let Some(text) = view.text else {
        return Err(Failure::Failed(anyhow!(
            "{} tells of no flow {}; its flows have numbers up to {}",
            options.file.display(),
            options.id,
            view.flows
        )));
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

struct One {
    id: u64,
    text: Option<String>,
    /// The highest number of a flow.
    flows: u64,
}

impl View for One {
    fn start(&mut self, _: &Head) -> Result<(), Failure> {
        Ok(())
    }

    fn hooks(&mut self, _: &Hooks) -> Result<(), Failure> {
        Ok(())
    }

    fn flow(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        self.flows = self.flows.max(told.flow.id);
        if told.flow.id == self.id {
            let text = ladder::flow(told.flow, told.fate, &told.diagnosis, told.facts, told.clock);
            self.text = Some(text);
        }
        Ok(())
    }

    fn health(&mut self, _: &Health) -> Result<(), Failure> {
        Ok(())
    }

    fn end(&mut self, _: &End) -> Result<(), Failure> {
        Ok(())
    }
}
