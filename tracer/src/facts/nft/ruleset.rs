//! All rules of nf_tables, and the destinations to which they can translate a packet.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    Chain, Family,
    elements::{Answer, Elements},
    rule::{Decides, Rule, registers::Key},
};
use crate::facts::{iptables::Packet, translation::Translation};

/// The hooks at which a packet's destination is translated (`NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT`).
const TRANSLATING: [u32; 2] = [0, 3];

/// A map or set by its table and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapName {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

/// The chains and rules of a network namespace, and the maps that were needed so far.
#[derive(Debug, Default)]
pub struct Ruleset {
    chains: Vec<Chain>,
    rules: Vec<Rule>,
    /// Indices of the rules of each chain, by the family and name of its table, and its name.
    by_chain: HashMap<(Family, String), HashMap<String, Vec<usize>>>,
    /// `None` for a map that cannot be read.
    maps: HashMap<MapName, Option<Elements>>,
}

/// A rule that may translate the packet, and the new destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// One of its targets.
    pub translation: Translation,
}

impl Ruleset {
    /// From chains and rules that were read at the same time.
    #[must_use]
    pub fn new(chains: Vec<Chain>, rules: Vec<Rule>) -> Self {
        let mut by_chain: HashMap<_, HashMap<_, Vec<_>>> = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            by_chain
                .entry((rule.family, rule.table.clone()))
                .or_default()
                .entry(rule.chain.clone())
                .or_default()
                .push(index);
        }
        Self {
            chains,
            rules,
            by_chain,
            maps: HashMap::new(),
        }
    }

    /// Adds the elements of a map; `None` if they cannot be read.
    pub fn add_map(&mut self, name: MapName, elements: Option<Elements>) {
        self.maps.insert(name, elements);
    }

    /// Every translation that a packet may get, for example a SYN to a NodePort; or the maps that must be added first. A
    /// condition that tracer does not understand counts as possibly met.
    pub fn translations(&self, packet: &Packet<'_>) -> Result<Vec<Reached<'_>>, BTreeSet<MapName>> {
        let family = if packet.source.is_ipv6() {
            Family::Ip6
        } else {
            Family::Ip
        };
        let mut walk = Walk {
            ruleset: self,
            packet,
            reached: Vec::new(),
            missing: BTreeSet::new(),
        };
        let bases = self.chains.iter().filter(|chain| {
            (chain.family == family || chain.family == Family::Inet)
                && chain
                    .base
                    .as_ref()
                    .is_some_and(|base| base.kind == "nat" && TRANSLATING.contains(&base.hook))
        });
        let mut seen = HashSet::new();
        for base in bases {
            walk.chains(base, &mut seen);
        }
        if walk.missing.is_empty() {
            Ok(walk.reached)
        } else {
            Err(walk.missing)
        }
    }
}

struct Walk<'a, 'p> {
    ruleset: &'a Ruleset,
    packet: &'p Packet<'p>,
    reached: Vec<Reached<'a>>,
    missing: BTreeSet<MapName>,
}

impl<'a> Walk<'a, '_> {
    /// Walks a base chain and every chain that the packet may reach from it.
    fn chains(&mut self, base: &'a Chain, seen: &mut HashSet<(Family, &'a str, &'a str)>) {
        let Some(of_table) = self.ruleset.by_chain.get(&(base.family, base.table.clone())) else {
            return;
        };
        let mut open = vec![base.name.as_str()];
        while let Some(chain) = open.pop() {
            if !seen.insert((base.family, base.table.as_str(), chain)) {
                continue;
            }
            for &index in of_table.get(chain).into_iter().flatten() {
                let rule = &self.ruleset.rules[index];
                if rule.conditions.can_fit(self.packet) {
                    self.rule(rule, &mut open);
                }
            }
        }
    }

    fn rule(&mut self, rule: &'a Rule, open: &mut Vec<&'a str>) {
        match &rule.decides {
            Decides::Verdict(verdict) => open.extend(verdict.chain()),
            Decides::Map(map) => {
                for answer in self.answers(rule, map) {
                    if let Answer::Verdict(verdict) = answer {
                        open.extend(verdict.chain());
                    }
                }
            }
            _ => {}
        }
        let Some(translation) = &rule.translation else {
            return;
        };
        let Translation::Map(lookup) = translation else {
            let translation = translation.clone();
            self.reached.push(Reached { rule, translation });
            return;
        };
        let is_v6 = self.packet.source.is_ipv6();
        for answer in self.answers(rule, &lookup.map) {
            let translation = match answer {
                Answer::Data(data) => lookup.of_element(data, is_v6),
                Answer::Verdict(_) => Translation::Unknown,
            };
            self.reached.push(Reached { rule, translation });
        }
    }

    /// The elements that the packet may find in a map of the rule's table.
    fn answers(&mut self, rule: &'a Rule, map: &str) -> Vec<&'a Answer> {
        let name = MapName {
            family: rule.family,
            table: rule.table.clone(),
            name: map.to_owned(),
        };
        let Some(elements) = self.ruleset.maps.get(&name) else {
            self.missing.insert(name);
            return Vec::new();
        };
        let Some(elements) = elements else {
            let translation = Translation::Unknown;
            self.reached.push(Reached { rule, translation });
            return Vec::new();
        };
        let any = Key::default();
        let key = rule.key.as_ref().unwrap_or(&any);
        elements.answers(key, self.packet).collect()
    }
}

#[cfg(test)]
mod tests;
