//! A recording on the HTML page and on the screen. Nothing in it becomes markup or a control character.

#![no_main]

use std::{
    io::{self, Cursor},
    ops::ControlFlow,
    path::Path,
};

use libfuzzer_sys::fuzz_target;
use ratatui::{
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyModifiers},
    layout::Rect,
};
use tracer::{
    facts::Facts,
    finding::{
        Clock, Finding, Observer,
        head::Head,
        run::{End, Health, Hooks},
    },
    pipeline::{recordings::Recording, replay},
    report::{html::Page, summary::Collection},
    tui::{
        export,
        flow_update::FlowUpdate,
        message::Msg,
        model::Model,
        theme::{Depth, Theme},
        update::update,
        view::view,
    },
};

struct Outputs {
    page: Page,
    collection: Collection,
    model: Model,
}

impl Observer for Outputs {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.collection.begin(&head.host, &head.kernel);
        self.page.begin(head, vec!["fuzz".to_owned()]);
        let start = Msg::Start {
            sandbox: head
                .sandbox
                .as_ref()
                .map(|sandbox| sandbox.words())
                .unwrap_or_default(),
            host: head.host.clone(),
            kernel: head.kernel.clone(),
            selection: String::new(),
            ports: head.ports.len(),
            hooks: head.hooks.clone(),
            clock: Clock::new(head.wall, head.monotonic_ns),
        };
        update(&mut self.model, start);
        Ok(())
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        self.page.hooks(hooks);
        let (why, hooks) = (hooks.why.clone(), hooks.hooks.clone());
        update(&mut self.model, Msg::Hooks { why, hooks });
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        self.collection.add(finding);
        self.page.add(finding);
        update(&mut self.model, Msg::Flow(Box::new(FlowUpdate::of(finding))));
        Ok(())
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        self.page.health(health);
        let lost = health.lost_by_hook.clone();
        update(&mut self.model, Msg::Lost(lost, health.evicted.total()));
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        self.page.damage(what);
        update(&mut self.model, Msg::Notice(what.to_owned()));
        Ok(())
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        self.collection.end(end);
        Ok(())
    }

    fn now(&mut self, now_ns: u64) -> io::Result<ControlFlow<()>> {
        update(&mut self.model, Msg::Now(now_ns));
        Ok(ControlFlow::Continue(()))
    }

    fn facts(&mut self, facts: &Facts) {
        self.page.facts(facts);
    }
}

fuzz_target!(|bytes: &[u8]| {
    // Seeds are recordings.
    let payload = tracer_fuzz::items(bytes).unwrap_or_else(|| bytes.to_vec());
    let recording = tracer_fuzz::recording(&[&payload]);
    let Ok(recording) = Recording::read_from(Path::new("fuzz"), Box::new(Cursor::new(recording))) else {
        return;
    };
    let area = Rect::new(0, 0, 100, 30);
    let theme = Theme {
        depth: Depth::Mono,
        is_ascii: bytes.len() % 2 == 0,
    };
    let mut outputs = Outputs {
        page: Page::default(),
        collection: Collection::default(),
        model: Model::new(theme, (area.width, area.height)),
    };
    let _ = replay::play(vec![recording], &mut outputs);
    let page = outputs.page.render(&outputs.collection.summary());
    assert!(
        !page.contains(|c: char| c.is_control() && c != '\n'),
        "a control character on the page"
    );
    let scripts = page.matches("<script").count();
    assert_eq!(scripts, 1, "a script on the page");
    let keys = ['1', '2', '\n', 'j', 'j', '4', '5', '?'];
    for key in keys {
        let code = if key == '\n' {
            KeyCode::Enter
        } else {
            KeyCode::Char(key)
        };
        update(&mut outputs.model, Msg::Key(code, KeyModifiers::NONE));
        let mut buffer = Buffer::empty(area);
        view(&outputs.model, area, &mut buffer);
        let cells = buffer.content().iter();
        assert!(
            cells
                .into_iter()
                .all(|cell| !cell.symbol().contains(char::is_control)),
            "a control character"
        );
        let _ = (export::command(&outputs.model), export::copy(&outputs.model));
    }
});
