//! Rules of real versions of kube-proxy, as kernel 6.18 sends them by netlink.

use std::collections::BTreeMap;

use tracer_common::{record::table, tcp::SYN};

use super::{
    super::{captured, parse_chain, rule},
    *,
};
use crate::facts::xt;

/// Answers by request: `chains`, `rules`, or the family, table and name of a map. Names and answers are each preceded by
/// their length.
fn dump(mut bytes: &'static [u8]) -> BTreeMap<String, &'static [u8]> {
    let mut out = BTreeMap::new();
    let mut part = || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        bytes = rest;
        Some(part)
    };
    while let Some(name) = part() {
        let name = String::from_utf8(name.to_vec()).expect("text");
        out.insert(name, part().expect("its answers"));
    }
    out
}

/// A loaded ruleset, with the maps that can be added to it.
struct Loaded {
    ruleset: Ruleset,
    dump: BTreeMap<String, &'static [u8]>,
}

impl Loaded {
    fn new(bytes: &'static [u8]) -> Self {
        let dump = dump(bytes);
        let chains = captured(dump["chains"]).filter_map(parse_chain).collect();
        let rules = rule::parse(captured(dump["rules"]));
        Self {
            ruleset: Ruleset::new(chains, rules),
            dump,
        }
    }

    /// The targets of a SYN from outside to a NodePort.
    fn targets(&mut self, port: u16) -> Vec<String> {
        let syn = Packet {
            source: [192, 168, 50, 2].into(),
            destination: [192, 168, 50, 1].into(),
            input: None,
            output: None,
            inner: xt::Packet {
                sport: 40_000,
                dport: port,
                tcp_flags: Some(SYN),
                mark: None,
                ctinfo: Some(table::NEW),
                from_node: Some(false),
            },
        };
        loop {
            let missing = match self.ruleset.translations(&syn) {
                Ok(reached) => {
                    let mut targets: Vec<String> = reached.iter().map(target).collect();
                    targets.sort();
                    return targets;
                }
                Err(missing) => missing,
            };
            for name in missing {
                let key = format!("{} {} {}", u8::from(name.family), name.table, name.name);
                let elements = self
                    .dump
                    .get(&key)
                    .and_then(|answers| Elements::parse(captured(answers)));
                self.ruleset.add_map(name, elements);
            }
        }
    }
}

fn target(reached: &Reached<'_>) -> String {
    match &reached.translation {
        Translation::To {
            addresses: Some(addresses),
            ports: Some(ports),
        } if addresses.start() == addresses.end() && ports.start() == ports.end() => {
            format!("{}:{}", addresses.start(), ports.start())
        }
        other => format!("{other:?}"),
    }
}

const IPTABLES: [&[u8]; 2] = [
    include_bytes!("../captured/kube-proxy/1.20-iptables.bin"),
    include_bytes!("../captured/kube-proxy/1.36-iptables.bin"),
];
const NFTABLES: [&[u8]; 2] = [
    include_bytes!("../captured/kube-proxy/1.30-nftables.bin"),
    include_bytes!("../captured/kube-proxy/1.36-nftables.bin"),
];

#[test]
fn every_node_port_leads_to_its_endpoints() {
    for bytes in IPTABLES.into_iter().chain(NFTABLES) {
        let mut loaded = Loaded::new(bytes);
        for (port, expected) in [
            (30_080, &["10.244.1.2:8080", "10.244.2.2:8080"][..]),
            (30_081, &["10.244.1.2:9090", "10.244.2.2:9090"]),
            (30_082, &["10.244.3.2:8080"]),
            (30_083, &["10.244.1.2:8080", "10.244.2.2:8080"]),
            (30_084, &[]),
            (30_085, &[]),
            (30_500, &["10.244.4.2:8080"]),
            (30_999, &[]),
        ] {
            let mut found = loaded.targets(port);
            found.dedup();
            assert_eq!(found, expected, "{port}");
        }
    }
}

#[test]
fn a_map_that_cannot_be_read_may_lead_anywhere() {
    let mut loaded = Loaded::new(NFTABLES[1]);
    loaded.dump.retain(|name, _| !name.contains("service-nodeports"));
    assert_eq!(loaded.targets(30_080), ["Unknown"]);
}

#[test]
fn damaged_elements_are_unknown() {
    for bytes in NFTABLES {
        for (name, answers) in dump(bytes) {
            for answer in captured(answers).filter(|_| name.contains("__map")) {
                for end in 0..answer.len() {
                    let _ = Elements::parse(std::iter::once(&answer[..end]));
                }
            }
        }
    }
}
