//! Which rules of a table can have discarded a packet.
//!
//! The kernel keeps no trace of the rule that dropped a packet. But it asks the rules in order, and most of what they
//! ask is known of the packet. Going through them with "may fit" for the rest finds every place where it can have been
//! dropped: if there is only one, that is where it was.

use std::{collections::HashMap, net::IpAddr};

use super::{Chain, Rule, Table, Target, Verdict};
use crate::facts::xt::{self, Fits};

/// A packet as a table meets it.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The device that it came in by; "" for none, `None` if that is not known.
    pub input: Option<&'a str>,
    /// The device that it is to go out by; likewise.
    pub output: Option<&'a str>,
    /// What extensions ask.
    pub inner: xt::Packet,
}

/// A place where the packet can have been discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// A rule drops it.
    Rule {
        /// The rule's chain.
        chain: &'a Chain,
        /// Its number in that chain, from 1.
        number: usize,
        /// The rule.
        rule: &'a Rule,
    },
    /// No rule decides, and the policy of the chain that netfilter calls is to drop.
    Policy(&'a Chain),
    /// An extension of a rule may have discarded it.
    Extension {
        /// The rule's chain.
        chain: &'a Chain,
        /// Its number in that chain, from 1.
        number: usize,
        /// Name of the extension.
        name: &'a str,
    },
}

/// Targets after which the next rule is asked.
const GO_ON: [&str; 26] = [
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
/// Those of them that may change the packet's mark.
const CHANGE_MARK: [&str; 5] = ["CONNMARK", "HMARK", "MARK", "SET", "TPROXY"];

/// Every place of the table where a packet that came by this hook can have been discarded.
#[must_use]
pub fn outcomes<'a>(table: &'a Table, nf_hook: u32, packet: &Packet<'_>) -> Vec<Outcome<'a>> {
    let base = table
        .chains
        .iter()
        .position(|chain| chain.base.is_some_and(|(hook, _)| hook == nf_hook));
    let Some(base) = base else {
        return Vec::new();
    };
    let mut packet = *packet;
    // What the mark was when a rule asked for it is not known where some rule sets it.
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
    };
    if walk.chain(base)
        && let Some((_, Verdict::Drop)) = table.chains[base].base
    {
        walk.found.push(Outcome::Policy(&table.chains[base]));
    }
    walk.found
}

struct Walk<'a, 'p> {
    table: &'a Table,
    packet: &'p Packet<'p>,
    /// Whether a packet may come back from a chain, for those that were walked. The kernel takes no table with a loop;
    /// what was read of one is never asked twice.
    passes: HashMap<usize, bool>,
    found: Vec<Outcome<'a>>,
}

/// A chain that was called, and how far it is.
struct Call<'a> {
    index: usize,
    chain: &'a Chain,
    /// The rule that is asked next.
    next: usize,
    /// May the packet go back from here before the end?
    returns: bool,
}

/// What the rules of a chain come to.
enum Comes {
    /// To a rule that calls this chain.
    To(usize),
    /// To their end, and whether the packet may come out there, undecided.
    Out(bool),
}

impl<'a> Walk<'a, '_> {
    /// Can the packet come out at the end of this chain, undecided? How deep chains call one another is up to whoever made
    /// the table, so the calls are in a list and not on the stack.
    fn chain(&mut self, base: usize) -> bool {
        let mut calls = Vec::new();
        // What the chain that was called last says.
        let mut answer = self.call(base, &mut calls);
        while let Some(call) = calls.last_mut() {
            match self.rules(call, answer.take()) {
                Comes::To(index) => answer = self.call(index, &mut calls),
                Comes::Out(passes) => {
                    self.passes.insert(call.index, passes);
                    calls.pop();
                    answer = Some(passes);
                }
            }
        }
        answer.unwrap_or(true)
    }

    /// What is known of the chain, or `None` if that is to be found out now.
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

    /// Goes on with the rules of a chain; `answer` is what the chain says that the next rule calls.
    fn rules(&mut self, call: &mut Call<'a>, mut answer: Option<bool>) -> Comes {
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
                Target::Jump(to) => match answer.take() {
                    Some(passes) => passes,
                    None => return Comes::To(*to),
                },
                Target::Goto(to) => match answer.take() {
                    Some(passes) => {
                        call.returns |= passes;
                        false
                    }
                    None => return Comes::To(*to),
                },
                Target::Extension(name) if GO_ON.contains(&name.as_str()) => true,
                Target::Extension(name) => {
                    self.found.push(Outcome::Extension { chain, number, name });
                    true
                }
                Target::Nothing => true,
            };
            if fits == Fits::Yes && !goes_on {
                return Comes::Out(call.returns);
            }
            call.next += 1;
        }
        Comes::Out(true)
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
            |fits, asked| fits.and(asked.fits(&self.packet.inner)),
        )
    }
}
