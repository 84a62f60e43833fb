//! Recordings of several runs: a connection that more than one of them saw counts once.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;

use super::flows::Flows;
use crate::{
    diagnose::cause::Cause,
    finding::{clock::rfc3339, selection::Candidate},
    flow::fate::Fate,
    report::joined::{self, Key, NodeVerdict, Verdict},
};

/// The most connections listed on which nodes disagree; the rest are counted.
const MOST_DISAGREEMENTS: usize = 8;

/// The connections that more than one run saw, counted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Several {
    /// Connections that more than one run saw.
    pub connections: u64,
    /// The hosts that saw them, in the order the SYN reached them, and how many connections each group saw.
    pub seen_on: Vec<SeenOn>,
    /// Connections whose cause was found by a node other than the one the client contacted.
    pub explained: u64,
    /// The first connections on which nodes disagree.
    #[serde(rename = "otherwise")]
    pub disagreements: Vec<Disagreement>,
    /// The number of others on which they disagree.
    pub others: u64,
    #[serde(skip)]
    pub(in crate::report) joined: Connections,
}

/// The connections seen by the same hosts.
#[derive(Clone, Debug, Serialize)]
pub struct SeenOn {
    /// Their names, in the order the SYN reached them.
    pub hosts: Vec<String>,
    /// Number of connections.
    pub flows: u64,
}

/// A connection on which nodes disagree.
#[derive(Clone, Debug, Serialize)]
pub struct Disagreement {
    /// Start of the connection.
    pub start: String,
    /// The client's address and port.
    pub client: String,
    /// The node's address and NodePort.
    pub node: String,
    /// The flow as each node reports it.
    #[serde(rename = "said")]
    pub reports: Vec<NodeReport>,
}

/// A connection as one node reports it.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// The node's host name.
    pub host: String,
    /// Number of the flow in its recording.
    pub id: u64,
    /// Fate of the flow on that node.
    pub fate: Fate,
    /// The cause that the node found, if any.
    pub cause: Option<Cause>,
    /// The explanation of that node.
    pub explanation: String,
}

/// The flows of one connection, first the one on the node that the client contacted.
#[derive(Clone, Debug)]
pub(in crate::report) struct Connection {
    pub(in crate::report) parts: Vec<Part>,
    pub(in crate::report) verdict: Verdict,
    pub(super) is_selected: bool,
}

/// One node's flow of a connection.
#[derive(Clone, Debug)]
pub(in crate::report) struct Part {
    pub(in crate::report) key: Key,
    pub(in crate::report) fate: Fate,
    pub(in crate::report) cause: Option<Cause>,
}

/// The connections that more than one run saw.
#[derive(Clone, Debug, Default)]
pub(in crate::report) struct Connections {
    all: Vec<Connection>,
    /// Index of the connection of each flow that is a part of one.
    by_flow: HashMap<Key, usize>,
    /// The hosts of the runs, from run 1 on.
    hosts: Vec<String>,
}

impl Connections {
    /// Joins the flows of several runs. Without several runs there are no connections.
    pub(super) fn of(flows: &Flows, selects: &dyn Fn(&Candidate<'_>) -> bool) -> Self {
        let Some(fingerprints) = &flows.fingerprints else {
            return Self::default();
        };
        let mut joined = Self {
            hosts: flows.hosts.clone(),
            ..Self::default()
        };
        for keys in joined::connections(fingerprints) {
            let mut parts = Vec::new();
            let mut nodes = Vec::new();
            for key in keys {
                let (Some(brief), Some(fingerprint)) = (flows.briefs.get(&key), fingerprints.get(&key))
                else {
                    continue;
                };
                nodes.push(NodeVerdict {
                    fate: brief.fate,
                    cause: brief.cause,
                    dropped: fingerprint.dropped(),
                });
                parts.push(Part {
                    key,
                    fate: brief.fate,
                    cause: brief.cause,
                });
                joined.by_flow.insert(key, joined.all.len());
            }
            let verdict = joined::judge(&nodes);
            let first = parts.first().and_then(|part| flows.briefs.get(&part.key));
            joined.all.push(Connection {
                is_selected: first.is_some_and(|brief| selects(&brief.candidate(verdict.cause))),
                parts,
                verdict,
            });
        }
        joined
    }

    /// The connection that includes this flow.
    pub(in crate::report) fn of_flow(&self, key: Key) -> Option<&Connection> {
        self.all.get(*self.by_flow.get(&key)?)
    }

    /// The host of a flow.
    pub(in crate::report) fn host(&self, key: Key) -> &str {
        key.0
            .checked_sub(1)
            .and_then(|run| self.hosts.get(run))
            .map_or("", String::as_str)
    }

    /// Whether this flow is drawn. Of a connection one flow is: the one with the cause, or else the one on the node that the
    /// client contacted. `has` returns whether a flow can be drawn.
    pub(in crate::report) fn is_drawn(&self, key: Key, has: impl Fn(Key) -> bool) -> bool {
        let Some(connection) = self.of_flow(key) else {
            return true;
        };
        let decisive = connection.decisive();
        connection.is_selected && (decisive == key || connection.first() == key && !has(decisive))
    }
}

impl Connection {
    /// The flow on the node that the client contacted.
    pub(super) fn first(&self) -> Key {
        self.parts.first().map_or((0, 0), |part| part.key)
    }

    /// The flow whose explanation counts.
    pub(super) fn decisive(&self) -> Key {
        self.parts
            .get(self.verdict.decisive)
            .map_or_else(|| self.first(), |part| part.key)
    }

    /// The explanation, with the names of the nodes that give it.
    pub(super) fn explanation(&self, flows: &Flows) -> String {
        let on = |part: &Part| {
            format!(
                "On {}: {}",
                flows.host(part.key),
                flows.explanation(part.key, part.cause)
            )
        };
        let part = |index: usize| self.parts.get(index).map(on);
        let decisive = part(self.verdict.decisive).unwrap_or_default();
        match self.verdict.disagreeing.and_then(part) {
            Some(other) => format!("{decisive} {other}"),
            None => decisive,
        }
    }

    /// The flow as each node reports it.
    fn disagreement(&self, flows: &Flows) -> Option<Disagreement> {
        let brief = flows.briefs.get(&self.first())?;
        let parts = self.parts.iter();
        Some(Disagreement {
            start: rfc3339(brief.start),
            client: brief.client.to_string(),
            node: brief.to.node.to_string(),
            reports: parts
                .map(|part| NodeReport {
                    host: flows.host(part.key).to_owned(),
                    id: part.key.1,
                    fate: part.fate,
                    cause: part.cause,
                    explanation: flows.explanation(part.key, part.cause),
                })
                .collect(),
        })
    }
}

impl Several {
    /// The connections that more than one run saw, counted; `None` without several runs.
    pub(super) fn of(flows: &Flows, connections: Connections) -> Option<Self> {
        if !flows.is_several() {
            return None;
        }
        let mut out = Self::default();
        let mut seen_on: BTreeMap<Vec<String>, u64> = BTreeMap::new();
        let mut disagreeing: Vec<(Timestamp, &Connection)> = Vec::new();
        let all = connections.all.iter();
        for connection in all.filter(|connection| connection.is_selected) {
            let mut hosts: Vec<String> = Vec::new();
            for part in &connection.parts {
                let host = connections.host(part.key);
                if !hosts.iter().any(|known| known == host) {
                    hosts.push(host.to_owned());
                }
            }
            *seen_on.entry(hosts).or_default() += 1;
            out.connections += 1;
            out.explained += u64::from(connection.verdict.decisive != 0);
            if connection.verdict.disagreeing.is_some()
                && let Some(brief) = flows.briefs.get(&connection.first())
            {
                disagreeing.push((brief.start, connection));
            }
        }
        disagreeing.sort_by_key(|(start, connection)| (*start, connection.first()));
        let others = disagreeing.len().saturating_sub(MOST_DISAGREEMENTS);
        out.others = u64::try_from(others).unwrap_or(u64::MAX);
        out.disagreements = disagreeing
            .into_iter()
            .take(MOST_DISAGREEMENTS)
            .filter_map(|(_, connection)| connection.disagreement(flows))
            .collect();
        let mut seen_on: Vec<(Vec<String>, u64)> = seen_on.into_iter().collect();
        seen_on.sort_by_key(|(_, flows)| std::cmp::Reverse(*flows));
        out.seen_on = seen_on
            .into_iter()
            .map(|(hosts, flows)| SeenOn { hosts, flows })
            .collect();
        out.joined = connections;
        Some(out)
    }
}
