//! The summary of many flows: fates, causes by time lost, and the affected clients and services. Pure.

mod brief;
mod cause;
mod collection;
mod flows;
mod over_time;
mod places;
pub(in crate::report) mod several;
pub(in crate::report) mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    diagnose::{cause::Cause, words},
    finding::selection::Selection,
    flow::{fate::Fate, rank::Evicted},
};

pub use cause::{CauseSummary, Example, Names};
pub use collection::Collection;
pub use over_time::{Bin, OverTime};
pub use places::{Place, Places, Ranking};
pub use several::{Disagreement, NodeReport, SeenOn, Several};
pub use text::{sentences, text};

/// The summary of many flows.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The hosts that it was recorded on.
    pub hosts: Vec<Host>,
    /// Start of the first flow.
    pub first: Option<String>,
    /// Start of the last flow.
    pub last: Option<String>,
    /// Number of flows.
    pub flows: usize,
    /// Flows that failed or were delayed.
    pub failures: u64,
    /// Number of clients.
    pub clients: usize,
    /// Records of the kernel.
    pub records: u64,
    /// Lost records.
    pub lost: u64,
    /// Flows evicted from memory before their time.
    pub evicted: Evicted,
    /// Flows by fate.
    pub by_fate: BTreeMap<Fate, u64>,
    /// Causes by the time they cost.
    pub causes: Vec<CauseSummary>,
    /// Causes by the clients they affected.
    pub by_clients: Vec<Cause>,
    /// Flows by the time of their start.
    pub over_time: OverTime,
    /// Flows by service, NodePort, backend, client and source port.
    pub places: Places,
    /// Flows on whose path the kernel skipped probes.
    pub probes_skipped: u64,
    /// The filter, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// With a filter, the number of flows without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_flows: Option<usize>,
    /// The filter as options of the command line.
    #[serde(skip)]
    pub options: String,
    /// Damage of the recordings, each with the file's name: the summary may be incomplete.
    pub damage: Vec<String>,
    /// With several runs: the connections that more than one of them saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub several: Option<Several>,
}

impl Summary {
    /// The hosts, each once.
    #[must_use]
    pub fn host_names(&self) -> String {
        let mut names: Vec<&str> = self.hosts.iter().map(|host| host.host.as_str()).collect();
        names.dedup();
        names.join(", ")
    }

    /// The sentence for a summary without a cause. Without flows, nothing is known about failures: flows may have been
    /// filtered out, or be in a damaged part of the recording.
    #[must_use]
    pub fn without_cause(&self) -> String {
        match (self.flows, self.filtered()) {
            (0, None) => {
                "The recording has no flows, so it does not show whether connections failed.".to_owned()
            }
            (0, Some(filtered)) => format!("{filtered}."),
            (_, None) => "No connection failed or was delayed.".to_owned(),
            (_, Some(filtered)) => {
                format!("None of the selected connections failed or was delayed ({filtered}).")
            }
        }
    }

    /// How many flows match the filter: `5 of 63 flows match --fate stalled`. `None` without a filter.
    #[must_use]
    pub fn filtered(&self) -> Option<String> {
        let all = self.all_flows?;
        let verb = if self.flows == 1 { "matches" } else { "match" };
        Some(format!(
            "{} of {} {verb} {}",
            self.flows,
            words::count(all, "flow"),
            self.options
        ))
    }

    /// Limits the summary to the flows of a filter, out of this many.
    pub fn set_filter(&mut self, selection: &Selection, all_flows: usize) {
        if !selection.is_empty() {
            self.only = Some(selection.words());
            self.options = selection.options();
            self.all_flows = Some(all_flows);
        }
    }
}

/// A host and its kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// Its name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
}
