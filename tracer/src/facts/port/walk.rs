//! Walks the rules of a table in the order in which a packet meets them, whatever it matches.

use std::collections::{BTreeSet, HashMap};

use crate::facts::{
    iptables::{self, AddressMatch, Packet, Table, Target, Verdict as LegacyVerdict},
    nft::{
        Chain,
        rule::{Decides, Rule, Verdict, conditions::Conditions},
    },
    xt::{Fits, Match},
};

/// How many rules that can end a chain are kept before each object.
const MAX_ENDS: usize = 16;
/// How deeply jumps are followed. The kernel allows 16 jumps in nf_tables.
const MAX_DEPTH: usize = 32;

/// A rule whose conditions are needed later.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) place: String,
    pub(super) conditions: Matches,
}

/// The conditions of a rule.
#[derive(Debug)]
pub(super) enum Matches {
    Nft(Conditions),
    Legacy(AddressMatch, Vec<Match>),
}

impl Matches {
    pub(super) fn can_fit(&self, packet: &Packet<'_>) -> bool {
        match self {
            Self::Nft(conditions) => conditions.can_fit(packet),
            Self::Legacy(address, matches) => {
                let Packet {
                    source,
                    destination,
                    input,
                    output,
                    ..
                } = *packet;
                address.fits(source, destination, input, output) != Fits::No
                    && matches.iter().all(|found| found.fits(&packet.inner) != Fits::No)
            }
        }
    }
}

pub(super) fn place_of_nft(rule: &Rule) -> String {
    let Rule {
        family,
        table,
        chain,
        handle,
        number,
        ..
    } = rule;
    format!("rule {number} (handle {handle}) of chain {chain} in the nf_tables table {family} {table}")
}

pub(super) fn place_of_legacy(table: &Table, found: &iptables::Found<'_>) -> String {
    let (number, chain, table) = (found.number, &found.chain.name, &table.name);
    format!("rule {number} of chain {chain} in iptables' legacy table {table}")
}

impl Kept {
    pub(super) fn of_nft(rule: &Rule) -> Self {
        Self {
            place: place_of_nft(rule),
            conditions: Matches::Nft(rule.conditions.clone()),
        }
    }

    pub(super) fn of_legacy(table: &Table, found: &iptables::Found<'_>) -> Self {
        Self {
            place: place_of_legacy(table, found),
            conditions: Matches::Legacy(found.rule.address.clone(), found.rule.matches.clone()),
        }
    }
}

/// A table of nf_tables.
#[derive(Default)]
pub(super) struct NftTable<'a> {
    pub(super) bases: Vec<&'a Chain>,
    pub(super) rules: HashMap<&'a str, Vec<&'a Rule>>,
}

/// A walk.
#[derive(Default)]
pub(super) struct Walk {
    /// The hook at which it starts: 0 for prerouting, 1 for output.
    pub(super) slot: usize,
    /// Rules by chain and number, with the rules before them that can end the walk for a packet.
    reached: HashMap<(String, usize), [Option<Vec<usize>>; 2]>,
    /// Names of the chains that were walked.
    pub(super) seen: BTreeSet<String>,
}

impl Walk {
    pub(super) fn before(&self, rule: &(String, usize)) -> [Option<Vec<usize>>; 2] {
        self.reached.get(rule).cloned().unwrap_or_default()
    }

    fn reach(&mut self, rule: (String, usize), ends: &[usize]) {
        self.reached.entry(rule).or_default()[self.slot] = Some(ends.to_vec());
    }

    /// Walks a chain. `ends` has the rules so far that can end the walk.
    pub(super) fn nft(
        &mut self,
        table: &NftTable<'_>,
        kept: &mut Vec<Kept>,
        chain: &str,
        ends: &mut Vec<usize>,
        depth: usize,
    ) {
        if depth > MAX_DEPTH || !self.seen.insert(chain.to_owned()) {
            return;
        }
        // A return ends this chain only.
        let mut returns = Vec::new();
        for rule in table.rules.get(chain).into_iter().flatten() {
            let all: Vec<usize> = ends.iter().chain(&returns).take(MAX_ENDS).copied().collect();
            if rule.dport.is_some() || rule.dports.is_some() || matches!(rule.decides, Decides::Map(_)) {
                self.reach((chain.to_owned(), rule.number), &all);
            }
            let Decides::Verdict(verdict) = &rule.decides else {
                continue;
            };
            match verdict {
                Verdict::Accept | Verdict::Drop | Verdict::Return => {
                    let list = if *verdict == Verdict::Return {
                        &mut returns
                    } else {
                        &mut *ends
                    };
                    if list.len() < MAX_ENDS {
                        list.push(kept.len());
                        kept.push(Kept::of_nft(rule));
                    }
                }
                Verdict::Jump(to) | Verdict::Goto(to) => {
                    let mut inner = all;
                    let before = inner.len();
                    self.nft(table, kept, to, &mut inner, depth + 1);
                    // A rule that accepts in the called chain ends this chain too.
                    ends.extend_from_slice(&inner[before..]);
                }
                Verdict::Other(_) => {}
            }
        }
    }

    /// The same for a legacy table.
    pub(super) fn legacy(
        &mut self,
        table: &Table,
        kept: &mut Vec<Kept>,
        index: usize,
        ends: &mut Vec<usize>,
        depth: usize,
    ) {
        let Some(chain) = table.chains.get(index) else {
            return;
        };
        if depth > MAX_DEPTH || !self.seen.insert(chain.name.clone()) {
            return;
        }
        let mut returns = Vec::new();
        for (rule, number) in chain.rules.iter().zip(1..) {
            let all: Vec<usize> = ends.iter().chain(&returns).take(MAX_ENDS).copied().collect();
            if rule.dport().is_some() || !rule.dports().is_empty() {
                self.reach((chain.name.clone(), number), &all);
            }
            match rule.target {
                Target::Verdict(verdict) => {
                    let list = if verdict == LegacyVerdict::Return {
                        &mut returns
                    } else {
                        &mut *ends
                    };
                    if list.len() < MAX_ENDS {
                        list.push(kept.len());
                        kept.push(Kept::of_legacy(table, &iptables::Found { chain, number, rule }));
                    }
                }
                Target::Jump(to) | Target::Goto(to) => {
                    let mut inner = all;
                    let before = inner.len();
                    self.legacy(table, kept, to, &mut inner, depth + 1);
                    ends.extend_from_slice(&inner[before..]);
                }
                Target::Extension(_) | Target::Nothing => {}
            }
        }
    }
}
