//! Finds the rules of a table that could have dropped a packet.
//!
//! The kernel does not report which rule dropped a packet. But most of the packet's properties that rules match on are known.
//! Walking the rules, with "may fit" for unknown properties, finds every rule and policy that could have dropped it. If there
//! is only one, that one did.

use std::{collections::HashMap, net::IpAddr};

use super::{Chain, Found, Rule, Table, Target, Verdict};
use crate::facts::xt::{self, Fits};

/// A packet at the time it enters a table.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Input device; "" for none, `None` if unknown.
    pub input: Option<&'a str>,
    /// Output device; "" for none, `None` if unknown.
    pub output: Option<&'a str>,
    /// The properties that match extensions read.
    pub inner: xt::Packet,
}

/// The rules and policies that could have dropped the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// A rule.
    Rule {
        /// The rule's chain.
        chain: &'a Chain,
        /// Its number in that chain, from 1.
        number: usize,
        /// The rule.
        rule: &'a Rule,
    },
    /// The policy of a built-in chain, because no rule decides.
    Policy(&'a Chain),
    /// An extension of a rule, which may drop packets.
    Extension {
        /// The rule's chain.
        chain: &'a Chain,
        /// Its number in that chain, from 1.
        number: usize,
        /// Name of the extension.
        name: &'a str,
    },
}

/// Targets after which the next rule follows.
const NON_TERMINAL: [&str; 26] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "DSCP",
    "ECN",
    "HL",
    "HMARK",
    "IDLETIMER",
    "LED",
    "LOG",
    "MARK",
    "NFLOG",
    "NOTRACK",
    "RATEEST",
    "SECMARK",
    "SET",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TRACE",
    "TTL",
    "ULOG",
];
/// Targets that may change the packet's mark.
const CHANGE_MARK: [&str; 5] = ["CONNMARK", "HMARK", "MARK", "SET", "TPROXY"];

/// Everything in the table that could have dropped a packet at this hook.
#[must_use]
pub fn outcomes<'a>(table: &'a Table, nf_hook: u32, packet: &Packet<'_>) -> Vec<Outcome<'a>> {
    walk(table, nf_hook, packet).0
}

/// Every rule that the packet may meet at this hook and that sends it to this chain.
#[must_use]
pub fn jumps<'a>(table: &'a Table, nf_hook: u32, packet: &Packet<'_>, to: &str) -> Vec<Found<'a>> {
    let is_to = |index: usize| table.chains.get(index).is_some_and(|chain| chain.name == to);
    let mut all = walk(table, nf_hook, packet).1;
    all.retain(
        |found| matches!(found.rule.target, Target::Jump(index) | Target::Goto(index) if is_to(index)),
    );
    all
}

fn walk<'a>(table: &'a Table, nf_hook: u32, packet: &Packet<'_>) -> (Vec<Outcome<'a>>, Vec<Found<'a>>) {
    let base = table
        .chains
        .iter()
        .position(|chain| chain.base.is_some_and(|(hook, _)| hook == nf_hook));
    let Some(base) = base else {
        return (Vec::new(), Vec::new());
    };
    let mut packet = *packet;
    // If any rule sets the mark, its value at a rule that matches it is unknown.
    let sets_mark =
        |rule: &Rule| matches!(&rule.target, Target::Extension(name) if CHANGE_MARK.contains(&name.as_str()));
    if table.rules().any(|found| sets_mark(found.rule)) {
        packet.inner.mark = None;
    }
    let mut walk = Walk {
        table,
        packet: &packet,
        passes: HashMap::new(),
        found: Vec::new(),
        jumps: Vec::new(),
    };
    if walk.chain(base)
        && let Some((_, Verdict::Drop)) = table.chains[base].base
    {
        walk.found.push(Outcome::Policy(&table.chains[base]));
    }
    (walk.found, walk.jumps)
}

struct Walk<'a, 'p> {
    table: &'a Table,
    packet: &'p Packet<'p>,
    /// Whether a packet may return from a chain, by index of the chains walked so far. The kernel rejects loops, and no
    /// chain is walked twice.
    passes: HashMap<usize, bool>,
    found: Vec<Outcome<'a>>,
    /// The rules that call other chains.
    jumps: Vec<Found<'a>>,
}

/// A chain being walked.
struct Call<'a> {
    index: usize,
    chain: &'a Chain,
    /// Index of the next rule.
    next: usize,
    /// Whether the packet may return before the end.
    returns: bool,
}

/// Where the walk through a chain's rules stopped.
enum Progress {
    /// At a rule that calls this chain.
    Call(usize),
    /// At the end. Holds whether the packet may leave the chain undecided.
    Done(bool),
}

impl<'a> Walk<'a, '_> {
    /// Walks a chain. Returns whether the packet may leave it undecided. The calls are in a list, not on the stack, because
    /// tables can nest chains deeply.
    fn chain(&mut self, base: usize) -> bool {
        let mut calls = Vec::new();
        // The result of the last called chain.
        let mut answer = self.call(base, &mut calls);
        while let Some(call) = calls.last_mut() {
            match self.rules(call, answer.take()) {
                Progress::Call(index) => answer = self.call(index, &mut calls),
                Progress::Done(passes) => {
                    self.passes.insert(call.index, passes);
                    calls.pop();
                    answer = Some(passes);
                }
            }
        }
        answer.unwrap_or(true)
    }

    /// The result of a chain if it was walked before. Otherwise starts walking it.
    fn call(&mut self, index: usize, calls: &mut Vec<Call<'a>>) -> Option<bool> {
        if let Some(&passes) = self.passes.get(&index) {
            return Some(passes);
        }
        let Some(chain) = self.table.chains.get(index) else {
            return Some(true);
        };
        self.passes.insert(index, true);
        calls.push(Call {
            index,
            chain,
            next: 0,
            returns: false,
        });
        None
    }

    /// Continues with the rules of a chain. `answer` is the result of the chain that the next rule calls.
    fn rules(&mut self, call: &mut Call<'a>, mut answer: Option<bool>) -> Progress {
        let chain = call.chain;
        while let Some(rule) = chain.rules.get(call.next) {
            let fits = self.fits(rule);
            let number = call.next + 1;
            if fits == Fits::No {
                call.next += 1;
                continue;
            }
            let goes_on = match &rule.target {
                Target::Verdict(Verdict::Drop) => {
                    self.found.push(Outcome::Rule { chain, number, rule });
                    false
                }
                Target::Verdict(Verdict::Return) => {
                    call.returns = true;
                    false
                }
                Target::Verdict(Verdict::Accept | Verdict::Other(_)) => false,
                Target::Jump(to) | Target::Goto(to) => {
                    let Some(passes) = answer.take() else {
                        self.jumps.push(Found { chain, number, rule });
                        return Progress::Call(*to);
                    };
                    let comes_back = matches!(rule.target, Target::Jump(_));
                    call.returns |= passes && !comes_back;
                    passes && comes_back
                }
                Target::Extension(name) if NON_TERMINAL.contains(&name.as_str()) => true,
                Target::Extension(name) => {
                    self.found.push(Outcome::Extension { chain, number, name });
                    true
                }
                Target::Nothing => true,
            };
            if fits == Fits::Yes && !goes_on {
                return Progress::Done(call.returns);
            }
            call.next += 1;
        }
        Progress::Done(true)
    }

    fn fits(&self, rule: &Rule) -> Fits {
        let Packet {
            source,
            destination,
            input,
            output,
            ..
        } = *self.packet;
        rule.matches.iter().fold(
            rule.address.fits(source, destination, input, output),
            |fits, found| fits.and(found.fits(&self.packet.inner)),
        )
    }
}
