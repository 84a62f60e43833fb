//! `tracer live`: trace now, and print each flow.

use std::io;

use anyhow::Context as _;

use super::{
    args::LiveOptions,
    exit::Failure,
    lines::{Form, Lines},
    record, session,
};
use crate::trace::{recorder::Sink, rotate::Files};

/// Attaches, traces until a signal comes, and detaches.
pub(super) fn run(options: &LiveOptions) -> Result<(), Failure> {
    let form = if options.json {
        Form::Json
    } else {
        Form::Plain {
            verbose: options.verbose,
        }
    };
    let sink = options.output.as_deref().map(|path| {
        let files = Files::open(path, None, None).with_context(|| record::cannot_write(path))?;
        Ok::<_, anyhow::Error>(Box::new(files) as Box<dyn Sink>)
    });
    let mut lines = Lines::new(io::stdout(), form, &options.select);
    session::run(&options.select, options.patience, &mut lines, sink.transpose()?)?;
    lines.fail_on(options.fail_on)
}
