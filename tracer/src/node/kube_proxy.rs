//! Reads the services in kube-proxy's rules and sets.

use std::io;

use super::{ipset, iptables, nft};
use crate::facts::{
    kube_proxy::{CHAINS, LocalNodePorts, NO_ENDPOINTS, NODE_PORTS, NodePorts, TABLE},
    nft::Family,
};

/// Reads the service names in the rules of the calling thread's network namespace.
pub fn node_ports() -> io::Result<NodePorts> {
    let mut out = NodePorts::default();
    if nft::is_there() {
        for (table, chain) in CHAINS {
            for rule in nft::rules(Some(table), Some(chain))? {
                if !rule.has_destination && matches!(rule.family, Family::Ip | Family::Ip6) {
                    out.add_rule(rule.dport, rule.family == Family::Ip6, rule.comment.as_deref());
                }
            }
        }
        for family in [Family::Ip, Family::Ip6] {
            for name in [NODE_PORTS, NO_ENDPOINTS] {
                out.add_map(&nft::map(family, TABLE, name)?);
            }
        }
    }
    for table in iptables::tables(&CHAINS.map(|(table, _)| table))? {
        for found in table.rules() {
            let is_one = CHAINS.contains(&(table.name.as_str(), found.chain.name.as_str()));
            if is_one && !found.rule.address.has_destination() {
                out.add_rule(found.rule.dport(), table.is_v6, found.rule.comment().as_deref());
            }
        }
    }
    Ok(out)
}

/// Reads the NodePorts of services with `externalTrafficPolicy: Local` in the calling thread's network namespace.
pub fn local_node_ports() -> io::Result<LocalNodePorts> {
    let set = |name| ipset::ports(name).map(Option::unwrap_or_default);
    Ok(LocalNodePorts::of(
        set("KUBE-NODE-PORT-LOCAL-TCP")?,
        set("KUBE-6-NODE-PORT-LOCAL-TCP")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_running_kernel() {
        if let Err(error) = node_ports() {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
    }
}
