//! Counters of a live run: records, losses, skipped probes and evictions.

use std::collections::BTreeMap;

use anyhow::Context as _;
use tracer_common::hook::Hook;

use super::{Session, monotonic_ns};
use crate::{
    decode::event::{Event, Payload},
    finding::run::{End, Health},
    pipeline::error::PipelineError,
};

impl Session<'_> {
    /// Reports lost records and evicted flows, if there are more than before.
    pub(super) fn health(&mut self) -> Result<(), PipelineError> {
        let by_hook = self.probe.lost().context("cannot read the loss counters")?;
        let mut health = Health {
            time: jiff::Timestamp::now(),
            events: self.events,
            received: Some(self.received),
            lost_by_hook: counts(by_hook),
            missed: None,
            refused: counts(self.refused()?),
            evicted: self.engine.evicted().clone(),
        };
        let (lost, evicted) = (health.lost(), health.evicted.total());
        if lost <= self.lost && evicted <= self.evicted {
            return Ok(());
        }
        health.missed = self.probe.missed().map(counts);
        if lost > self.lost {
            self.lost = lost;
            self.collector.records_lost(monotonic_ns()?);
        }
        self.evicted = evicted;
        if let Some(recorder) = &mut self.recorder {
            recorder.health(&health);
        }
        Ok(self.observer.health(&health)?)
    }

    /// What found no room in the kernel half's table of flows.
    fn refused(&mut self) -> Result<BTreeMap<&'static str, u64>, PipelineError> {
        let refused = self.probe.flow_table().refused();
        Ok(refused.context("cannot read the counters of the table of flows")?)
    }

    /// Makes room in the kernel half's table of flows, if that is due.
    pub(super) fn make_room(&mut self, now_ns: u64) -> Result<(), PipelineError> {
        let engine = &self.engine;
        let made = self.probe.flow_table().tick(|| engine.followed(now_ns));
        Ok(made.context("cannot make room in the table of flows")?)
    }

    /// The counters at the end of the run.
    pub(super) fn end_counters(&mut self) -> Result<End, PipelineError> {
        Ok(End {
            now_ns: monotonic_ns()?,
            events: self.events,
            lost: self.lost,
            received: Some(self.received),
            lost_by_hook: counts(self.probe.lost().context("cannot read the loss counters")?),
            missed: self.probe.missed().map(counts),
            refused: counts(self.refused()?),
            evicted: self.engine.evicted().clone(),
        })
    }
}

/// Whether the event is the record of a packet that arrived from a device; there is one for each.
pub(super) fn is_received(event: &Event) -> bool {
    event.hook == Hook::NetifReceive && matches!(event.payload, Payload::Packet | Payload::Arrival(_))
}

fn counts(by_hook: BTreeMap<&'static str, u64>) -> Vec<(String, u64)> {
    let counted = by_hook.into_iter();
    counted.map(|(hook, count)| (hook.to_owned(), count)).collect()
}
