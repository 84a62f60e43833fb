//! What fuzz targets call: a recording out of memory, to all views at once. Only there with `--cfg fuzzing`.

use std::{
    io::{self, Cursor},
    path::PathBuf,
};

use super::{
    exit::Failure,
    play::{self, Recording},
    view::{Told, View},
};
use crate::{
    diagnose::Diagnosis,
    export::{capture::Capture, parquet::Table},
    flow::{fate::Fate, model::Flow},
    node::facts::Facts,
    report::{Clock, json, ladder, plain, summary},
    trace::{
        head::Head,
        item::{End, Health, Hooks},
        reader::Reader,
    },
};

/// Plays what may be a recording.
pub fn play(bytes: &[u8]) {
    let input = Box::new(Cursor::new(bytes.to_vec()));
    let Ok(reader) = Reader::new(input as Box<dyn io::Read + Send>) else {
        return;
    };
    let recording = Recording {
        path: PathBuf::from("fuzz"),
        reader,
    };
    let Ok(mut views) = Views::new(bytes.len()) else {
        return;
    };
    let played = play::play(vec![recording], &mut views);
    assert!(
        matches!(played, Ok(()) | Err(Failure::Failed(_))),
        "a recording fails in one way"
    );
    views.end();
}

/// Everything that is said of flows.
pub struct Views {
    capture: Capture<io::Sink>,
    /// Takes a hundred times as long as all others together, so it is not always there.
    table: Option<Table<io::Sink>>,
    collection: summary::Collection,
}

impl Views {
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

    /// Begins with a run.
    pub fn begin(&mut self, head: &Head) -> io::Result<()> {
        let _ = json::start(head);
        self.collection.begin(&head.host, &head.kernel, head.patience_ns);
        self.capture.begin(head)?;
        self.table.as_mut().map_or(Ok(()), |table| table.begin(head))
    }

    /// Says everything of a flow.
    pub fn tell(
        &mut self,
        flow: &Flow,
        fate: Fate,
        diagnosis: &Diagnosis,
        facts: &Facts,
        clock: &Clock,
    ) -> io::Result<()> {
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

    /// Says the rest.
    pub fn end(mut self) {
        let _ = summary::text(&self.collection.summary());
        self.capture.end().expect("nothing is written");
        if let Some(table) = self.table {
            table.close().expect("nothing is written");
        }
    }
}

impl View for Views {
    fn start(&mut self, head: &Head) -> Result<(), Failure> {
        Ok(self.begin(head)?)
    }

    fn hooks(&mut self, hooks: &Hooks) -> Result<(), Failure> {
        let _ = json::hooks(None, hooks.time, &hooks.why, &hooks.hooks);
        Ok(())
    }

    fn flow(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        Ok(self.tell(told.flow, told.fate, &told.diagnosis, told.facts, told.clock)?)
    }

    fn health(&mut self, health: &Health) -> Result<(), Failure> {
        self.capture.lost(health);
        if let Some(table) = &mut self.table {
            table.lost(health);
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), Failure> {
        self.collection.end(end.events, end.lost);
        if let Some(table) = &mut self.table {
            table.end(end);
        }
        Ok(())
    }

    fn now(&mut self, now_ns: u64) -> Result<(), Failure> {
        Ok(self.table.as_mut().map_or(Ok(()), |table| table.now(now_ns))?)
    }
}
