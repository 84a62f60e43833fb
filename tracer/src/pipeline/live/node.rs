//! The node, as those who judge flows get to know it.

use crate::{
    facts::Facts,
    finding::sink::RecordSink,
    flow::{fate::Fate, model::Flow},
    node::collect::Collector,
    pipeline::diagnosis::Knowledge,
};

/// The node itself, asked as flows need it; what it says goes into the recording.
pub(super) struct Node<'a> {
    pub(super) collector: &'a mut Collector,
    pub(super) recorder: Option<&'a mut (dyn RecordSink + 'static)>,
    /// How many flows were told of.
    pub(super) told: u32,
}

impl Knowledge for Node<'_> {
    fn learn(&mut self, flow: &Flow, fate: Fate) {
        if fate == Fate::Established {
            // What is discarded behind the handshake stands in its path too.
            self.collector.name_functions(flow);
        } else {
            self.collector.read_for(flow);
        }
        self.collector.read_service_names(flow);
        if let Some(recorder) = &mut self.recorder {
            let changed = self.collector.take_changed();
            recorder.facts(Some(self.told), self.collector.facts(), &changed);
        }
        self.told += 1;
    }

    fn facts(&self) -> &Facts {
        self.collector.facts()
    }
}
