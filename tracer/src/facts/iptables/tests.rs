//! The blocks are what kernel 6.18 answered for rules that `iptables-legacy-restore` of 1.8.9 had written: first
//! `struct ipt_getinfo`, then the entries.

use tracer_common::{record::table, tcp};

use super::{walk::Packet, *};
use crate::facts::xt;

const INFO: usize = 84;

fn parsed(is_v6: bool, bytes: &[u8]) -> Option<Table> {
    let (head, block) = bytes.split_at(INFO);
    parse("filter", is_v6, &Info::parse(head)?, block)
}

fn filter4() -> Table {
    parsed(false, include_bytes!("captured/filter4.bin")).expect("a table")
}

fn filter6() -> Table {
    parsed(true, include_bytes!("captured/filter6.bin")).expect("a table")
}

fn rules<'a>(table: &'a Table, name: &str) -> &'a [Rule] {
    &table
        .chains
        .iter()
        .find(|chain| chain.name == name)
        .expect("a chain")
        .rules
}

fn syn(dport: u16) -> Packet<'static> {
    Packet {
        source: [10, 0, 0, 2].into(),
        destination: [10, 0, 0, 1].into(),
        input: Some("eth0"),
        output: Some(""),
        inner: xt::Packet {
            sport: 41_000,
            dport,
            tcp_flags: Some(tcp::SYN),
            mark: Some(0),
            ctinfo: Some(table::NEW),
            from_node: None,
        },
    }
}

/// Chain and number of each place, `policy`, or the extension's name.
fn places(table: &Table, nf_hook: u32, packet: &Packet<'_>) -> Vec<String> {
    outcomes(table, nf_hook, packet)
        .iter()
        .map(|outcome| match outcome {
            Outcome::Rule { chain, number, .. } => format!("{} {number}", chain.name),
            Outcome::Policy(chain) => format!("{} policy", chain.name),
            Outcome::Extension { chain, number, name } => format!("{} {number} {name}", chain.name),
        })
        .collect()
}

const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;

#[test]
fn reads_chains_with_their_hooks_and_policies() {
    let table = filter4();
    let chains: Vec<_> = table
        .chains
        .iter()
        .map(|chain| (chain.name.as_str(), chain.base, chain.rules.len()))
        .collect();
    assert_eq!(
        chains,
        [
            ("INPUT", Some((INPUT, Verdict::Accept)), 2),
            ("FORWARD", Some((FORWARD, Verdict::Drop)), 1),
            ("OUTPUT", Some((OUTPUT, Verdict::Accept)), 0),
            ("KUBE-EMPTY", None, 0),
            ("KUBE-EXTERNAL-SERVICES", None, 2),
            ("KUBE-FIREWALL", None, 3),
        ]
    );
}

#[test]
fn reads_rules_as_the_tool_prints_them() {
    let table = filter4();
    let input = rules(&table, "INPUT");
    assert_eq!(
        (&input[0].target, &input[1].target),
        (&Target::Jump(4), &Target::Goto(5))
    );
    let external = rules(&table, "KUBE-EXTERNAL-SERVICES");
    assert_eq!(
        external[0].comment().as_deref(),
        Some("shop/web:http has no endpoints")
    );
    assert_eq!(external[0].matches.iter().find_map(Match::dport), Some(30_080));
    assert_eq!(external[0].target, Target::Extension("REJECT".to_owned()));
    assert_eq!(external[1].target, Target::Verdict(Verdict::Drop));
    assert!(!external[0].address.has_destination());
    let firewall = rules(&table, "KUBE-FIREWALL");
    assert!(firewall[0].address.has_destination());
    assert_eq!(firewall[1].target, Target::Nothing);
}

#[test]
fn a_rule_is_found_by_where_its_target_stands() {
    let table = filter4();
    let wanted = &rules(&table, "KUBE-EXTERNAL-SERVICES")[1];
    let found = table.rule_at(wanted.target_at).expect("the rule");
    assert_eq!(
        (found.chain.name.as_str(), found.number),
        ("KUBE-EXTERNAL-SERVICES", 2)
    );
    assert!(table.rule_at(wanted.target_at + 8).is_none());
}

#[test]
fn the_one_rule_that_could_have_dropped_a_packet_is_found() {
    let table = filter4();
    assert_eq!(places(&table, INPUT, &syn(30_081)), ["KUBE-EXTERNAL-SERVICES 2"]);
    // Only rules that the packet does not match could drop it.
    assert!(places(&table, INPUT, &syn(30_082)).is_empty());
    let marked = Packet {
        inner: xt::Packet {
            mark: Some(0x8000),
            ..syn(30_082).inner
        },
        ..syn(30_082)
    };
    assert_eq!(places(&table, INPUT, &marked), ["KUBE-FIREWALL 3"]);
    // The rule for the service matches a local address. Whether this one is local is unknown, so both are possible.
    let marked = Packet {
        inner: xt::Packet {
            mark: None,
            ..syn(30_081).inner
        },
        ..syn(30_081)
    };
    assert_eq!(
        places(&table, INPUT, &marked),
        ["KUBE-EXTERNAL-SERVICES 2", "KUBE-FIREWALL 3"]
    );
    assert_eq!(
        places(&table, INPUT, &syn(30_080)),
        ["KUBE-EXTERNAL-SERVICES 1 REJECT"]
    );
    assert!(places(&table, OUTPUT, &syn(30_081)).is_empty());
}

#[test]
fn a_policy_drops_what_no_rule_accepts() {
    let table = filter4();
    let forwarded = |input, output| Packet {
        input,
        output,
        ..syn(8080)
    };
    let fate = |input, output| places(&table, FORWARD, &forwarded(input, output));
    assert_eq!(fate(Some("eth0"), Some("cali1")), ["FORWARD policy"]);
    assert!(fate(Some("cali2"), Some("cali1")).is_empty());
    assert_eq!(fate(Some("cali2"), Some("eth0")), ["FORWARD policy"]);
    assert_eq!(fate(Some("cali2"), None), ["FORWARD policy"]);
}

#[test]
fn reads_tables_of_ipv6() {
    let table = filter6();
    let external = rules(&table, "KUBE-EXTERNAL-SERVICES");
    assert_eq!(
        external[0].comment().as_deref(),
        Some("shop/web:http has no endpoints")
    );
    let from = |source: &str| Packet {
        source: source.parse().expect("an address"),
        destination: "fd00::1".parse().expect("an address"),
        ..syn(30_080)
    };
    assert_eq!(
        places(&table, INPUT, &from("fd00:10::2")),
        ["KUBE-EXTERNAL-SERVICES 1 REJECT"]
    );
    assert_eq!(
        places(&table, INPUT, &from("fd00:11::2")),
        ["KUBE-EXTERNAL-SERVICES 2"]
    );
    assert!(places(&table, INPUT, &from("fd00:12::2")).is_empty());
}

#[test]
fn a_damaged_table_is_left_out() {
    let bytes = include_bytes!("captured/filter4.bin");
    for end in (INFO + 1)..bytes.len() {
        // Some cuts fall between two entries.
        if let Some(table) = parsed(false, &bytes[..end]) {
            assert!(table.rules().count() < filter4().rules().count() + 1);
        }
    }
    let mut endless = bytes.to_vec();
    // The first entry's two lengths.
    endless[INFO + 88..INFO + 92].fill(0);
    assert_eq!(parsed(false, &endless), None);
}

#[test]
fn chains_that_call_one_another_without_end_take_no_stack() {
    const CHAINS: usize = 200_000;
    let chain = |index: usize| Chain {
        name: format!("C{index}"),
        base: (index == 0).then_some((1, Verdict::Accept)),
        rules: vec![Rule {
            address: AddressMatch::default(),
            matches: Vec::new(),
            // The last one calls the first.
            target: if index.is_multiple_of(2) {
                Target::Jump((index + 1) % CHAINS)
            } else {
                Target::Goto((index + 1) % CHAINS)
            },
            translation: None,
            target_at: 0,
        }],
    };
    let mut table = Table {
        name: "filter".to_owned(),
        is_v6: false,
        chains: (0..CHAINS).map(chain).collect(),
    };
    assert!(places(&table, 1, &syn(1)).is_empty());
    table.chains[CHAINS - 1].rules[0].target = Target::Verdict(Verdict::Drop);
    assert_eq!(places(&table, 1, &syn(1)), [format!("C{} 1", CHAINS - 1)]);
    table.chains[7].rules[0].target = Target::Jump(usize::MAX);
    assert!(places(&table, 1, &syn(1)).is_empty());
}
