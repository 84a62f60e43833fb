//! Facts about the node that no kernel would report: rules that jump anywhere, chains that exist twice.

use std::collections::HashMap;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use tracer::facts::{
    Facts, NetnsFacts,
    iptables::{self, AddressMatch},
    nft::{self, Family, Policy, rule},
    xt::Match,
};

/// Facts of one network namespace.
#[derive(Debug, Arbitrary)]
pub struct Netns {
    tables: Vec<Table>,
    chains: Vec<Chain>,
    rules: Vec<NftRule>,
    former: Vec<NftRule>,
}

#[derive(Debug, Arbitrary)]
struct Table {
    name: u8,
    is_v6: bool,
    chains: Vec<(Option<(u8, bool)>, Vec<Rule>)>,
}

#[derive(Debug, Arbitrary)]
struct Rule {
    matches: Vec<(u8, u8, Vec<u8>)>,
    target: u8,
    to: usize,
    at: u8,
}

#[derive(Debug, Arbitrary)]
struct Chain {
    family: u8,
    table: u8,
    name: u8,
    handle: u64,
    base: Option<(u8, u8, bool)>,
}

#[derive(Debug, Arbitrary)]
struct NftRule {
    family: u8,
    table: u8,
    chain: u8,
    handle: u8,
    number: usize,
    decides: u8,
    to: u8,
    comment: Option<String>,
    dport: Option<u16>,
    flags: u8,
}

const TABLES: [&str; 5] = ["filter", "nat", "raw", "mangle", ""];
const MATCHES: [&str; 14] = [
    "tcp",
    "udp",
    "comment",
    "conntrack",
    "state",
    "mark",
    "multiport",
    "addrtype",
    "set",
    "statistic",
    "recent",
    "physdev",
    "limit",
    "",
];
const EXTENSIONS: [&str; 6] = ["REJECT", "MARK", "LOG", "TPROXY", "DNAT", "nonsense"];

fn chain(number: u8) -> String {
    let names = [
        "INPUT",
        "FORWARD",
        "KUBE-SERVICES",
        "KUBE-NODEPORTS",
        "cali-FORWARD",
        "prerouting",
    ];
    names[usize::from(number) % names.len()].to_owned()
}

fn family(number: u8) -> Family {
    [
        Family::Inet,
        Family::Ip,
        Family::Ip6,
        Family::Bridge,
        Family::Other(77),
    ][usize::from(number) % 5]
}

fn table(number: u8) -> &'static str {
    TABLES[usize::from(number) % TABLES.len()]
}

impl Rule {
    fn make(&self) -> iptables::Rule {
        let match_of = |(name, revision, info): &(u8, u8, Vec<u8>)| Match {
            name: MATCHES[usize::from(*name) % MATCHES.len()].to_owned(),
            revision: *revision % 5,
            info: info.clone(),
        };
        let verdicts = [
            iptables::Verdict::Drop,
            iptables::Verdict::Accept,
            iptables::Verdict::Return,
            iptables::Verdict::Other(3),
        ];
        iptables::Rule {
            address: AddressMatch::default(),
            matches: self.matches.iter().map(match_of).collect(),
            target: match self.target % 5 {
                0 => iptables::Target::Jump(self.to % 300),
                1 => iptables::Target::Goto(self.to),
                2 => iptables::Target::Verdict(verdicts[self.to % 4]),
                3 => iptables::Target::Extension(EXTENSIONS[self.to % EXTENSIONS.len()].to_owned()),
                _ => iptables::Target::Nothing,
            },
            translation: None,
            target_at: self.at.into(),
        }
    }
}

impl Table {
    fn make(&self) -> iptables::Table {
        let chain_of = |(base, rules): &(Option<(u8, bool)>, Vec<Rule>)| {
            let policy = |drops| {
                if drops {
                    iptables::Verdict::Drop
                } else {
                    iptables::Verdict::Accept
                }
            };
            iptables::Chain {
                name: chain(u8::try_from(rules.len() % 256).unwrap_or_default()),
                base: base.map(|(hook, drops)| (u32::from(hook % 6), policy(drops))),
                rules: rules.iter().map(Rule::make).collect(),
            }
        };
        iptables::Table {
            name: table(self.name).to_owned(),
            is_v6: self.is_v6,
            chains: self.chains.iter().map(chain_of).collect(),
        }
    }
}

impl Chain {
    fn make(&self) -> nft::Chain {
        let base = |(hook, kind, drops): (u8, u8, bool)| nft::Base {
            hook: u32::from(hook % 6),
            priority: 0,
            kind: ["filter", "nat", "route"][usize::from(kind) % 3].to_owned(),
            policy: Some(if drops { Policy::Drop } else { Policy::Accept }),
        };
        nft::Chain {
            family: family(self.family),
            table: table(self.table).to_owned(),
            name: chain(self.name),
            handle: self.handle,
            base: self.base.map(base),
        }
    }
}

impl NftRule {
    fn make(&self) -> rule::Rule {
        rule::Rule {
            family: family(self.family),
            table: table(self.table).to_owned(),
            chain: chain(self.chain),
            handle: (self.handle % 4).into(),
            number: self.number,
            comment: self.comment.clone(),
            decides: match self.decides % 8 {
                0 => rule::Decides::Verdict(rule::Verdict::Drop),
                1 => rule::Decides::Verdict(rule::Verdict::Jump(chain(self.to))),
                2 => rule::Decides::Verdict(rule::Verdict::Goto(chain(self.to))),
                3 => rule::Decides::Map(chain(self.to)),
                4 => rule::Decides::Reject,
                5 => rule::Decides::Extension(EXTENSIONS[usize::from(self.to) % EXTENSIONS.len()].to_owned()),
                6 => rule::Decides::Other("nat".to_owned()),
                _ => rule::Decides::Nothing,
            },
            dport: self.dport,
            has_destination: self.flags & 1 != 0,
            dports: None,
            untracks: self.flags & 4 != 0,
            matches_invalid: self.flags & 2 != 0,
            translation: None,
            key: None,
            conditions: rule::conditions::Conditions::default(),
        }
    }
}

impl Netns {
    /// Converts them to tracer's own type.
    pub fn make(&self) -> NetnsFacts {
        NetnsFacts {
            tables: self.tables.iter().map(Table::make).collect(),
            chains: self.chains.iter().map(Chain::make).collect(),
            rules: self.rules.iter().map(NftRule::make).collect(),
            removed_rules: self.former.iter().map(NftRule::make).collect(),
            ..NetnsFacts::default()
        }
    }
}

/// The facts about a node with this network namespace, under every inode number that records can refer to.
pub fn facts(netns: &NetnsFacts) -> Facts {
    Facts {
        netns: HashMap::from([(1, netns.clone()), (2, netns.clone())]),
        ..Facts::default()
    }
}
