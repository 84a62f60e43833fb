//! The rules of nf_tables, with what tells one from another: where they stand, what they decide, what they say of
//! themselves.

pub mod asks;

use std::{collections::HashMap, io};

use self::asks::{Asks, EQUAL, NETWORK_HEADER, Reader, TRANSPORT_HEADER};
use super::{Family, attribute, number};
use crate::node::{
    netlink::{attributes, text},
    xt::Match,
};

/// `NFT_MSG_GETRULE`.
const GET_RULE: u16 = 7;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// All that it asks for, as far as that is understood.
    pub asks: Asks,
}

/// What a rule decides. The last expression that can decide anything counts.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// The rules of all tables of this name, or of all tables; of one chain, or of all. Whoever asks has looked whether
/// `nf_tables` is there.
pub fn rules(table: Option<&str>, chain: Option<&str>) -> io::Result<Vec<Rule>> {
    let named = [(1, table), (2, chain)]
        .into_iter()
        .filter_map(|(kind, name)| Some((kind, name?)))
        .collect::<Vec<_>>();
    let answers = super::list(&mut super::open()?, GET_RULE, 0, &named)?;
    Ok(parse(answers.iter().map(Vec::as_slice)))
}

/// Makes rules out of the answers, which come chain by chain and in order.
pub(super) fn parse<'a>(answers: impl Iterator<Item = &'a [u8]>) -> Vec<Rule> {
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
            4 => body = Body::read(value),
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
    /// The register that holds the destination port.
    port_in: Option<u32>,
    asks: Reader,
}

/// Where the destination address begins in the headers of IPv4 and IPv6, and the destination port in that of TCP.
const DESTINATION: [u32; 2] = [16, 24];
const DPORT: u32 = 2;

impl Body {
    fn read(expressions: &[u8]) -> Self {
        let mut body = Self::default();
        for (_, expression) in attributes(expressions) {
            let name = attribute(expression, 1).map(text).unwrap_or_default();
            let data = attribute(expression, 2).unwrap_or_default();
            body.asks.take(&name, data);
            body.take(name, data);
        }
        body
    }

    fn take(&mut self, name: String, data: &[u8]) {
        let field = |kind| attribute(data, kind).and_then(number);
        let named = || attribute(data, 1).map(text);
        match name.as_str() {
            // The register, the data.
            "immediate" => {
                if let Some(verdict) = attribute(data, 2)
                    .and_then(|value| attribute(value, 2))
                    .and_then(Verdict::parse)
                {
                    self.decides = Some(Decides::Verdict(verdict));
                }
            }
            // The set, the source register, the destination register: 0 is that of the verdict.
            "lookup" if field(3) == Some(0) => self.decides = named().map(Decides::Map),
            "reject" => self.decides = Some(Decides::Reject),
            "target" => self.decides = named().map(Decides::Extension),
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

    fn take_match(&mut self, name: Option<String>, revision: Option<u32>, info: Option<&[u8]>) {
        let (Some(name), Some(revision), Some(info)) = (name, revision, info) else {
            return;
        };
        let asked = Match {
            name,
            revision: u8::try_from(revision).unwrap_or(u8::MAX),
            info: info.to_vec(),
        };
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
mod tests {
    use super::{super::captured, *};
    use crate::node::{iptables::Packet, xt};

    fn kube() -> Vec<Rule> {
        parse(captured(include_bytes!("captured/kube.rules.bin")))
    }

    fn iptables() -> Vec<Rule> {
        parse(captured(include_bytes!("captured/iptables.rules.bin")))
    }

    fn in_chain<'a>(rules: &'a [Rule], chain: &str) -> Vec<&'a Rule> {
        rules.iter().filter(|rule| rule.chain == chain).collect()
    }

    #[test]
    fn reads_the_rules_of_nft() {
        let rules = kube();
        let outgoing = in_chain(&rules, "outgoing");
        let told: Vec<_> = outgoing
            .iter()
            .map(|rule| (rule.handle, rule.number, rule.decides.clone()))
            .collect();
        assert_eq!(
            told,
            [
                (2, 1, Decides::Verdict(Verdict::Drop)),
                (4, 2, Decides::Map("__map0".to_owned())),
                (5, 3, Decides::Reject),
                (6, 4, Decides::Nothing),
                (7, 5, Decides::Verdict(Verdict::Accept)),
            ]
        );
        let drop = outgoing[0];
        assert_eq!((drop.family, drop.table.as_str()), (Family::Inet, "hardening"));
        assert_eq!(drop.comment.as_deref(), Some("no way to the old backend"));
        assert_eq!((drop.dport, drop.has_destination), (Some(8080), true));
        assert!(drop.decides.drops(false) && !drop.decides.drops(true));
        assert!(outgoing[1].decides.drops(true) && outgoing[2].decides.rejects());
    }

    #[test]
    fn knows_which_packets_cannot_fit() {
        let packet = |destination: [u8; 4], dport| Packet {
            source: [10, 0, 0, 2].into(),
            destination: destination.into(),
            input: None,
            output: None,
            inner: xt::Packet {
                sport: 40_000,
                dport,
                tcp_flags: None,
                mark: None,
                ctinfo: None,
            },
        };
        let all = kube();
        let drop = in_chain(&all, "outgoing")[0];
        let wanted = [10, 244, 1, 2];
        assert!(drop.asks.can_fit(&packet(wanted, 8080)));
        assert!(
            !drop.asks.can_fit(&packet([10, 244, 1, 3], 8080)) && !drop.asks.can_fit(&packet(wanted, 8081))
        );
        let all = iptables();
        let external = in_chain(&all, "KUBE-EXTERNAL-SERVICES");
        assert!(external[1].asks.can_fit(&packet(wanted, 30_081)));
        assert!(!external[1].asks.can_fit(&packet(wanted, 30_080)));
    }

    #[test]
    fn reads_where_rules_lead() {
        let rules = kube();
        let external = in_chain(&rules, "external-HVFWP5L3-shop/web/tcp/http");
        assert_eq!(
            external[1].decides,
            Decides::Verdict(Verdict::Goto("service-HVFWP5L3-shop/web/tcp/http".to_owned()))
        );
        // The first lookup of the rule asks only.
        let check = in_chain(&rules, "nodeport-endpoints-check")[0];
        assert_eq!(check.decides, Decides::Map("no-endpoint-nodeports".to_owned()));
        let endpoint = in_chain(&rules, "endpoint-A5CMKJJO-shop/web/tcp/http__10.244.1.2/8080")[0];
        assert_eq!(endpoint.decides, Decides::Other("nat".to_owned()));
    }

    #[test]
    fn reads_the_rules_of_iptables_nft() {
        let rules = iptables();
        let external = in_chain(&rules, "KUBE-EXTERNAL-SERVICES");
        assert_eq!(
            (
                external[0].number,
                external[0].comment.as_deref(),
                external[0].dport
            ),
            (1, Some("shop/web:http has no endpoints"), Some(30_080))
        );
        assert!(external[0].decides.rejects() && !external[0].has_destination);
        assert_eq!(
            (
                external[1].number,
                external[1].comment.as_deref(),
                external[1].dport
            ),
            (2, Some("shop/api has no local endpoints"), Some(30_081))
        );
        assert!(external[1].decides.drops(false));
        let ports = in_chain(&rules, "KUBE-NODEPORTS");
        assert_eq!(
            (
                ports[0].comment.as_deref(),
                ports[0].dport,
                ports[0].has_destination
            ),
            (Some("shop/web:http"), Some(30_080), false)
        );
        assert_eq!((ports[1].dport, ports[1].has_destination), (Some(30_082), true));
        let mark = in_chain(&rules, "KUBE-EXT-ABC")[0];
        assert_eq!(mark.decides, Decides::Extension("MARK".to_owned()));
    }

    #[test]
    fn a_damaged_rule_is_left_out() {
        for answer in captured(include_bytes!("captured/kube.rules.bin")) {
            for end in 0..answer.len() {
                let _ = parse_rule(&answer[..end]);
            }
        }
        assert_eq!(parse_rule(&[2, 0, 0, 0]), None);
    }
}
