//! The legacy tables of iptables in a network namespace: chains, and rules as `iptables -L --line-numbers` counts them.
//!
//! A table is one block of entries (`uapi/linux/netfilter_ipv4/ip_tables.h`, `netfilter_ipv6/ip6_tables.h`), which the
//! kernel hands out as it walks them. Chains of users begin with an entry that carries their name as an error, and
//! every chain ends with an entry that is its policy or its return.

mod address;
mod walk;

use bytes::Buf as _;

pub use address::{AddressMatch, Device};
use serde::{Deserialize, Serialize};
pub use walk::{Outcome, Packet, outcomes};

use super::{translation::Translation, xt::Match};
use crate::decode::event::text;

/// A table, such as `filter`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Is it one of `ip6tables`?
    pub is_v6: bool,
    /// Its chains: first those that netfilter calls, in the order of their hooks.
    pub chains: Vec<Chain>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Number of the hook (`enum nf_inet_hooks`) from which netfilter calls it, and what becomes of a packet that no
    /// rule decides on; `None` for a chain that rules jump to.
    pub base: Option<(u32, Verdict)>,
    /// Its rules, in order: the first has number 1.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What it asks of addresses, devices and the protocol.
    pub address: AddressMatch,
    /// What else it asks.
    pub matches: Vec<Match>,
    /// What it does with a packet that fits.
    pub target: Target,
    /// What it makes of the destination, if it translates that.
    pub translation: Option<Translation>,
    /// Where its target stands in the table, in bytes from the first entry: the kernel's own name for the rule.
    pub target_at: u32,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// It decides.
    Verdict(Verdict),
    /// It goes on in another chain ([`Table::chains`] by index) and comes back.
    Jump(usize),
    /// It goes on in another chain, and what comes back from there comes back to whoever called this one.
    Goto(usize),
    /// An extension decides, such as `REJECT`.
    Extension(String),
    /// It does nothing: the next rule is asked.
    Nothing,
}

impl Target {
    /// Is it this extension?
    #[must_use]
    pub fn is_extension(&self, name: &str) -> bool {
        matches!(self, Self::Extension(found) if found == name)
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It goes on.
    Accept,
    /// It is discarded.
    Drop,
    /// It goes back to where this chain was called.
    Return,
    /// Something else, as netfilter numbers it.
    Other(i32),
}

impl Verdict {
    /// A standard target keeps netfilter's verdict as its negative, less one; `XT_RETURN` is that of `NF_REPEAT`.
    fn from_kept(kept: i32) -> Self {
        match kept {
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
        // Calico gives its rules two.
        (!comments.is_empty()).then(|| comments.join("; "))
    }

    /// The one destination port that it asks for.
    #[must_use]
    pub fn dport(&self) -> Option<u16> {
        self.matches.iter().find_map(Match::dport)
    }
}

/// A rule and where it stands.
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
    /// The rule whose target stands there.
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
/// What iptables calls the chains at them.
const HOOK_CHAINS: [&str; HOOKS] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Names of the targets that need no extension: a verdict or a jump, and the mark of a chain's beginning.
const STANDARD: &str = "";
const ERROR: &str = "ERROR";
/// `struct xt_entry_match` and `struct xt_entry_target`: a length, a name, a revision.
const HEAD: usize = 32;
const NAME: usize = 29;

/// What the kernel says about a table before it hands its entries out (`struct ipt_getinfo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Bit set of its hooks.
    hooks: u32,
    /// Where each hook's chain begins.
    begin: [u32; HOOKS],
    /// Where each hook's chain has its policy.
    policy: [u32; HOOKS],
    /// Length of all entries in bytes.
    pub size: u32,
}

impl Info {
    /// `struct ipt_getinfo`; `None` if it is cut short.
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

/// An entry as it stands in the block.
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

/// Where a jump leads before chains have indices.
enum Lands {
    Chain(u32),
    Decided(Target),
}

impl Entry {
    fn kept_verdict(&self) -> Option<i32> {
        let mut data = self.target_data.as_slice();
        (self.target == STANDARD)
            .then(|| data.try_get_i32_ne().ok())
            .flatten()
    }

    fn lands(&self) -> Option<Lands> {
        if self.target != STANDARD {
            return Some(Lands::Decided(Target::Extension(self.target.clone())));
        }
        let kept = self.kept_verdict()?;
        Some(u32::try_from(kept).map_or_else(
            |_| Lands::Decided(Target::Verdict(Verdict::from_kept(kept))),
            Lands::Chain,
        ))
    }
}

/// A chain on its way: its name, its base, and its entries with the one that ends it.
type Parts = (String, Option<(u32, Verdict)>, Vec<Entry>);

/// Makes a table out of its entries; `None` if they contradict themselves.
#[must_use]
pub fn parse(name: &str, is_v6: bool, info: &Info, block: &[u8]) -> Option<Table> {
    let entries = entries(is_v6, block)?;
    let mut chains: Vec<Parts> = Vec::new();
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
            // The last entry of the block is one too: the beginning of nothing.
            chains.push((text(&entry.target_data), None, Vec::new()));
            continue;
        }
        let (_, base, rules) = chains.last_mut()?;
        if let Some((hook, policy)) = base
            && info.policy[*hook as usize] == entry.at
        {
            *policy = Verdict::from_kept(entry.kept_verdict()?);
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
    let target = match entry.lands()? {
        Lands::Decided(target) => target,
        Lands::Chain(at) => {
            let chain = begins.iter().position(|&begin| begin == at);
            match chain {
                Some(chain) if entry.is_goto => Target::Goto(chain),
                Some(chain) => Target::Jump(chain),
                // A rule without a target leads to the one behind it.
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
        // Behind the two lengths: where the kernel came from, and two counters, aligned to 8 bytes.
        let head = (lengths + 2 + 2 + 4).next_multiple_of(8) + 16;
        let bytes = bytes.get(..next)?;
        if target_offset < head || next <= target_offset {
            return None;
        }
        let mut matches = Vec::new();
        let mut rest = bytes.get(head..target_offset)?;
        while !rest.is_empty() {
            let (length, name, revision) = head_of(rest)?;
            matches.push(Match {
                name,
                revision,
                info: rest.get(HEAD..length)?.to_vec(),
            });
            rest = rest.get(length..)?;
        }
        let (length, target, revision) = head_of(bytes.get(target_offset..)?)?;
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

/// Length, name and revision of a match or a target.
fn head_of(bytes: &[u8]) -> Option<(usize, String, u8)> {
    let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let name = text(bytes.get(2..2 + NAME)?);
    (length >= HEAD).then_some((length, name, *bytes.get(HEAD - 1)?))
}

#[cfg(test)]
mod tests;
