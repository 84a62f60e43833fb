//! The live node as a source of facts.

use crate::{
    facts::Facts,
    finding::sink::RecordSink,
    flow::{fate::Fate, model::Flow},
    node::collect::Collector,
    pipeline::diagnosis::Knowledge,
};

/// Reads the node as flows need it, and records what it reads.
pub(super) struct Node<'a> {
    pub(super) collector: &'a mut Collector,
    pub(super) recorder: Option<&'a mut (dyn RecordSink + 'static)>,
    /// The number of flows reported at this tick.
    pub(super) reported: u32,
}

impl Knowledge for Node<'_> {
    fn learn(&mut self, flow: &Flow, fate: Fate) {
        if fate == Fate::Established {
            // Named, because the path of an established flow may show drops after the handshake.
            self.collector.name_functions(flow);
            self.collector.read_port(flow);
        } else {
            self.collector.read_for(flow);
        }
        self.collector.read_service_names(flow);
        if let Some(recorder) = &mut self.recorder {
            let changed = self.collector.take_changed();
            recorder.facts(Some(self.reported), self.collector.facts(), &changed);
        }
        self.reported += 1;
    }

    fn facts(&self) -> &Facts {
        self.collector.facts()
    }
}
