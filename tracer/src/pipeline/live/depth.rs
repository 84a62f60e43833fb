//! Attaches and detaches the hooks that wait for suspicion.

use tracer_common::hook::When;

use super::{PipelineError, Session, monotonic_ns};
use crate::flow::suspicion::Suspicion;

impl Session<'_> {
    /// Attaches the hooks that wait for suspicion while something looks wrong, and detaches them after a while.
    pub(super) fn change_depth(&mut self) -> Result<(), PipelineError> {
        let now = monotonic_ns()?;
        let suspicions = self.engine.take_suspicions(now);
        let raised_by = self.demand.suspect(suspicions, now);
        let is_wanted = self.demand.wants(When::OnSuspicion, now);
        if !is_wanted && self.probe.has_attached(When::OnSuspicion) {
            self.collector.set_watched(false, now);
        }
        if !self.probe.set_wanted(When::OnSuspicion, is_wanted) {
            return Ok(());
        }
        if is_wanted {
            self.collector.set_watched(true, monotonic_ns()?);
        }
        let why = match raised_by {
            Some(Suspicion { port, sign }) => {
                format!("depth full: {sign} (port {port}); attaching more hooks")
            }
            None if is_wanted => "depth full: more hooks can be attached".to_owned(),
            None => "depth light: nothing looked wrong for a while; detaching the extra hooks".to_owned(),
        };
        self.report_hooks(&why)
    }
}
