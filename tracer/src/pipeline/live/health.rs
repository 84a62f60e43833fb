//! Counters of a live run: records, losses, skipped probes and evictions.

use std::collections::BTreeMap;

use anyhow::Context as _;
use tracer_common::hook::Hook;

use crate::{
    decode::event::{Event, Payload},
    finding::run::{End, Health},
    flow::engine::Engine,
    pipeline::error::PipelineError,
    probe::attach::Probe,
};

/// Reads the counters, except those of skipped probes.
pub(super) fn read(
    probe: &Probe,
    engine: &Engine,
    events: u64,
    received: u64,
) -> Result<Health, PipelineError> {
    let lost = probe.lost().context("cannot read the loss counters")?;
    let refused = probe.flow_table().refused();
    Ok(Health {
        time: jiff::Timestamp::now(),
        events,
        received: Some(received),
        lost_by_hook: counts(lost),
        missed: None,
        refused: counts(refused.context("cannot read the counters of the table of flows")?),
        evicted: engine.evicted().clone(),
    })
}

/// How often the kernel skipped probes, by hook; `None` if it does not count that.
pub(super) fn missed(probe: &Probe) -> Option<Vec<(String, u64)>> {
    probe.missed().map(counts)
}

/// The last counters, for the end of the run.
pub(super) fn end(now_ns: u64, health: Health) -> End {
    End {
        now_ns,
        events: health.events,
        lost: health.lost(),
        received: health.received,
        lost_by_hook: health.lost_by_hook,
        missed: health.missed,
        refused: health.refused,
        evicted: health.evicted,
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
