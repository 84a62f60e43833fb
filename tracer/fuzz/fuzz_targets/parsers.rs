//! Damaged answers of the kernel: netlink messages, rules and maps of nf_tables, tables of iptables. The first byte chooses
//! the parser; the rest is one answer, or several, each preceded by its length.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::facts::{
    ipset,
    iptables::{self, Info},
    ipvs, kallsyms, link,
    neighbour::Neighbour,
    netlink,
    nft::{self, elements::Elements, map, rule},
    tcp_socket::TcpSocket,
};

/// The answers, each preceded by its length in two bytes.
fn answers(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        out.push(rest[..length].to_vec());
        bytes = &rest[length..];
    }
    out
}

fn nftables(bytes: &[u8]) {
    let answers = answers(bytes);
    let slices = || answers.iter().map(Vec::as_slice);
    let chains: Vec<nft::Chain> = slices().filter_map(nft::parse_chain).collect();
    let rules = rule::parse(slices());
    for rule in &rules {
        let _ = (rule.decides.drops(true), rule.decides.rejects());
    }
    let _ = nft::ruleset::Ruleset::new(chains, rules);
    let elements = map::parse(slices());
    assert!(
        elements
            .iter()
            .all(|element| element.tcp_port().is_none() || !element.key.is_empty())
    );
    let _ = Elements::parse(slices());
}

fn iptables(bytes: &[u8]) {
    let Some((head, block)) = bytes.split_at_checked(84) else {
        return;
    };
    if let Some(info) = Info::parse(head) {
        for is_v6 in [false, true] {
            let Some(table) = iptables::parse("nat", is_v6, &info, block) else {
                continue;
            };
            for found in table.rules() {
                let _ = (found.rule.comment(), found.rule.dport());
                let _ = table.rule_text(&found.chain.name, found.number);
            }
            let _ = table.rule_at(u32::from(bytes[0]));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((parser, rest)) = bytes.split_first() else {
        return;
    };
    match parser % 4 {
        0 => {
            assert!(
                netlink::attributes(rest)
                    .map(|(_, value)| value.len())
                    .sum::<usize>()
                    <= rest.len()
            );
            let _ = link::Link::parse(rest);
            let _ = Neighbour::parse(rest);
            let _ = ipset::parse(&answers(rest));
        }
        1 => nftables(rest),
        2 => iptables(rest),
        _ => {
            let _ = ipvs::parse_connections(rest).count();
            let _ = ipvs::parse_services(rest, 250);
            let _ = kallsyms::Symbols::parse(rest);
            let _ = TcpSocket::parse(&String::from_utf8_lossy(rest));
        }
    }
});
