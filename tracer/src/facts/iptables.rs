//! The legacy tables of iptables: chains, and rules numbered as by `iptables -L --line-numbers`.
//!
//! A table is a block of entries (`uapi/linux/netfilter_ipv4/ip_tables.h`, `netfilter_ipv6/ip6_tables.h`). A user-defined
//! chain starts with an `ERROR` entry that holds its name, and every chain ends with an entry for its policy or return.

mod address;
mod text;
mod walk;

use bytes::Buf as _;

pub use address::{AddressMatch, Device};
use serde::{Deserialize, Serialize};
pub use walk::{Outcome, Packet, jumps, outcomes};

use super::{port_range::PortRanges, translation::Translation, xt::Match};
use crate::decode::event::text;

/// A table, for example `filter`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Whether it is a table of `ip6tables`.
    pub is_v6: bool,
    /// Its chains: the built-in ones first, in the order of their hooks.
    pub chains: Vec<Chain>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// The hook (`enum nf_inet_hooks`) and the policy of a built-in chain; `None` for a user-defined one.
    pub base: Option<(u32, Verdict)>,
    /// Its rules in order. The first has number 1.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its conditions on addresses, devices and the protocol.
    pub address: AddressMatch,
    /// Its other matches.
    pub matches: Vec<Match>,
    /// The action on a matching packet.
    pub target: Target,
    /// How it translates the destination, if it does.
    pub translation: Option<Translation>,
    /// Offset in bytes of its target in the table, by which the kernel half identifies the rule.
    pub target_at: u32,
}

/// The target of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A verdict.
    Verdict(Verdict),
    /// Continue in another chain (index in [`Table::chains`]) and come back.
    Jump(usize),
    /// Continue in another chain. A return there goes back to the caller of this chain.
    Goto(usize),
    /// An extension decides, for example `REJECT`.
    Extension(String),
    /// None: continue with the next rule.
    Nothing,
}

impl Target {
    /// Whether it is this extension.
    #[must_use]
    pub fn is_extension(&self, name: &str) -> bool {
        matches!(self, Self::Extension(found) if found == name)
    }
}

/// The verdict on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// `ACCEPT`.
    Accept,
    /// `DROP`.
    Drop,
    /// `RETURN` to the calling chain.
    Return,
    /// Another one, as stored in the table.
    Other(i32),
}

impl Verdict {
    /// A standard target stores netfilter's verdict as -verdict - 1, and `XT_RETURN` as that of `NF_REPEAT`.
    fn from_stored(stored: i32) -> Self {
        match stored {
            -1 => Self::Drop,
            -2 => Self::Accept,
            -5 => Self::Return,
            other => Self::Other(other),
        }
    }
}

impl Rule {
    /// The comment of the rule.
    #[must_use]
    pub fn comment(&self) -> Option<String> {
        let comments: Vec<String> = self.matches.iter().filter_map(Match::comment).collect();
        // Calico's rules have two.
        (!comments.is_empty()).then(|| comments.join("; "))
    }

    /// The only destination port that it matches, if there is just one.
    #[must_use]
    pub fn dport(&self) -> Option<u16> {
        self.matches.iter().find_map(Match::dport)
    }

    /// The destination ports that it matches, if it names several.
    #[must_use]
    pub fn dports(&self) -> PortRanges {
        let mut found = self.matches.iter().map(Match::dports);
        found.find(|ports| !ports.is_empty()).unwrap_or_default()
    }
}

/// A rule and its position.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Its chain.
    pub chain: &'a Chain,
    /// Its number in that chain, from 1.
    pub number: usize,
    /// The rule.
    pub rule: &'a Rule,
}

impl Table {
    /// The rule whose target is at this offset.
    #[must_use]
    pub fn rule_at(&self, target_at: u32) -> Option<Found<'_>> {
        self.rules().find(|found| found.rule.target_at == target_at)
    }

    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = Found<'_>> {
        self.chains.iter().flat_map(|chain| {
            chain
                .rules
                .iter()
                .zip(1..)
                .map(move |(rule, number)| Found { chain, number, rule })
        })
    }
}

/// Hooks of netfilter (`NF_INET_NUMHOOKS`).
pub const HOOKS: usize = 5;
/// `XT_TABLE_MAXNAMELEN`.
pub const TABLE_NAME: usize = 32;
/// Names of the built-in chains by hook.
const HOOK_CHAINS: [&str; HOOKS] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Names of the targets without an extension: a verdict or jump, and the start of a chain.
const STANDARD: &str = "";
const ERROR: &str = "ERROR";
/// Header of `struct xt_entry_match` and `struct xt_entry_target`: length, name, revision.
const HEAD: usize = 32;
const NAME: usize = 29;

/// The description of a table (`struct ipt_getinfo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Bit set of the table's hooks.
    hooks: u32,
    /// Offset of each hook's chain.
    begin: [u32; HOOKS],
    /// Offset of each hook's policy.
    policy: [u32; HOOKS],
    /// Size in bytes of all entries.
    pub size: u32,
}

impl Info {
    /// Parses `struct ipt_getinfo`. `None` if it is truncated.
    #[must_use]
    pub fn parse(answer: &[u8]) -> Option<Self> {
        let mut rest = answer.get(TABLE_NAME..)?;
        let mut number = || rest.try_get_u32_ne().ok();
        let hooks = number()?;
        let (mut begin, mut policy) = ([0; HOOKS], [0; HOOKS]);
        for place in begin.iter_mut().chain(&mut policy) {
            *place = number()?;
        }
        let _count = number()?;
        Some(Self {
            hooks,
            begin,
            policy,
            size: number()?,
        })
    }
}

/// An entry of the block.
struct Entry {
    at: u32,
    address: AddressMatch,
    is_goto: bool,
    matches: Vec<Match>,
    target: String,
    translation: Option<Translation>,
    target_at: u32,
    target_data: Vec<u8>,
}

/// A target before chains have indices.
enum RawTarget {
    /// Jump to the chain at this offset.
    Chain(u32),
    Resolved(Target),
}

impl Entry {
    fn stored_verdict(&self) -> Option<i32> {
        let mut data = self.target_data.as_slice();
        (self.target == STANDARD)
            .then(|| data.try_get_i32_ne().ok())
            .flatten()
    }

    fn raw_target(&self) -> Option<RawTarget> {
        if self.target != STANDARD {
            return Some(RawTarget::Resolved(Target::Extension(self.target.clone())));
        }
        let stored = self.stored_verdict()?;
        Some(u32::try_from(stored).map_or_else(
            |_| RawTarget::Resolved(Target::Verdict(Verdict::from_stored(stored))),
            RawTarget::Chain,
        ))
    }
}

/// A chain being parsed: its name, its hook and policy, and its entries including the last one.
type RawChain = (String, Option<(u32, Verdict)>, Vec<Entry>);

/// Parses a table from its block of entries. `None` if the block is inconsistent.
#[must_use]
pub fn parse(name: &str, is_v6: bool, info: &Info, block: &[u8]) -> Option<Table> {
    let entries = entries(is_v6, block)?;
    let mut chains: Vec<RawChain> = Vec::new();
    for entry in entries {
        let hook = (0..HOOKS).find(|&hook| info.hooks >> hook & 1 == 1 && info.begin[hook] == entry.at);
        if let Some(hook) = hook {
            let number = u32::try_from(hook).ok()?;
            chains.push((
                HOOK_CHAINS[hook].to_owned(),
                Some((number, Verdict::Accept)),
                Vec::new(),
            ));
        } else if entry.target == ERROR {
            // The last entry of the block is also an `ERROR` entry, without a chain.
            chains.push((text(&entry.target_data), None, Vec::new()));
            continue;
        }
        let (_, base, rules) = chains.last_mut()?;
        if let Some((hook, policy)) = base
            && info.policy[*hook as usize] == entry.at
        {
            *policy = Verdict::from_stored(entry.stored_verdict()?);
        }
        rules.push(entry);
    }
    chains.retain(|(_, _, entries)| !entries.is_empty());
    let begins: Vec<u32> = chains.iter().map(|(_, _, entries)| entries[0].at).collect();
    let chains = chains
        .into_iter()
        .map(|(name, base, mut entries)| {
            entries.pop()?;
            let rules: Option<Vec<Rule>> = entries.into_iter().map(|entry| rule(entry, &begins)).collect();
            Some(Chain {
                name,
                base,
                rules: rules?,
            })
        })
        .collect::<Option<_>>()?;
    Some(Table {
        name: name.to_owned(),
        is_v6,
        chains,
    })
}

fn rule(entry: Entry, begins: &[u32]) -> Option<Rule> {
    let target = match entry.raw_target()? {
        RawTarget::Resolved(target) => target,
        RawTarget::Chain(at) => {
            let chain = begins.iter().position(|&begin| begin == at);
            match chain {
                Some(chain) if entry.is_goto => Target::Goto(chain),
                Some(chain) => Target::Jump(chain),
                // A rule without a target jumps to the next rule.
                None => Target::Nothing,
            }
        }
    };
    Some(Rule {
        address: entry.address,
        matches: entry.matches,
        target,
        translation: entry.translation,
        target_at: entry.target_at,
    })
}

fn entries(is_v6: bool, block: &[u8]) -> Option<Vec<Entry>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < block.len() {
        let bytes = block.get(at..)?;
        let (address, is_goto, lengths) = AddressMatch::parse(is_v6, bytes)?;
        let target_offset = usize::from(u16::from_ne_bytes(*bytes.get(lengths..)?.first_chunk()?));
        let next = usize::from(u16::from_ne_bytes(*bytes.get(lengths + 2..)?.first_chunk()?));
        // After the two lengths: a word of the kernel's own, and two counters, aligned to 8 bytes.
        let head = (lengths + 2 + 2 + 4).next_multiple_of(8) + 16;
        let bytes = bytes.get(..next)?;
        if target_offset < head || next <= target_offset {
            return None;
        }
        let mut matches = Vec::new();
        let mut rest = bytes.get(head..target_offset)?;
        while !rest.is_empty() {
            let (length, name, revision) = parse_header(rest)?;
            matches.push(Match {
                name,
                revision,
                info: rest.get(HEAD..length)?.to_vec(),
            });
            rest = rest.get(length..)?;
        }
        let (length, target, revision) = parse_header(bytes.get(target_offset..)?)?;
        let target_data = bytes.get(target_offset + HEAD..target_offset + length)?;
        out.push(Entry {
            at: u32::try_from(at).ok()?,
            address,
            is_goto,
            matches,
            translation: Translation::of_target(&target, revision, target_data, is_v6),
            target,
            target_at: u32::try_from(at + target_offset).ok()?,
            target_data: target_data.to_vec(),
        });
        at += next;
    }
    Some(out)
}

/// Parses length, name and revision of a match or target.
fn parse_header(bytes: &[u8]) -> Option<(usize, String, u8)> {
    let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let name = text(bytes.get(2..2 + NAME)?);
    (length >= HEAD).then_some((length, name, *bytes.get(HEAD - 1)?))
}

#[cfg(test)]
mod tests;
