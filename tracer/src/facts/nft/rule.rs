//! The rules of nf_tables, with what tells one from another: where they stand, what they decide, what they say of
//! themselves.

pub mod asks;

use std::{collections::HashMap, net::IpAddr};

use bytes::Buf as _;
use serde::{Deserialize, Serialize};

use self::asks::{Asks, EQUAL, NETWORK_HEADER, Reader, TRANSPORT_HEADER};
use super::{Family, number};
use crate::facts::{
    netlink::{attribute, attributes, text},
    translation::Translation,
    xt::Match,
};

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Number that the kernel gave it, never given twice in a table.
    pub handle: u64,
    /// Its place in the chain, from 1, as `iptables -L --line-numbers` counts.
    pub number: usize,
    /// What whoever wrote it says of it.
    pub comment: Option<String>,
    /// What it can do with a packet that fits.
    pub decides: Decides,
    /// The one destination port that it asks for.
    pub dport: Option<u16>,
    /// Does it ask for a destination address?
    pub has_destination: bool,
    /// Does it ask whether conntrack found the packet INVALID?
    pub asks_invalid: bool,
    /// What it makes of the destination, if it translates that.
    pub translation: Option<Translation>,
    /// All that it asks for, as far as that is understood.
    pub asks: Asks,
}

/// What a rule decides. The last expression that can decide anything counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decides {
    /// Nothing: the next rule is asked.
    Nothing,
    /// What is written in it.
    Verdict(Verdict),
    /// What it finds in this map.
    Map(String),
    /// It rejects.
    Reject,
    /// What an extension of iptables decides, such as `REJECT`.
    Extension(String),
    /// What this kind of expression decides.
    Other(String),
}

/// A verdict of a rule or of an element of a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The packet goes on.
    Accept,
    /// It is discarded.
    Drop,
    /// It goes on in another chain and comes back.
    Jump(String),
    /// It goes on in another chain, and what comes back from there comes back to whoever called this one.
    Goto(String),
    /// It goes back to where this chain was called.
    Return,
    /// Something else, as the kernel numbers it.
    Other(i32),
}

impl Verdict {
    /// `NFTA_VERDICT_CODE` and `NFTA_VERDICT_CHAIN`.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let chain = || attribute(value, 2).map(text);
        Some(match number(attribute(value, 1)?)?.cast_signed() {
            0 => Self::Drop,
            1 => Self::Accept,
            -3 => Self::Jump(chain()?),
            -4 => Self::Goto(chain()?),
            -5 => Self::Return,
            other => Self::Other(other),
        })
    }

    /// The chain that it leads to.
    #[must_use]
    pub fn chain(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

impl Decides {
    /// Can it be this rule that dropped a packet by a verdict written in it, or found in a map?
    #[must_use]
    pub fn drops(&self, by_map: bool) -> bool {
        match self {
            Self::Verdict(Verdict::Drop) => !by_map,
            Self::Map(_) => by_map,
            _ => false,
        }
    }

    /// Can it be this rule that rejected a packet?
    #[must_use]
    pub fn rejects(&self) -> bool {
        matches!(self, Self::Reject) || matches!(self, Self::Extension(name) if name == "REJECT")
    }
}

/// Makes rules out of the answers, which come chain by chain and in order.
pub fn parse<'a>(answers: impl Iterator<Item = &'a [u8]>) -> Vec<Rule> {
    let mut counts: HashMap<(Family, String, String), usize> = HashMap::new();
    answers
        .filter_map(parse_rule)
        .map(|rule| {
            let count = counts
                .entry((rule.family, rule.table.clone(), rule.chain.clone()))
                .or_default();
            *count += 1;
            Rule {
                number: *count,
                ..rule
            }
        })
        .collect()
}

fn parse_rule(answer: &[u8]) -> Option<Rule> {
    let (head, rest) = answer.split_at_checked(4)?;
    let family = Family::from(head[0]);
    let (mut table, mut chain, mut handle) = (None, None, None);
    let (mut body, mut said) = (Body::default(), None);
    for (kind, value) in attributes(rest) {
        match kind {
            1 => table = Some(text(value)),
            2 => chain = Some(text(value)),
            3 => handle = value.try_into().ok().map(u64::from_be_bytes),
            4 => body = Body::read(value, family),
            7 => said = super::comment_in(value),
            _ => {}
        }
    }
    Some(Rule {
        family,
        table: table?,
        chain: chain?,
        handle: handle?,
        number: 0,
        comment: said.or(body.comment),
        decides: body.decides.unwrap_or(Decides::Nothing),
        dport: body.dport,
        has_destination: body.has_destination,
        asks_invalid: body.asks_invalid,
        translation: body.translation,
        asks: body.asks.done(),
    })
}

/// What the expressions of a rule come to.
#[derive(Default)]
struct Body {
    decides: Option<Decides>,
    comment: Option<String>,
    dport: Option<u16>,
    has_destination: bool,
    asks_invalid: bool,
    translation: Option<Translation>,
    /// The register that holds the destination port.
    port_in: Option<u32>,
    /// The register that holds the state of the connection.
    state_in: Option<u32>,
    /// What was written into registers, whole.
    constants: HashMap<u32, Vec<u8>>,
    asks: Reader,
}

/// Where the destination address begins in the headers of IPv4 and IPv6, and the destination port in that of TCP.
const DESTINATION: [u32; 2] = [16, 24];
const DPORT: u32 = 2;
/// `NFT_NAT_DNAT`.
const DNAT: u32 = 1;
/// `NFT_CT_STATE`, and its bit for a packet without a connection (`NF_CT_STATE_INVALID_BIT`), in the machine's order.
const STATE: u32 = 0;
const INVALID: u32 = 1;

impl Body {
    fn read(expressions: &[u8], family: Family) -> Self {
        let mut body = Self::default();
        for (_, expression) in attributes(expressions) {
            let name = attribute(expression, 1).map(text).unwrap_or_default();
            let data = attribute(expression, 2).unwrap_or_default();
            body.asks.take(&name, data);
            body.take(name, data, family);
        }
        body
    }

    fn take(&mut self, name: String, data: &[u8], family: Family) {
        let field = |kind| attribute(data, kind).and_then(number);
        let named = || attribute(data, 1).map(text);
        self.take_state(&name, data);
        if !matches!(name.as_str(), "immediate" | "nat") {
            // It may write into registers; those of a translation are filled right before it.
            self.constants.clear();
        }
        match name.as_str() {
            // The register, the data.
            "immediate" => {
                if let Some(verdict) = attribute(data, 2)
                    .and_then(|value| attribute(value, 2))
                    .and_then(Verdict::parse)
                {
                    self.decides = Some(Decides::Verdict(verdict));
                } else if let (Some(register), Some(value)) =
                    (field(1), attribute(data, 2).and_then(|value| attribute(value, 1)))
                {
                    self.constants.insert(register, value.to_vec());
                }
            }
            // The set, the source register, the destination register: 0 is that of the verdict.
            "lookup" if field(3) == Some(0) => self.decides = named().map(Decides::Map),
            "reject" => self.decides = Some(Decides::Reject),
            "target" => {
                self.translation = named().and_then(|name| {
                    let revision = u8::try_from(field(2)?).ok()?;
                    Translation::of_target(&name, revision, attribute(data, 3)?, family == Family::Ip6)
                });
                self.decides = named().map(Decides::Extension);
            }
            "nat" => {
                if field(1) == Some(DNAT) {
                    self.translation = Some(self.to_registers(data));
                }
                self.decides = Some(Decides::Other(name));
            }
            "redir" => {
                self.translation = Some(Translation::Here);
                self.decides = Some(Decides::Other(name));
            }

            "match" => self.take_match(named(), field(2), attribute(data, 3)),
            // The register, the base, the offset, the length.
            "payload" => {
                let (base, offset) = (field(2), field(3));
                let has_register = field(1);
                self.port_in = has_register
                    .filter(|_| (base, offset, field(4)) == (Some(TRANSPORT_HEADER), Some(DPORT), Some(2)));
                self.has_destination |= base == Some(NETWORK_HEADER)
                    && offset.is_some_and(|offset| DESTINATION.contains(&offset));
            }
            // The register, the operation, the data.
            "cmp" if field(1) == self.port_in && field(2) == Some(EQUAL) => {
                self.dport = asks::port(data).or(self.dport);
            }
            // Those that only ask, count, log, or change the packet.
            "lookup" | "cmp" | "range" | "meta" | "ct" | "bitwise" | "byteorder" | "counter" | "limit"
            | "log" | "quota" | "connlimit" | "fib" | "rt" | "socket" | "osf" | "exthdr" | "hash"
            | "numgen" | "dynset" | "objref" | "notrack" | "last" | "inner" | "xfrm" | "tunnel" | "dup"
            | "flow_offload" => {}
            _ => self.decides = Some(Decides::Other(name)),
        }
    }

    /// Whether the state of the connection is held against INVALID, by a mask, by value, or by what a set or a map says.
    fn take_state(&mut self, name: &str, data: &[u8]) {
        let field = |kind| attribute(data, kind).and_then(number);
        let holds_invalid = |kind| {
            let value = attribute(data, kind).and_then(|data| attribute(data, 1));
            let bits = value
                .and_then(|value| value.try_into().ok())
                .map(u32::from_ne_bytes);
            bits.is_some_and(|bits| bits & INVALID != 0)
        };
        match name {
            // The register, the key.
            "ct" if field(2) == Some(STATE) => self.state_in = field(1),
            // The source register, the target register, the length, the mask.
            "bitwise" if self.state_in.is_some() && field(1) == self.state_in => {
                self.asks_invalid |= holds_invalid(4);
                self.state_in = None;
            }
            "cmp" if self.state_in.is_some() && field(1) == self.state_in => {
                self.asks_invalid |= holds_invalid(3);
            }
            // The set, the source register.
            "lookup" => self.asks_invalid |= self.state_in.is_some() && field(2) == self.state_in,
            _ => {}
        }
    }

    /// A translation to what stands in registers: the family of the addresses, the first and the last one of them, the
    /// first and the last port.
    fn to_registers(&self, data: &[u8]) -> Translation {
        let register = |kind| attribute(data, kind).and_then(number);
        let constant = |register: Option<u32>| -> Option<Option<&[u8]>> {
            // A register that is named and holds no constant makes it all unknown.
            register.map_or(Some(None), |register| {
                self.constants.get(&register).map(|value| Some(value.as_slice()))
            })
        };
        let address = |value: &[u8]| -> Option<IpAddr> {
            let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
        };
        let port = |mut value: &[u8]| value.try_get_u16().ok();
        let read = || {
            let (first, low) = (constant(register(3))?, constant(register(5))?);
            let (last, high) = (constant(register(4))?.or(first), constant(register(6))?.or(low));
            let addresses = match first.zip(last) {
                Some((first, last)) => Some(address(first)?..=address(last)?),
                None => None,
            };
            let ports = match low.zip(high) {
                Some((low, high)) => Some(port(low)?..=port(high)?),
                None => None,
            };
            Some(Translation::To { addresses, ports })
        };
        read().unwrap_or(Translation::Unknown)
    }

    fn take_match(&mut self, name: Option<String>, revision: Option<u32>, info: Option<&[u8]>) {
        let (Some(name), Some(revision), Some(info)) = (name, revision, info) else {
            return;
        };
        let asked = Match {
            name,
            revision: u8::try_from(revision).unwrap_or(u8::MAX),
            info: info.to_vec(),
        };
        self.asks_invalid |= asked.asks_invalid();
        if let Some(comment) = asked.comment() {
            // Calico gives its rules two.
            self.comment = Some(match self.comment.take() {
                Some(first) => format!("{first}; {comment}"),
                None => comment,
            });
        }
        self.dport = asked.dport().or(self.dport);
        self.asks.take_match(asked);
    }
}

#[cfg(test)]
mod tests;
