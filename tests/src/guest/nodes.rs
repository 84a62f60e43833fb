//! Other nodes and the routes to their pods: tunnels and routes as Calico's Felix and BIRD write them.
//!
//! With IPIP each node uses the kernel's own `tunl0`, and a route through it names the other node: the outer
//! packet goes to the route's gateway. With VXLAN each node has a `vxlan.calico`. The gateway is the other
//! node's tunnel address: a permanent neighbour entry gives its MAC address, and a permanent FDB entry gives
//! that one's node.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Context, Result};

use super::netns::Netns;
use super::{client, modules, sysctl, tool};
use crate::scenario::{self, Overlay, Topology, address};

/// Calico's VXLAN device.
const VXLAN: &str = "vxlan.calico";

/// The kernel's fallback IPIP device, which every netns has.
const IPIP: &str = "tunl0";

/// Another node.
#[derive(Debug)]
pub(super) struct OtherNode {
    name: String,
    netns: Netns,
}

/// One end of the path between two nodes.
struct End {
    /// The node's name for `ip -n`; `None` for the first node.
    netns: Option<String>,
    /// Its address on the nodes' network.
    address: IpAddr,
    /// Its tunnel address.
    tunnel: IpAddr,
    /// Its device towards the other end.
    device: String,
    /// The networks of its pods.
    networks: Vec<IpAddr>,
}

impl OtherNode {
    /// Builds the node's netns and its link to the first node.
    pub(super) fn create(node: &scenario::OtherNode, topology: &Topology) -> Result<Self> {
        let netns = Netns::create(&node.name, node.address)?;
        netns.run(|| sysctl::write(topology.family.forwarding(), 1))?;
        let (name, address, device) = (&node.name, node.address, device(topology, node));
        let (bits, first) = (address::bits(address), topology.node_address());
        // The first node has its address on this link too, as if all links were its single uplink: what it
        // masquerades towards this node gets that address.
        tool::run_with_input(
            "ip -batch -",
            &format!(
                "link add {device} type veth peer name eth0 netns {name}\n\
                 addr add {} dev {device}\n\
                 link set {device} up\n\
                 route add {address}/{bits} dev {device} src {first}\n",
                address::of_device(first, bits)
            ),
        )?;
        let own = address::of_device(address, address::prefix(address));
        netns.ip(&format!(
            "addr add {own} dev eth0\nlink set eth0 up\nroute add default via {first}\n"
        ))?;
        Ok(Self {
            name: name.clone(),
            netns,
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its netns.
    pub(super) fn netns(&self) -> &Netns {
        &self.netns
    }
}

/// The first node's device towards another one.
pub(super) fn device(topology: &Topology, node: &scenario::OtherNode) -> String {
    let nth = topology.nodes.iter().position(|other| other == node);
    client::device(topology.outside().count() + nth.unwrap_or_default())
}

/// Prepares the kernel for the overlay, before any netns is created. The modules loaded here are removed with
/// the scenario, and `tunl0` with them.
pub(super) fn prepare(overlay: Overlay) -> Result<()> {
    match overlay {
        Overlay::Ipip => modules::probe("ipip"),
        Overlay::None | Overlay::Vxlan => Ok(()),
    }
}

/// Connects the first node's pods with those of each other node.
pub(super) fn connect(topology: &Topology) -> Result<()> {
    for (nth, node) in topology.nodes.iter().enumerate() {
        let here = End {
            netns: None,
            address: topology.node_address(),
            tunnel: address::tunnel(topology.family, 0),
            device: device(topology, node),
            networks: networks(topology, None),
        };
        let there = End {
            netns: Some(node.name.clone()),
            address: node.address,
            tunnel: address::tunnel(topology.family, nth + 1),
            device: "eth0".to_owned(),
            networks: networks(topology, Some(&node.name)),
        };
        let overlay = topology.overlay;
        for (from, to) in [(&here, &there), (&there, &here)] {
            let of = from.netns.as_deref().unwrap_or("the node");
            set_up_path(overlay, from, to).with_context(|| format!("cannot set up the routes from {of}"))?;
        }
    }
    Ok(())
}

fn networks(topology: &Topology, node: Option<&str>) -> Vec<IpAddr> {
    // A pod in its node's netns has its node's address, which is never reached through a tunnel.
    let own = topology.pods.iter().filter(|pod| !pod.host_network);
    let pods = own.filter(|pod| pod.node.as_deref() == node);
    pods.map(|pod| address::network(pod.address)).collect()
}

fn set_up_path(overlay: Overlay, from: &End, to: &End) -> Result<()> {
    let in_netns = from
        .netns
        .as_ref()
        .map_or_else(String::new, |name| format!(" -n {name}"));
    tool::run_with_input(
        &format!("ip{in_netns} -batch -"),
        &links_and_routes(overlay, from, to),
    )?;
    if overlay == Overlay::Vxlan {
        tool::run(&format!("bridge{in_netns} fdb append {}", forwarding(to)))?;
    }
    Ok(())
}

/// The input of `ip` at one end.
fn links_and_routes(overlay: Overlay, from: &End, to: &End) -> String {
    let (own, peer, device) = (from.tunnel, to.tunnel, &from.device);
    let bits = address::bits(own);
    let mut lines = String::new();
    let (gateway, device, protocol) = match overlay {
        Overlay::None => (to.address, device.as_str(), "bird"),
        Overlay::Ipip => {
            let _ = writeln!(lines, "link set {IPIP} mtu 1480 up");
            let _ = writeln!(lines, "addr replace {own}/{bits} dev {IPIP}");
            let _ = writeln!(
                lines,
                "route replace {peer}/{bits} via {} dev {IPIP} proto bird onlink",
                to.address
            );
            (to.address, IPIP, "bird")
        }
        Overlay::Vxlan => {
            let (mac, local) = (mac(own), from.address);
            let _ = writeln!(
                lines,
                "link add {VXLAN} address {mac} type vxlan id 4096 local {local} dev {device} dstport 4789 nolearning"
            );
            let mtu = if local.is_ipv6() { 1430 } else { 1450 };
            let _ = writeln!(lines, "link set {VXLAN} mtu {mtu} up");
            let _ = writeln!(
                lines,
                "addr replace {} dev {VXLAN}",
                address::of_device(own, bits)
            );
            let peers = self::mac(peer);
            let _ = writeln!(
                lines,
                "neigh replace {peer} lladdr {peers} dev {VXLAN} nud permanent"
            );
            let _ = writeln!(
                lines,
                "route replace {peer}/{bits} dev {VXLAN} proto 80 scope link"
            );
            (peer, VXLAN, "80")
        }
    };
    for network in &to.networks {
        let prefix = address::prefix(*network);
        let _ = writeln!(
            lines,
            "route replace {network}/{prefix} via {gateway} dev {device} proto {protocol} onlink"
        );
    }
    lines
}

/// The FDB entry for the other end's tunnel.
fn forwarding(to: &End) -> String {
    let (mac, address) = (mac(to.tunnel), to.address);
    format!("{mac} dev {VXLAN} dst {address} self permanent")
}

/// The MAC address of a VXLAN device; Calico derives it from the node's name.
fn mac(tunnel: IpAddr) -> String {
    address::mac(tunnel).replacen("0a:58", "66:54", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(netns: Option<&str>, address: &str, tunnel: &str, device: &str, network: &str) -> End {
        End {
            netns: netns.map(str::to_owned),
            address: address.parse().unwrap(),
            tunnel: tunnel.parse().unwrap(),
            device: device.to_owned(),
            networks: vec![network.parse().unwrap()],
        }
    }

    fn lines(overlay: Overlay) -> Vec<String> {
        let here = end(None, "10.0.0.1", "10.244.0.1", "eth1", "10.244.1.0");
        let there = end(Some("node-b"), "10.0.0.12", "10.244.0.2", "eth0", "10.244.65.0");
        links_and_routes(overlay, &here, &there)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn without_an_overlay_the_gateway_is_the_node() {
        let route = "route replace 10.244.65.0/24 via 10.0.0.12 dev eth1 proto bird onlink";
        assert_eq!(lines(Overlay::None), [route]);
    }

    #[test]
    fn with_ipip_the_gateway_is_the_node_and_the_device_the_tunnel() {
        let lines = lines(Overlay::Ipip);
        assert_eq!(
            lines.last().unwrap(),
            "route replace 10.244.65.0/24 via 10.0.0.12 dev tunl0 proto bird onlink"
        );
    }

    #[test]
    fn with_vxlan_the_gateway_is_the_tunnel_address_with_a_neighbour_entry() {
        let lines = lines(Overlay::Vxlan);
        let neighbour = "neigh replace 10.244.0.2 lladdr 66:54:0a:f4:00:02 dev vxlan.calico nud permanent";
        assert!(lines.iter().any(|line| line == neighbour), "{lines:?}");
        assert_eq!(
            lines.last().unwrap(),
            "route replace 10.244.65.0/24 via 10.244.0.2 dev vxlan.calico proto 80 onlink"
        );
    }
}
