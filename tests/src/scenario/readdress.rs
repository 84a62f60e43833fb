//! One scenario with IPv4 and with IPv6 addresses.
//!
//! A scenario file contains IPv4 addresses only. With IPv6, each party has the IPv6 address that corresponds
//! to its IPv4 one ([`address::in_family`]). Rules and shell commands are texts: they contain `{pod-1}` for
//! an address and `{ip}` for the family's keyword.

use super::{Expected, Family, RunIn, Scenario, Step, Topology, address};

impl Scenario {
    /// Returns the scenario with addresses of this family.
    #[must_use]
    pub fn in_family(&self, family: Family) -> Self {
        let mut readdressed = self.clone();
        if family == Family::Ipv6 {
            readdressed.title += " (IPv6)";
        }
        readdressed.topology.set_family(family);
        for address in readdressed
            .connects_mut()
            .filter_map(|connect| connect.to_address.as_mut())
        {
            *address = address::in_family(*address, family);
        }
        let names = Names::of(&readdressed.topology);
        for text in texts(&mut readdressed) {
            *text = names.fill_in(text);
        }
        readdressed
    }
}

impl Topology {
    fn set_family(&mut self, family: Family) {
        self.family = family;
        let clients = self.clients.iter_mut().map(|client| &mut client.address);
        let nodes = self.nodes.iter_mut().map(|node| &mut node.address);
        let pods = self.pods.iter_mut().map(|pod| &mut pod.address);
        let own = self.node_addresses.iter_mut();
        for address in clients.chain(nodes).chain(pods).chain(own) {
            *address = address::in_family(*address, family);
        }
    }
}

/// All texts of a scenario that may contain placeholders.
pub(super) fn texts(scenario: &mut Scenario) -> Vec<&mut String> {
    let mut all: Vec<&mut String> = scenario.topology.nft.iter_mut().collect();
    all.extend(scenario.steps.iter_mut().filter_map(|step| match step {
        Step::Nft(text) | Step::Run(text) | Step::RunIn(RunIn { line: text, .. }) => Some(text),
        _ => None,
    }));
    let expect = &mut scenario.expect;
    let single = expect.flows.iter_mut().map(|flow| &mut flow.expected);
    for Expected { evidence, .. } in expect.default.iter_mut().chain(single) {
        all.extend(evidence.iter_mut().filter_map(|piece| piece.value.as_mut()));
    }
    all
}

/// Placeholders, each with its address or keyword.
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

    fn readdressed(family: Family) -> Scenario {
        Scenario::from_toml(TOML).unwrap().in_family(family)
    }

    #[test]
    fn all_addresses_are_of_the_family() {
        let topology = readdressed(Family::Ipv6).topology;
        assert_eq!(topology.clients[0].address.to_string(), "fd00:10::12");
        assert_eq!(topology.pods[0].address.to_string(), "fd00:10:244:1::2");
        assert_eq!(topology.node_address().to_string(), "fd00:10::1");
        assert_eq!(
            readdressed(Family::Ipv4).topology.node_address().to_string(),
            "10.0.0.1"
        );
    }

    #[test]
    fn placeholders_in_texts_are_filled_in() {
        let texts = |family| {
            let mut readdressed = readdressed(family);
            texts(&mut readdressed)
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
