//! Follows scenarios while they run.

use tracer_lab::protocol::Message;
use tracer_lab::scenario::Named;

use super::result::ScenarioResult;

/// Follows the scenarios of a guest.
pub(crate) trait Observer {
    /// A scenario starts.
    fn started(&mut self, scenario: &Named);
    /// The guest sent a message.
    fn message(&mut self, message: &Message);
    /// The scenario is over.
    fn finished(&mut self, result: &ScenarioResult);
}
