//! A recording out of memory, through everything that is written about flows at once.

use std::{
    io::{self, Cursor},
    ops::ControlFlow,
    path::Path,
};

use tracer::{
    export::{capture::Capture, parquet::Table},
    finding::{
        Finding, Observer,
        head::Head,
        run::{End, Health, Hooks},
    },
    pipeline::{error::PipelineError, recordings::Recording, replay},
    report::{json, ladder, plain, summary},
};

/// Plays what may be a recording.
pub fn play(bytes: &[u8]) {
    let input = Box::new(Cursor::new(bytes.to_vec()));
    let Ok(recording) = Recording::read_from(Path::new("fuzz"), input) else {
        return;
    };
    let Ok(mut observers) = Observers::new(bytes.len()) else {
        return;
    };
    let played = replay::play(vec![recording], &mut observers);
    assert!(
        matches!(played, Ok(_) | Err(PipelineError::Failed(_))),
        "a recording fails in one way"
    );
    observers.finish();
}

/// Everything that is said of flows.
pub struct Observers {
    capture: Capture<io::Sink>,
    /// Takes a hundred times as long as all others together, so it is not always there.
    table: Option<Table<io::Sink>>,
    collection: summary::Collection,
}

impl Observers {
    /// Of nothing so far. Of inputs of some lengths a table is made too.
    pub fn new(length: usize) -> io::Result<Self> {
        Ok(Self {
            capture: Capture::new(io::sink()),
            table: (length.is_multiple_of(16))
                .then(|| Table::new(io::sink()))
                .transpose()?,
            collection: summary::Collection::default(),
        })
    }

    /// Says the rest.
    pub fn finish(mut self) {
        let _ = summary::text(&self.collection.summary());
        self.capture.end().expect("nothing is written");
        if let Some(table) = self.table {
            table.close().expect("nothing is written");
        }
    }
}

impl Observer for Observers {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        let _ = json::start(head);
        self.collection.begin(&head.host, &head.kernel, head.patience_ns);
        self.capture.begin(head)?;
        self.table.as_mut().map_or(Ok(()), |table| table.begin(head))
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        let _ = json::hooks(None, hooks.time, &hooks.why, &hooks.hooks);
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        let Finding {
            flow,
            fate,
            diagnosis,
            facts,
            clock,
        } = *finding;
        let line = json::flow(None, flow, fate, diagnosis, facts, clock);
        assert!(
            line.starts_with("{\"type\":\"flow\"") && !line.contains('\n'),
            "no JSON line"
        );
        let _ = plain::flow(None, flow, fate, diagnosis, facts, clock, true);
        let _ = ladder::flow(flow, fate, diagnosis, facts, clock);
        self.collection.add(flow, fate, diagnosis, facts, clock);
        self.capture.add(flow, fate, diagnosis, facts)?;
        self.table
            .as_mut()
            .map_or(Ok(()), |table| table.add(flow, fate, diagnosis, facts, true))
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        self.capture.lost(health);
        if let Some(table) = &mut self.table {
            table.lost(health);
        }
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        // Printing millions of lines would only take time.
        let _ = json::damage(None, what);
        Ok(())
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        self.collection.end(end.events, end.lost);
        if let Some(table) = &mut self.table {
            table.end(end);
        }
        Ok(())
    }

    fn now(&mut self, now_ns: u64) -> io::Result<ControlFlow<()>> {
        if let Some(table) = &mut self.table {
            table.now(now_ns)?;
        }
        Ok(ControlFlow::Continue(()))
    }
}
