//! `tracer live`: trace now, and show each flow: on a screen where there is a terminal, else as lines.

use std::io;

use anyhow::Context as _;

use super::{
    args::{LiveOptions, look::Look},
    exit::Failure,
    lines::{Form, Lines},
    record, session,
    watcher::Watcher,
};
use crate::trace::{recorder::Sink, rotate::Files};

/// Attaches, traces until a signal comes or the user ends it, and detaches.
pub(super) fn run(options: &LiveOptions) -> Result<(), Failure> {
    let sink = options.output.as_deref().map(|path| {
        let files = Files::open(path, None, None).with_context(|| record::cannot_write(path))?;
        Ok::<_, anyhow::Error>(Box::new(files) as Box<dyn Sink>)
    });
    let sink = sink.transpose()?;
    if !options.json && !options.plain && !options.verbose && Look::has_terminal() {
        let mut watcher = Watcher::new(&options.look, &options.select);
        session::run(&options.select, options.patience, &mut watcher, sink)?;
        return watcher.fail_on(options.fail_on);
    }
    let form = if options.json {
        Form::Json
    } else {
        Form::Plain {
            verbose: options.verbose,
        }
    };
    let mut lines = Lines::new(io::stdout(), form, &options.select);
    session::run(&options.select, options.patience, &mut lines, sink)?;
    lines.fail_on(options.fail_on)
}
