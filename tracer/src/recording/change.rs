//! Changes of the node's facts, as a recording stores them.
//!
//! A recording holds what live tracing knew of the node when it judged a flow, not how that was read. So replay needs
//! no node, and a change in how facts are read breaks no recording.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use tracer_common::hook::Hook;

use super::patch::Patch;
use crate::{
    decode::watch::Gaps,
    facts::{
        Facts, NetnsFacts,
        changed_facts::ChangedFacts,
        iptables::Table,
        ipvs,
        ipvs_settings::IpvsSettings,
        kube_proxy::{LocalNodePorts, NodePorts},
        link::{Link, Program},
        nat_rule::NatRules,
        neighbour::Neighbour,
        nft::{self, map::Map, rule::Rule},
        node_state::NodeState,
        port::Ports,
        route::Route,
        route_lookup::RouteLookup,
        sysctl::Sysctls,
    },
};

/// One change of the facts. Stored as JSON, with the kind in `of`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum FactChange {
    /// Names of kernel functions by address.
    Symbols(TableChange<u64, String>),
    /// Facts of a network namespace.
    Netns(Box<NetnsChange>),
    /// A network namespace whose facts were dropped.
    NetnsGone {
        /// Its inode number.
        inum: u32,
    },
    /// Routes by network namespace and destination, as older versions looked them up.
    Routes(TableChange<(u32, IpAddr), Route>),
    /// Routes by lookup; `null` where the policy rules match on something unknown.
    RouteLookups(TableChange<RouteLookup, Option<Route>>),
    /// Backends to which no rule translated, and when (monotonic nanoseconds).
    Unreachable(TableChange<(u32, SocketAddr), VecDeque<u64>>),
    /// The rules that lead from a NodePort to a backend.
    NatRules(TableChange<(u32, SocketAddr, SocketAddr), NatRules>),
    /// Processes in network namespaces.
    Pids(TableChange<u32, u32>),
    /// Since when the facts of a network namespace hold, where another one had its inode number before: monotonic
    /// nanoseconds.
    NetnsSince(TableChange<u32, u64>),
    /// The complete list of the hooks that cannot show anything.
    Absent {
        /// The hooks by number.
        hooks: Vec<u16>,
    },
    /// The complete list of the periods in which not all hooks were attached, as long as one of their flows may be judged.
    Gaps {
        /// The periods, oldest first.
        gaps: Gaps,
    },
    /// When records were last found to be lost.
    Lost {
        /// Monotonic nanoseconds.
        at_ns: Option<u64>,
    },
    /// The state of the node.
    Node(Box<NodeState>),
    /// A change from a newer tracer.
    #[serde(other)]
    Unknown,
}

/// Changed entries of a table: those that were set, and those that were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChange<K, V> {
    /// New and changed entries.
    pub set: Vec<(K, V)>,
    /// Keys of the removed entries.
    pub gone: Vec<K>,
}

/// Changes of the facts of one network namespace. A member that is left out did not change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetnsChange {
    /// Inode number of the namespace.
    pub inum: u32,
    /// Change of [`NetnsFacts::services`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Patch<ipvs::Service>>,
    /// Change of [`NetnsFacts::sysctls`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<Sysctls>,
    /// Change of [`NetnsFacts::ipvs_settings`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipvs_settings: Option<IpvsSettings>,
    /// Change of [`NetnsFacts::chains`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chains: Option<Patch<nft::Chain>>,
    /// Change of [`NetnsFacts::rules`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Patch<Rule>>,
    /// Change of [`NetnsFacts::removed_rules`].
    #[serde(rename = "former", skip_serializing_if = "Option::is_none")]
    pub removed_rules: Option<Patch<Rule>>,
    /// Change of [`NetnsFacts::maps`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maps: Option<Patch<Map>>,
    /// Change of [`NetnsFacts::tables`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<Patch<Table>>,
    /// Change of [`NetnsFacts::node_ports`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_ports: Option<NodePorts>,
    /// Change of [`NetnsFacts::local_node_ports`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_node_ports: Option<LocalNodePorts>,
    /// Change of [`NetnsFacts::links`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<Patch<Link>>,
    /// Change of [`NetnsFacts::cgroup_programs`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_programs: Option<Patch<Program>>,
    /// Change of [`NetnsFacts::neighbours`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbours: Option<Patch<Neighbour>>,
    /// Change of [`NetnsFacts::ports`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
}

/// Returns the changes that turn `before` into `now`, and applies them to `before`.
///
/// Only the facts named in `changed` are compared. Names of drop reasons are not included: the recording's head has them.
pub fn diff(before: &mut Facts, now: &Facts, changed: &ChangedFacts) -> Vec<FactChange> {
    let mut out = Vec::new();
    if changed.symbols {
        out.extend(entries(&before.symbols, &now.symbols).map(FactChange::Symbols));
    }
    for &inum in &changed.netns {
        match now.netns.get(&inum) {
            Some(netns) => {
                let before = before.netns.entry(inum).or_default();
                out.extend(of_netns(inum, before, netns).map(|change| FactChange::Netns(Box::new(change))));
            }
            None if before.netns.contains_key(&inum) => out.push(FactChange::NetnsGone { inum }),
            None => {}
        }
    }
    if changed.routes {
        out.extend(entries(&before.routes, &now.routes).map(FactChange::Routes));
        out.extend(entries(&before.looked_up, &now.looked_up).map(FactChange::RouteLookups));
    }
    if changed.unreachable {
        let (before, now) = (&before.unreachable_by_rule, &now.unreachable_by_rule);
        out.extend(entries(before, now).map(FactChange::Unreachable));
    }
    if changed.nat_rules {
        out.extend(entries(&before.nat_rules, &now.nat_rules).map(FactChange::NatRules));
    }
    if changed.pids {
        out.extend(entries(&before.pids, &now.pids).map(FactChange::Pids));
    }
    if changed.netns_since {
        out.extend(entries(&before.netns_since, &now.netns_since).map(FactChange::NetnsSince));
    }
    if changed.absent && before.absent != now.absent {
        out.push(FactChange::Absent {
            hooks: now.absent.iter().map(|&hook| hook as u16).collect(),
        });
    }
    if changed.gaps && before.gaps != now.gaps {
        out.push(FactChange::Gaps {
            gaps: now.gaps.clone(),
        });
    }
    if changed.lost && before.lost_ns != now.lost_ns {
        out.push(FactChange::Lost { at_ns: now.lost_ns });
    }
    if changed.node
        && before.node != now.node
        && let Some(node) = &now.node
    {
        out.push(FactChange::Node(node.clone()));
    }
    for change in &out {
        change.clone().apply(before);
    }
    out
}

/// Returns the changes that build these facts from empty ones.
#[must_use]
pub fn all_of(facts: &Facts) -> Vec<FactChange> {
    diff(&mut Facts::default(), facts, &ChangedFacts::all(facts))
}

impl FactChange {
    /// Applies the change. Returns `false` if it is unknown or does not fit these facts.
    pub fn apply(self, facts: &mut Facts) -> bool {
        match self {
            Self::Symbols(entries) => return entries.apply(&mut facts.symbols),
            Self::Netns(change) => return change.apply(facts),
            Self::NetnsGone { inum } => drop(facts.netns.remove(&inum)),
            Self::Routes(entries) => return entries.apply(&mut facts.routes),
            Self::RouteLookups(entries) => return entries.apply(&mut facts.looked_up),
            Self::Unreachable(entries) => return entries.apply(&mut facts.unreachable_by_rule),
            Self::NatRules(entries) => return entries.apply(&mut facts.nat_rules),
            Self::Pids(entries) => return entries.apply(&mut facts.pids),
            Self::NetnsSince(entries) => return entries.apply(&mut facts.netns_since),
            Self::Absent { hooks } => {
                facts.absent = hooks.into_iter().filter_map(Hook::from_number).collect();
            }
            Self::Gaps { gaps } => facts.gaps = gaps.bounded(),
            Self::Lost { at_ns } => facts.lost_ns = at_ns,
            Self::Node(node) => facts.node = Some(node),
            Self::Unknown => return false,
        }
        true
    }
}

/// The most entries of a table, and the most network namespaces with facts. No node comes near them; a hash table doubles
/// when it grows.
const MOST_ENTRIES: usize = 1 << 17;
const MOST_NETNS: usize = 1 << 14;

impl<K: Eq + Hash, V> TableChange<K, V> {
    /// Returns `false` if the table would be too large.
    fn apply(self, table: &mut HashMap<K, V>) -> bool {
        for key in &self.gone {
            table.remove(key);
        }
        let fits = table.len() + self.set.len() <= MOST_ENTRIES;
        if fits {
            table.extend(self.set);
        }
        fits
    }
}

fn entries<K: Copy + Ord + Hash, V: Clone + PartialEq>(
    before: &HashMap<K, V>,
    now: &HashMap<K, V>,
) -> Option<TableChange<K, V>> {
    let changed = now.iter().filter(|&(key, value)| before.get(key) != Some(value));
    let mut set: Vec<(K, V)> = changed.map(|(key, value)| (*key, value.clone())).collect();
    set.sort_by_key(|(key, _)| *key);
    let mut gone: Vec<K> = before
        .keys()
        .filter(|key| !now.contains_key(key))
        .copied()
        .collect();
    gone.sort();
    (!set.is_empty() || !gone.is_empty()).then_some(TableChange { set, gone })
}

fn of_netns(inum: u32, before: &NetnsFacts, now: &NetnsFacts) -> Option<NetnsChange> {
    let list = |rules: &VecDeque<Rule>| rules.iter().cloned().collect::<Vec<_>>();
    let change = NetnsChange {
        inum,
        services: Patch::diff(&before.services, &now.services),
        sysctls: new_value(&before.sysctls, &now.sysctls),
        ipvs_settings: new_value(&before.ipvs_settings, &now.ipvs_settings),
        chains: Patch::diff(&before.chains, &now.chains),
        rules: Patch::diff(&before.rules, &now.rules),
        removed_rules: (before.removed_rules != now.removed_rules)
            .then(|| Patch::diff(&list(&before.removed_rules), &list(&now.removed_rules)))
            .flatten(),
        maps: Patch::diff(&before.maps, &now.maps),
        tables: Patch::diff(&before.tables, &now.tables),
        node_ports: new_value(&before.node_ports, &now.node_ports),
        local_node_ports: new_value(&before.local_node_ports, &now.local_node_ports),
        links: Patch::diff(&before.links, &now.links),
        cgroup_programs: Patch::diff(&before.cgroup_programs, &now.cgroup_programs),
        neighbours: Patch::diff(&before.neighbours, &now.neighbours),
        ports: new_value(&before.ports, &now.ports),
    };
    let nothing = NetnsChange {
        inum,
        ..NetnsChange::default()
    };
    (change != nothing).then_some(change)
}

fn new_value<T: Clone + PartialEq>(before: &T, now: &T) -> Option<T> {
    (before != now).then(|| now.clone())
}

impl NetnsChange {
    fn apply(self, facts: &mut Facts) -> bool {
        if facts.netns.len() >= MOST_NETNS && !facts.netns.contains_key(&self.inum) {
            return false;
        }
        let known = facts.netns.entry(self.inum).or_default();
        let mut fits = patch(self.services, &mut known.services);
        fits &= patch(self.chains, &mut known.chains);
        fits &= patch(self.rules, &mut known.rules);
        fits &= patch(self.maps, &mut known.maps);
        fits &= patch(self.tables, &mut known.tables);
        fits &= patch(self.links, &mut known.links);
        fits &= patch(self.cgroup_programs, &mut known.cgroup_programs);
        fits &= patch(self.neighbours, &mut known.neighbours);
        if self.removed_rules.is_some() {
            let mut removed = Vec::from(std::mem::take(&mut known.removed_rules));
            fits &= patch(self.removed_rules, &mut removed);
            known.removed_rules = removed.into();
        }
        set(self.sysctls, &mut known.sysctls);
        set(self.ipvs_settings, &mut known.ipvs_settings);
        set(self.node_ports, &mut known.node_ports);
        set(self.local_node_ports, &mut known.local_node_ports);
        set(self.ports, &mut known.ports);
        fits
    }
}

fn patch<T: Clone + PartialEq>(patch: Option<Patch<T>>, list: &mut Vec<T>) -> bool {
    patch.is_none_or(|patch| patch.apply(list))
}

fn set<T>(new: Option<T>, old: &mut T) {
    if let Some(new) = new {
        *old = new;
    }
}

#[cfg(test)]
mod tests;
