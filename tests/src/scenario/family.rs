//! The same scenario with IPv4 and with IPv6 addresses.
//!
//! A file names IPv4 addresses only. Played with IPv6, everybody has the IPv6 address that stands for his IPv4 one
//! ([`address::in_family`]). Rules and lines for the shell are texts: they write `{pod-1}` for an address and `{ip}` for
//! what tools call the family.

use serde::Deserialize;

use super::{Evidence, Expected, RunIn, Scenario, Step, Topology, address};

/// Which addresses clients, node, pods and services have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4 addresses.
    #[default]
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
}

impl Family {
    /// What a scenario's name is followed by, where it is played with these addresses.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Ipv4 => "",
            Self::Ipv6 => "@ipv6",
        }
    }

    /// The name of a scenario's file, and the family that its own name asks for.
    #[must_use]
    pub fn of(name: &str) -> (&str, Self) {
        match name.strip_suffix(Self::Ipv6.suffix()) {
            Some(file) => (file, Self::Ipv6),
            None => (name, Self::Ipv4),
        }
    }

    /// What `nft` calls it, and what the names of tools begin with: `ip` or `ip6`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }

    /// The sysctl that makes a router of a host.
    #[must_use]
    pub const fn forwarding(self) -> &'static str {
        match self {
            Self::Ipv4 => "net.ipv4.ip_forward",
            Self::Ipv6 => "net.ipv6.conf.all.forwarding",
        }
    }

    /// What `nft` calls its control messages.
    #[must_use]
    pub const fn icmp(self) -> &'static str {
        match self {
            Self::Ipv4 => "icmp",
            Self::Ipv6 => "icmpv6",
        }
    }
}

impl Scenario {
    /// The scenario as it is played with addresses of this family.
    #[must_use]
    pub fn in_family(&self, family: Family) -> Self {
        let mut played = self.clone();
        if family == Family::Ipv6 {
            played.title += ", with IPv6";
        }
        played.topology.set_family(family);
        let names = Names::of(&played.topology);
        for text in texts(&mut played) {
            *text = names.fill_in(text);
        }
        played
    }
}

impl Topology {
    fn set_family(&mut self, family: Family) {
        self.family = family;
        let clients = self.clients.iter_mut().map(|client| &mut client.address);
        let nodes = self.nodes.iter_mut().map(|node| &mut node.address);
        let pods = self.pods.iter_mut().map(|pod| &mut pod.address);
        for address in clients.chain(nodes).chain(pods) {
            *address = address::in_family(*address, family);
        }
    }
}

/// Every text of a scenario that may name somebody.
pub(super) fn texts(scenario: &mut Scenario) -> Vec<&mut String> {
    let mut all: Vec<&mut String> = scenario.topology.nft.iter_mut().collect();
    all.extend(scenario.steps.iter_mut().filter_map(|step| match step {
        Step::Nft(text) | Step::Run(text) | Step::RunIn(RunIn { line: text, .. }) => Some(text),
        _ => None,
    }));
    let expect = &mut scenario.expect;
    let single = expect.flows.iter_mut().map(|flow| &mut flow.expected);
    for Expected { evidence, .. } in expect.default.iter_mut().chain(single) {
        for Evidence { what, value } in evidence {
            all.extend(what.iter_mut().chain(value));
        }
    }
    all
}

/// What stands for whom.
struct Names(Vec<(String, String)>);

impl Names {
    fn of(topology: &Topology) -> Self {
        let family = topology.family;
        let mut names = vec![
            ("{ip}".to_owned(), family.word().to_owned()),
            ("{icmp}".to_owned(), family.icmp().to_owned()),
            ("{node}".to_owned(), topology.node_address().to_string()),
        ];
        let clients = topology
            .clients
            .iter()
            .map(|client| (&client.name, client.address));
        let nodes = topology.nodes.iter().map(|node| (&node.name, node.address));
        let pods = topology.pods.iter().map(|pod| (&pod.name, pod.address));
        names.extend(
            clients
                .chain(nodes)
                .chain(pods)
                .map(|(name, address)| (format!("{{{name}}}"), address.to_string())),
        );
        Self(names)
    }

    fn fill_in(&self, text: &str) -> String {
        let replace = |text: String, (name, stands_for): &(String, String)| text.replace(name, stands_for);
        self.0.iter().fold(text.to_owned(), replace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
title = "A rule"
story = "It drops."
kernels = ["6.12"]
families = ["ipv4", "ipv6"]

[topology]
clients = [{ name = "client-a", address = "10.0.0.12" }]
pods = [{ name = "pod-1", address = "10.244.1.2" }]
services = [{ name = "web", node_port = 30080, real_servers = [{ pod = "pod-1" }] }]
nft = "add rule {ip} t c {ip} saddr {client-a} {ip} daddr { {pod-1}, {node} } drop"

[[steps]]
nft = "reject with {icmp} type {other}"

[[steps]]
connect = { client = "client-a", source_port = 41000 }

[expect]
default = { fate = "dropped", evidence = [{ value = "{pod-1}" }] }
"#;

    fn played(family: Family) -> Scenario {
        Scenario::from_toml(TOML).unwrap().in_family(family)
    }

    #[test]
    fn everybody_has_an_address_of_the_family() {
        let topology = played(Family::Ipv6).topology;
        assert_eq!(topology.clients[0].address.to_string(), "fd00:10::12");
        assert_eq!(topology.pods[0].address.to_string(), "fd00:10:244:1::2");
        assert_eq!(topology.node_address().to_string(), "fd00:10::1");
        assert_eq!(
            played(Family::Ipv4).topology.node_address().to_string(),
            "10.0.0.1"
        );
    }

    #[test]
    fn a_name_tells_file_and_family() {
        assert_eq!(Family::of("a-rule"), ("a-rule", Family::Ipv4));
        assert_eq!(Family::of("a-rule@ipv6"), ("a-rule", Family::Ipv6));
    }

    #[test]
    fn texts_name_them() {
        let texts = |family| {
            let mut played = played(family);
            texts(&mut played)
                .into_iter()
                .map(|text| text.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            texts(Family::Ipv4),
            [
                "add rule ip t c ip saddr 10.0.0.12 ip daddr { 10.244.1.2, 10.0.0.1 } drop",
                "reject with icmp type {other}",
                "10.244.1.2"
            ]
        );
        assert_eq!(
            texts(Family::Ipv6),
            [
                "add rule ip6 t c ip6 saddr fd00:10::12 ip6 daddr { fd00:10:244:1::2, fd00:10::1 } drop",
                "reject with icmpv6 type {other}",
                "fd00:10:244:1::2"
            ]
        );
    }
}
