//! The rules of nf_tables: position, conditions, decision and comment.

pub mod conditions;
pub mod dports;
pub mod registers;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use self::{
    conditions::{ConditionReader, Conditions, EQUAL, Load, NETWORK_HEADER, TRANSPORT_HEADER},
    dports::{DportReader, Dports},
    registers::{Key, Registers},
};
use super::{Family, number};
use crate::facts::{
    netlink::{attribute, attributes, text},
    translation::{Lookup, Operand, Translation},
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
    /// Its handle, unique in its table.
    pub handle: u64,
    /// Its position in the chain, from 1, as in `iptables -L --line-numbers`.
    pub number: usize,
    /// Its comment.
    pub comment: Option<String>,
    /// The possible actions on a matching packet.
    pub decides: Decides,
    /// The only destination port that it matches, if there is just one.
    pub dport: Option<u16>,
    /// The destination ports that it matches, if it names several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dports: Option<Dports>,
    /// Whether it excludes packets from connection tracking (`notrack`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untracks: bool,
    /// Whether it matches the destination address.
    pub has_destination: bool,
    /// Whether it matches packets that conntrack finds INVALID.
    #[serde(rename = "asks_invalid")]
    pub matches_invalid: bool,
    /// How it translates the destination, if it does.
    pub translation: Option<Translation>,
    /// The key that it looks up in the map that decides or translates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Its conditions, as far as tracer understands them.
    #[serde(rename = "asks")]
    pub conditions: Conditions,
}

/// The decision of a rule. The last expression that can decide counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decides {
    /// Nothing: continue with the next rule.
    Nothing,
    /// This verdict.
    Verdict(Verdict),
    /// The verdict found in this map.
    Map(String),
    /// Reject.
    Reject,
    /// An extension of iptables decides, for example `REJECT`.
    Extension(String),
    /// Another kind of expression decides.
    Other(String),
}

/// The verdict of a rule or of an element of a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// `accept`.
    Accept,
    /// `drop`.
    Drop,
    /// Continue in another chain and come back.
    Jump(String),
    /// Continue in another chain. A return there goes back to the caller of this chain.
    Goto(String),
    /// `return` to the calling chain.
    Return,
    /// Another verdict, by number.
    Other(i32),
}

impl Verdict {
    /// Parses `NFTA_VERDICT_CODE` and `NFTA_VERDICT_CHAIN`.
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

    /// The chain of a jump or goto.
    #[must_use]
    pub fn chain(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

impl Decides {
    /// Whether this rule could have dropped a packet, by a verdict from a map or by its own.
    #[must_use]
    pub fn drops(&self, by_map: bool) -> bool {
        match self {
            Self::Verdict(Verdict::Drop) => !by_map,
            Self::Map(_) => by_map,
            _ => false,
        }
    }

    /// Whether this rule could have rejected a packet.
    #[must_use]
    pub fn rejects(&self) -> bool {
        matches!(self, Self::Reject) || matches!(self, Self::Extension(name) if name == "REJECT")
    }
}

/// Parses rules (`NFT_MSG_NEWRULE`). The answers must be in order, chain by chain.
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
    let (mut body, mut comment) = (Body::default(), None);
    for (kind, value) in attributes(rest) {
        match kind {
            1 => table = Some(text(value)),
            2 => chain = Some(text(value)),
            3 => handle = value.try_into().ok().map(u64::from_be_bytes),
            4 => body = Body::read(value, family),
            7 => comment = super::comment_in(value),
            _ => {}
        }
    }
    Some(Rule {
        family,
        table: table?,
        chain: chain?,
        handle: handle?,
        number: 0,
        comment: comment.or(body.comment),
        decides: body.decides.unwrap_or(Decides::Nothing),
        dport: body.dport,
        dports: body.dports.finish(body.translation.as_ref()),
        untracks: body.untracks,
        has_destination: body.has_destination,
        matches_invalid: body.matches_invalid,
        translation: body.translation,
        key: body.key,
        conditions: body.conditions.finish(),
    })
}

/// The result of a rule's expressions.
#[derive(Default)]
struct Body {
    decides: Option<Decides>,
    comment: Option<String>,
    dport: Option<u16>,
    has_destination: bool,
    matches_invalid: bool,
    translation: Option<Translation>,
    dports: DportReader,
    untracks: bool,
    /// The register that holds the destination port.
    port_in: Option<u32>,
    /// The register that holds the state of the connection.
    state_in: Option<u32>,
    registers: Registers,
    key: Option<Key>,
    conditions: ConditionReader,
}

/// Offset of the destination address in the headers of IPv4 and IPv6, and of the destination port in that of TCP.
const DESTINATION: [u32; 2] = [16, 24];
const DPORT: u32 = 2;
/// `NFT_NAT_DNAT`.
const DNAT: u32 = 1;
/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
const IPV4: u32 = 2;
const IPV6: u32 = 10;
/// `NFT_CT_STATE`, and its bit for a packet without a connection (`NF_CT_STATE_INVALID_BIT`), in native byte order.
const STATE: u32 = 0;
const INVALID: u32 = 1;

impl Body {
    fn read(expressions: &[u8], family: Family) -> Self {
        let mut body = Self::default();
        for (_, expression) in attributes(expressions) {
            let name = attribute(expression, 1).map(text).unwrap_or_default();
            let data = attribute(expression, 2).unwrap_or_default();
            body.conditions.add(&name, data);
            body.take(name, data, family);
        }
        body
    }

    fn take(&mut self, name: String, data: &[u8], family: Family) {
        let field = |kind| attribute(data, kind).and_then(number);
        let named = || attribute(data, 1).map(text);
        self.take_state(&name, data);
        self.dports.add(&name, data, self.port_in, &self.registers);
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
                    self.registers.write(Some(register), value);
                }
            }
            // The set, the source register, the destination register: 0 is the verdict register.
            "lookup" if field(3) == Some(0) => {
                self.key = Some(self.registers.key(field(2)));
                self.decides = named().map(Decides::Map);
            }
            "lookup" if field(3).is_some() => {
                self.key = Some(self.registers.key(field(2)));
                self.registers.look_up(field(3), named().unwrap_or_default());
            }
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
                self.load(&name, data, field(1));
                let (base, offset) = (field(2), field(3));
                let has_register = field(1);
                self.port_in = has_register
                    .filter(|_| (base, offset, field(4)) == (Some(TRANSPORT_HEADER), Some(DPORT), Some(2)));
                self.has_destination |= base == Some(NETWORK_HEADER)
                    && offset.is_some_and(|offset| DESTINATION.contains(&offset));
            }
            // The register, the operation, the data.
            "cmp" if field(1) == self.port_in && field(2) == Some(EQUAL) => {
                self.dport = conditions::port(data, 3).or(self.dport);
            }
            // Expressions that load something into their first register, or into their second.
            "meta" | "ct" | "fib" | "rt" | "exthdr" | "osf" | "numgen" | "xfrm" => {
                self.load(&name, data, field(1));
            }
            "bitwise" | "byteorder" | "hash" | "socket" | "tunnel" => {
                self.registers.forget(field(2));
            }
            "inner" => self.registers.forget_all(),
            // Expressions that only match, count, log, or change the packet.
            "notrack" => self.untracks = true,
            "lookup" | "cmp" | "range" | "counter" | "limit" | "log" | "quota" | "connlimit" | "dynset"
            | "objref" | "last" | "dup" | "flow_offload" => {}
            _ => {
                self.registers.forget_all();
                self.decides = Some(Decides::Other(name));
            }
        }
    }

    fn load(&mut self, name: &str, data: &[u8], register: Option<u32>) {
        match Load::of(name, data) {
            Some(load) => self.registers.load(register, load),
            None => self.registers.forget(register),
        }
    }

    /// Notices whether the state of the connection is compared with INVALID: by mask, by value, or in a set or map.
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
                self.matches_invalid |= holds_invalid(4);
                self.state_in = None;
            }
            "cmp" if self.state_in.is_some() && field(1) == self.state_in => {
                self.matches_invalid |= holds_invalid(3);
            }
            // The set, the source register.
            "lookup" => self.matches_invalid |= self.state_in.is_some() && field(2) == self.state_in,
            _ => {}
        }
    }

    /// A translation to the addresses and ports in registers: first and last address, first and last port.
    fn to_registers(&self, data: &[u8]) -> Translation {
        const MAPS_NETWORKS: u32 = 1 << 6;
        let field = |kind| attribute(data, kind).and_then(number);
        let address = match field(2) {
            Some(IPV4) => 4,
            Some(IPV6) => 16,
            _ => return Translation::Unknown,
        };
        if field(7).is_some_and(|flags| flags & MAPS_NETWORKS != 0) {
            return Translation::Unknown;
        }
        let pair = |first: u16, last: u16, length| -> Option<Option<[Operand; 2]>> {
            // A register without a known value makes the translation unknown.
            let Some(first) = field(first) else {
                return Some(None);
            };
            let last = field(last).unwrap_or(first);
            let operand = |register| self.registers.operand(register, length);
            Some(Some([operand(first)?, operand(last)?]))
        };
        let read = || {
            let (addresses, ports) = (pair(3, 4, address)?, pair(5, 6, 2)?);
            let lookup = Lookup {
                map: self.registers.map().unwrap_or_default().to_owned(),
                addresses,
                ports,
            };
            let in_map = [&lookup.addresses, &lookup.ports]
                .into_iter()
                .flatten()
                .flatten()
                .any(|operand| matches!(operand, Operand::Data(_)));
            Some(if in_map {
                Translation::Map(lookup)
            } else {
                lookup.of_element(&[], address == 16)
            })
        };
        read().unwrap_or(Translation::Unknown)
    }

    fn take_match(&mut self, name: Option<String>, revision: Option<u32>, info: Option<&[u8]>) {
        let (Some(name), Some(revision), Some(info)) = (name, revision, info) else {
            return;
        };
        let found = Match {
            name,
            revision: u8::try_from(revision).unwrap_or(u8::MAX),
            info: info.to_vec(),
        };
        self.matches_invalid |= found.matches_invalid();
        if let Some(comment) = found.comment() {
            // Calico's rules have two.
            self.comment = Some(match self.comment.take() {
                Some(first) => format!("{first}; {comment}"),
                None => comment,
            });
        }
        self.dport = found.dport().or(self.dport);
        self.dports.add_ranges(found.dports());
        self.conditions.add_match(found);
    }
}

#[cfg(test)]
mod tests;
