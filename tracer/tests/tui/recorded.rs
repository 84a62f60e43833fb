//! The screen of a live run, as it was when a recorded run ended.

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use tracer::{
    finding::{
        Clock, Finding, Observer,
        head::Head,
        run::{Health, Hooks},
    },
    pipeline::{recordings::Inputs, replay},
    tui::{flow_update::FlowUpdate, message::Msg, model::Model, theme::Theme, update::update},
};

struct Recorded {
    model: Model,
}

impl Observer for Recorded {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        let start = Msg::Start {
            host: head.host.clone(),
            kernel: head.kernel.clone(),
            selection: String::new(),
            ports: head.ports.len(),
            hooks: head.hooks.clone(),
            sandbox: String::new(),
            clock: Clock::new(head.wall, head.monotonic_ns),
        };
        update(&mut self.model, start);
        Ok(())
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        let hooks = Msg::Hooks {
            why: hooks.why.clone(),
            hooks: hooks.hooks.clone(),
        };
        update(&mut self.model, hooks);
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        update(&mut self.model, Msg::Flow(Box::new(FlowUpdate::of(finding))));
        Ok(())
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        let lost = health.lost_by_hook.clone();
        update(&mut self.model, Msg::Lost(lost, health.evicted.total()));
        Ok(())
    }

    fn records(&mut self, records: u64) {
        update(&mut self.model, Msg::Records(records));
    }

    fn now(&mut self, now_ns: u64) -> io::Result<ControlFlow<()>> {
        update(&mut self.model, Msg::Now(now_ns));
        Ok(ControlFlow::Continue(()))
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        panic!("the recording is damaged: {what}");
    }
}

/// The screen at the end of a recording of `tests/recordings`.
pub(crate) fn at_end(recording: &str, theme: Theme, width: u16, height: u16) -> Model {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/recordings")
        .join(recording);
    let mut screen = Recorded {
        model: Model::new(theme, (width, height)),
    };
    for run in Inputs::open(&[path])
        .and_then(|inputs| inputs.runs())
        .expect("the recording can be read")
    {
        replay::play(run, &mut screen).expect("the recording can be played");
    }
    screen.model
}
