//! Plays a recording from memory through every output at once.

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
    report::{
        json,
        ladder::{self, Ladder},
        plain, summary,
    },
};

/// Plays bytes that may be a recording.
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
        "replay fails only with `Failed`"
    );
    observers.finish();
}

/// Every output about flows.
pub struct Observers {
    capture: Capture<io::Sink>,
    /// Takes a hundred times as long as all other outputs together, so it is not always used.
    table: Option<Table<io::Sink>>,
    collection: summary::Collection,
}

impl Observers {
    /// Empty outputs. Only inputs of some lengths get a table.
    pub fn new(length: usize) -> io::Result<Self> {
        Ok(Self {
            capture: Capture::new(io::sink()),
            table: (length.is_multiple_of(16))
                .then(|| Table::new(io::sink()))
                .transpose()?,
            collection: summary::Collection::default(),
        })
    }

    /// Writes the rest.
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
        self.collection.begin(&head.host, &head.kernel);
        self.capture.begin(head)?;
        self.table.as_mut().map_or(Ok(()), |table| table.begin(head))
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        let _ = json::hooks(None, hooks);
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        let line = json::flow(&json::Run::default(), finding);
        assert!(
            line.starts_with("{\"type\":\"flow\"") && !line.contains('\n'),
            "no JSON line"
        );
        let _ = plain::flow(None, finding, None, true);
        let _ = ladder::text(&Ladder::of(finding));
        self.collection.add(finding);
        self.capture.add(finding)?;
        self.table
            .as_mut()
            .map_or(Ok(()), |table| table.add(finding, true))
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
        self.collection.end(end);
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
