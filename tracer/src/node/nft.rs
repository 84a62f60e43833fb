//! Reads the rules, chains and maps of `nf_tables`.

use std::io;

use netlink_packet_core::DefaultNla;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{modules, netlink::Connection};
use crate::facts::{
    netlink::attribute,
    nft::{
        self, Chain, Family,
        elements::Elements,
        map::{self, Map},
        port_set::{self, SetName},
        rule::{self, Rule},
        ruleset::{MapName, Ruleset},
    },
    port_range::PortRanges,
};

/// `NFNL_SUBSYS_NFTABLES`.
const NF_TABLES: u16 = 10 << 8;
/// `NFT_MSG_GETCHAIN`.
const GET_CHAIN: u16 = 4;
/// `NFT_MSG_GETRULE`.
const GET_RULE: u16 = 7;
/// `NFT_MSG_GETSETELEM`.
const GET_ELEMENTS: u16 = 13;
/// `NFT_MSG_GETGEN`.
const GET_GENERATION: u16 = 16;

/// Whether `nf_tables` is loaded or built in. If not, a request would make the kernel load it.
#[must_use]
pub fn is_there() -> bool {
    modules::read().is_ok_and(|modules| modules.has("nf_tables"))
}

/// Reads the chains of the calling thread's network namespace.
pub fn chains() -> io::Result<Vec<Chain>> {
    if !is_there() {
        return Ok(Vec::new());
    }
    let answers = list(&mut open()?, GET_CHAIN, 0, &[])?;
    Ok(answers
        .iter()
        .filter_map(|answer| nft::parse_chain(answer))
        .collect())
}

/// Reads the generation of the rules, chains and maps in the calling thread's network namespace. It changes with each of
/// them.
pub fn generation() -> io::Result<u32> {
    let answers = open()?.request(NF_TABLES | GET_GENERATION, &head(0), &[])?;
    answers
        .iter()
        .find_map(|answer| attribute(answer.get(4..)?, 1).and_then(nft::number))
        .ok_or_else(|| io::Error::other("the kernel did not report the generation of the ruleset"))
}

fn open() -> io::Result<Connection> {
    Connection::open(NETLINK_NETFILTER)
}

/// A `struct nfgenmsg`: family (0 for any), version 0, resource 0.
const fn head(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// Requests a list, filtered by names, each with the number of its attribute.
fn list(
    connection: &mut Connection,
    kind: u16,
    family: u8,
    named: &[(u16, &str)],
) -> io::Result<Vec<Vec<u8>>> {
    let attributes: Vec<DefaultNla> = named
        .iter()
        .map(|&(attribute, name)| DefaultNla::new(attribute, [name.as_bytes(), &[0]].concat()))
        .collect();
    connection.list(NF_TABLES | kind, &head(family), &attributes)
}

/// Reads rules: all, or only those of tables and chains with the given names. Call it only if [`is_there`].
pub fn rules(table: Option<&str>, chain: Option<&str>) -> io::Result<Vec<Rule>> {
    let named = [(1, table), (2, chain)]
        .into_iter()
        .filter_map(|(kind, name)| Some((kind, name?)))
        .collect::<Vec<_>>();
    let answers = list(&mut open()?, GET_RULE, 0, &named)?;
    Ok(rule::parse(answers.iter().map(Vec::as_slice)))
}

/// Reads all chains and rules. Call it only if [`is_there`].
pub fn ruleset() -> io::Result<Ruleset> {
    Ok(Ruleset::new(chains()?, rules(None, None)?))
}

/// Adds maps to the rules. The caller checks that the rules have not changed since they were read.
pub fn add_maps(ruleset: &mut Ruleset, names: impl IntoIterator<Item = MapName>) -> io::Result<()> {
    let mut connection = open()?;
    for name in names {
        let named = [(1, name.table.as_str()), (2, name.name.as_str())];
        let answers = list(&mut connection, GET_ELEMENTS, name.family.into(), &named);
        let elements = answers.map_or_else(|_| None, |all| Elements::parse(all.iter().map(Vec::as_slice)));
        ruleset.add_map(name, elements);
    }
    Ok(())
}

/// Reads the elements of a verdict map; none if there is no such map.
pub fn map(family: Family, table: &str, name: &str) -> io::Result<Map> {
    let named = [(1, table), (2, name)];
    let answers = match list(&mut open()?, GET_ELEMENTS, family.into(), &named) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    Ok(Map {
        family,
        table: table.to_owned(),
        name: name.to_owned(),
        elements: map::parse(answers.iter().map(Vec::as_slice)),
    })
}

/// Reads the ports in the keys of a set or map.
pub fn ports(set: &SetName) -> io::Result<PortRanges> {
    let named = [(1, set.table.as_str()), (2, set.name.as_str())];
    let answers = list(&mut open()?, GET_ELEMENTS, set.family.into(), &named)?;
    Ok(port_set::parse(answers.iter().map(Vec::as_slice), set.unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_running_kernel() {
        // Listing needs CAP_NET_ADMIN.
        if let Err(error) = chains() {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
    }
}
