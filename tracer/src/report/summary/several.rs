//! Recordings of several runs: the connections that more than one of them saw count once.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;

use super::{Collection, candidate, count};
use crate::{
    diagnose::{catalogue, cause::Cause},
    finding::{clock::rfc3339, selection::Candidate},
    flow::fate::Fate,
    report::joined::{self, Key, Said, Verdict},
};

/// So many connections of which nodes say different things are told of; more are counted.
const MOST_OTHERWISE: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Several {
    /// Connections that more than one run saw.
    pub connections: u64,
    /// On which hosts, in the order in which the SYN came to them, and how many.
    pub seen_on: Vec<SeenOn>,
    /// Those of which one node said why, and it was not the one that the client asked.
    pub explained: u64,
    /// Those of which nodes say different things: the first ones.
    pub otherwise: Vec<Otherwise>,
    /// How many others of that kind there are.
    pub others: u64,
    #[serde(skip)]
    pub(in crate::report) together: Together,
}

/// The connections that the same hosts saw.
#[derive(Clone, Debug, Serialize)]
pub struct SeenOn {
    /// The hosts.
    pub hosts: Vec<String>,
    /// How many connections.
    pub flows: u64,
}

/// A connection of which nodes say different things.
#[derive(Clone, Debug, Serialize)]
pub struct Otherwise {
    /// When it began.
    pub start: String,
    /// Its client.
    pub client: String,
    /// The node's address and NodePort.
    pub node: String,
    /// What they say.
    pub said: Vec<SaidOn>,
}

/// What one node says of a connection.
#[derive(Clone, Debug, Serialize)]
pub struct SaidOn {
    /// The host.
    pub host: String,
    /// The number of the flow in its recording.
    pub id: u64,
    /// What became of it there.
    pub fate: Fate,
    /// Why.
    pub cause: Option<Cause>,
    /// What happened there.
    pub explanation: String,
}

/// The flows of one connection, the one that the client asked first.
#[derive(Clone, Debug)]
pub(in crate::report) struct Connection {
    pub(in crate::report) halves: Vec<Half>,
    pub(in crate::report) verdict: Verdict,
    /// Is it one of those that were asked for?
    pub(super) is_wanted: bool,
}

/// A flow that is not the whole of its connection.
#[derive(Clone, Debug)]
pub(in crate::report) struct Half {
    pub(in crate::report) key: Key,
    pub(in crate::report) fate: Fate,
    pub(in crate::report) cause: Option<Cause>,
}

/// The connections that more than one run saw.
#[derive(Clone, Debug, Default)]
pub(in crate::report) struct Together {
    connections: Vec<Connection>,
    /// Index of the connection of each flow that is a part of one.
    of: HashMap<Key, usize>,
    /// The hosts of the runs, from run 1 on.
    hosts: Vec<String>,
}

impl Together {
    pub(super) fn of(collection: &Collection, wanted: &dyn Fn(&Candidate<'_>) -> bool) -> Self {
        let Some(sights) = &collection.sights else {
            return Self::default();
        };
        let mut together = Self {
            hosts: collection.runs.clone(),
            ..Self::default()
        };
        for keys in joined::connections(sights) {
            let mut halves = Vec::new();
            let mut said = Vec::new();
            for key in keys {
                let (Some(brief), Some(sight)) = (collection.flows.get(&key), sights.get(&key)) else {
                    continue;
                };
                said.push(Said {
                    fate: brief.fate,
                    cause: brief.cause,
                    discarded: sight.discarded(),
                });
                halves.push(Half {
                    key,
                    fate: brief.fate,
                    cause: brief.cause,
                });
                together.of.insert(key, together.connections.len());
            }
            let verdict = joined::judge(&said);
            let first = halves.first().and_then(|half| collection.flows.get(&half.key));
            together.connections.push(Connection {
                is_wanted: first.is_some_and(|brief| wanted(&candidate(brief, verdict.cause))),
                halves,
                verdict,
            });
        }
        together
    }

    /// The connection of which this flow is a part.
    pub(in crate::report) fn connection(&self, key: Key) -> Option<&Connection> {
        self.connections.get(*self.of.get(&key)?)
    }

    /// The host of a flow.
    pub(in crate::report) fn host(&self, key: Key) -> &str {
        key.0
            .checked_sub(1)
            .and_then(|run| self.hosts.get(run))
            .map_or("", String::as_str)
    }

    /// Is this flow drawn, if those of a connection are that `has` knows of? One of each is: that which says why, or else
    /// the one that the client asked.
    pub(in crate::report) fn is_drawn(&self, key: Key, has: impl Fn(Key) -> bool) -> bool {
        let Some(connection) = self.connection(key) else {
            return true;
        };
        let telling = connection.telling();
        connection.is_wanted && (telling == key || connection.first() == key && !has(telling))
    }
}

impl Connection {
    /// The flow that the client asked.
    pub(super) fn first(&self) -> Key {
        self.halves.first().map_or((0, 0), |half| half.key)
    }

    /// The flow that says why.
    pub(super) fn telling(&self) -> Key {
        self.halves
            .get(self.verdict.from)
            .map_or_else(|| self.first(), |half| half.key)
    }
}

impl Several {
    /// `None` if there are no several runs.
    pub(super) fn of(collection: &Collection, together: Together) -> Option<Self> {
        collection.sights.as_ref()?;
        let mut out = Self::default();
        let mut seen_on: BTreeMap<Vec<String>, u64> = BTreeMap::new();
        let mut otherwise: Vec<(Timestamp, &Connection)> = Vec::new();
        for connection in together
            .connections
            .iter()
            .filter(|connection| connection.is_wanted)
        {
            let mut hosts: Vec<String> = Vec::new();
            for half in &connection.halves {
                let host = together.host(half.key);
                if !hosts.iter().any(|known| known == host) {
                    hosts.push(host.to_owned());
                }
            }
            *seen_on.entry(hosts).or_default() += 1;
            out.connections += 1;
            out.explained += u64::from(connection.verdict.from != 0);
            if connection.verdict.otherwise.is_some()
                && let Some(brief) = collection.flows.get(&connection.first())
            {
                otherwise.push((brief.start, connection));
            }
        }
        otherwise.sort_by_key(|(start, connection)| (*start, connection.first()));
        out.others = count(otherwise.iter().skip(MOST_OTHERWISE));
        out.otherwise = otherwise
            .into_iter()
            .take(MOST_OTHERWISE)
            .filter_map(|(_, connection)| told(collection, &together, connection))
            .collect();
        let mut seen_on: Vec<(Vec<String>, u64)> = seen_on.into_iter().collect();
        seen_on.sort_by_key(|(_, flows)| std::cmp::Reverse(*flows));
        out.seen_on = seen_on
            .into_iter()
            .map(|(hosts, flows)| SeenOn { hosts, flows })
            .collect();
        out.together = together;
        Some(out)
    }
}

fn told(collection: &Collection, together: &Together, connection: &Connection) -> Option<Otherwise> {
    let brief = collection.flows.get(&connection.first())?;
    Some(Otherwise {
        start: rfc3339(brief.start),
        client: brief.client.to_string(),
        node: brief.to.node.to_string(),
        said: connection
            .halves
            .iter()
            .map(|half| SaidOn {
                host: together.host(half.key).to_owned(),
                id: half.key.1,
                fate: half.fate,
                cause: half.cause,
                explanation: collection.said(half.key, half.cause),
            })
            .collect(),
    })
}

impl Collection {
    /// What was said of a flow with this cause, if that was kept; if not, what can be said of any.
    fn said(&self, key: Key, cause: Option<Cause>) -> String {
        let Some(cause) = cause else {
            return "The handshake finished at the first try.".to_owned();
        };
        let kept = self.flows.get(&key).and_then(|brief| {
            let examples = self.examples.get(&cause)?;
            examples.get(&(brief.start, key))
        });
        kept.map_or_else(
            || catalogue::row(cause).map_or("", |row| row.summary).to_owned(),
            ToString::to_string,
        )
    }

    /// The words for a connection of which more than one run tells.
    pub(super) fn explanation(&self, together: &Together, connection: &Connection) -> String {
        let on = |half: &Half| {
            format!(
                "On {}: {}",
                together.host(half.key),
                self.said(half.key, half.cause)
            )
        };
        let halves = &connection.halves;
        match connection.verdict.otherwise.and_then(|other| halves.get(other)) {
            Some(other) => {
                let telling = halves.get(connection.verdict.from).map(on);
                format!("{} {}", telling.unwrap_or_default(), on(other))
            }
            None => halves.get(connection.verdict.from).map(on).unwrap_or_default(),
        }
    }
}
