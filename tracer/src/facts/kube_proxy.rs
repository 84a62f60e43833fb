//! Service names in kube-proxy's rules.
//!
//! IPVS services have no names. Rules do: in iptables mode in comments, in nftables mode in the names of chains and the
//! comments of map elements.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::nft::{Family, map::Map};

/// The table of kube-proxy's nftables mode.
pub const TABLE: &str = "kube-proxy";
/// Its map from NodePorts to services.
pub const NODE_PORTS: &str = "service-nodeports";
/// Its map of NodePorts without an endpoint.
pub const NO_ENDPOINTS: &str = "no-endpoint-nodeports";
/// The iptables chains whose rules match NodePorts and name the service: table and chain.
pub const CHAINS: [(&str, &str); 2] = [("nat", "KUBE-NODEPORTS"), ("filter", "KUBE-EXTERNAL-SERVICES")];

/// Names of services by NodePort, for TCP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Named>", into = "Vec<Named>")]
pub struct NodePorts {
    /// By family (whether it is IPv6) and port.
    names: BTreeMap<(bool, u16), BTreeSet<String>>,
}

/// One of [`NodePorts`] as stored in a recording: whether it is IPv6, the port, the names.
type Named = (bool, u16, BTreeSet<String>);

impl From<Vec<Named>> for NodePorts {
    fn from(names: Vec<Named>) -> Self {
        let names = names
            .into_iter()
            .map(|(is_v6, port, names)| ((is_v6, port), names));
        Self {
            names: names.collect(),
        }
    }
}

impl From<NodePorts> for Vec<Named> {
    fn from(node_ports: NodePorts) -> Self {
        let names = node_ports.names.into_iter();
        names.map(|((is_v6, port), names)| (is_v6, port, names)).collect()
    }
}

impl NodePorts {
    /// The service of a NodePort as `NAMESPACE/NAME`. `None` if no rule names it, or if rules disagree.
    #[must_use]
    pub fn service(&self, port: u16, is_v6: bool) -> Option<&str> {
        let names = self.names.get(&(is_v6, port))?;
        names.first().filter(|_| names.len() == 1).map(String::as_str)
    }

    /// The services that rules name, each with its port and whether it is for IPv6.
    pub fn services(&self) -> impl Iterator<Item = (u16, bool, &str)> {
        let ports = self.names.keys();
        ports.filter_map(|&(is_v6, port)| Some((port, is_v6, self.service(port, is_v6)?)))
    }

    /// Whether no rule names any service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds a NodePort's service.
    pub fn add(&mut self, port: u16, is_v6: bool, service: String) {
        self.names.entry((is_v6, port)).or_default().insert(service);
    }

    /// Adds the service named in the comment of a rule for this port.
    pub fn add_rule(&mut self, port: Option<u16>, is_v6: bool, comment: Option<&str>) {
        if let (Some(port), Some(service)) = (port, comment.and_then(in_comment)) {
            self.add(port, is_v6, service);
        }
    }

    /// Adds the services named in a map from NodePorts to services.
    pub fn add_map(&mut self, map: &Map) {
        for element in &map.elements {
            let named = element
                .comment
                .as_deref()
                .and_then(in_comment)
                .or_else(|| element.verdict.chain().and_then(in_chain));
            if let (Some(port), Some(service)) = (element.tcp_port(), named) {
                self.add(port, map.family == Family::Ip6, service);
            }
        }
    }
}

/// The service in a comment: `NAMESPACE/NAME` or `NAMESPACE/NAME:PORT`, either optionally followed by the reason why there
/// are no endpoints.
#[must_use]
pub fn in_comment(comment: &str) -> Option<String> {
    let (name, rest) = comment.split_once(' ').unwrap_or((comment, ""));
    if !matches!(rest, "" | HAS_NONE | HAS_NO_LOCAL) {
        return None;
    }
    let service = name.split_once(':').map_or(name, |(service, _)| service);
    let (namespace, name) = service.split_once('/')?;
    (is_label(namespace) && is_label(name)).then(|| service.to_owned())
}

/// The comment of kubelet's rule that drops packets marked by another rule.
pub const DROPS_MARKED: &str = "kubernetes firewall for dropping marked packets";

/// The ends of kube-proxy's comments for a service without endpoints, and for one without endpoints on this node.
const HAS_NONE: &str = "has no endpoints";
const HAS_NO_LOCAL: &str = "has no local endpoints";

/// Whether a comment says that the service has endpoints, but with `externalTrafficPolicy: Local` none on this node.
#[must_use]
pub fn says_no_local_endpoint(comment: &str) -> bool {
    in_comment(comment).is_some() && comment.ends_with(HAS_NO_LOCAL)
}

/// The service in the name of a kube-proxy chain: `external-HASH-NAMESPACE/NAME/tcp/PORT`.
#[must_use]
pub fn in_chain(chain: &str) -> Option<String> {
    let rest = ["external-", "service-", "local-", "endpoint-"]
        .iter()
        .find_map(|prefix| chain.strip_prefix(prefix))?;
    let (_, rest) = rest.split_once('-')?;
    let mut parts = rest.split('/');
    let (namespace, name, protocol) = (parts.next()?, parts.next()?, parts.next()?);
    (is_label(namespace) && is_label(name) && protocol == "tcp").then(|| format!("{namespace}/{name}"))
}

/// Whether this can be the name of a namespace or service (RFC 1123).
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.')
}

/// The NodePorts of services with `externalTrafficPolicy: Local`, in kube-proxy's IPVS mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalNodePorts {
    v4: BTreeSet<u16>,
    v6: BTreeSet<u16>,
}

impl LocalNodePorts {
    /// From the ports of both families.
    #[must_use]
    pub fn of(v4: BTreeSet<u16>, v6: BTreeSet<u16>) -> Self {
        Self { v4, v6 }
    }

    /// Whether this NodePort is one of them.
    #[must_use]
    pub fn has(&self, port: u16, is_v6: bool) -> bool {
        if is_v6 { &self.v6 } else { &self.v4 }.contains(&port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_name_services() {
        let service = |comment| in_comment(comment);
        assert_eq!(service("shop/web:http").as_deref(), Some("shop/web"));
        assert_eq!(service("shop/web").as_deref(), Some("shop/web"));
        assert_eq!(
            service("shop/web:http has no endpoints").as_deref(),
            Some("shop/web")
        );
        for other in [
            "",
            "kubernetes service portals",
            "shop/web:http -> 10.244.1.2:8080",
            "http://example.com/x",
            "a/b/c",
            "Shop/web",
            "/web",
            "masquerade traffic for shop/web:http external destinations",
        ] {
            assert_eq!(service(other), None, "{other}");
        }
        assert!(says_no_local_endpoint("shop/web has no local endpoints"));
        assert!(!says_no_local_endpoint("shop/web has no endpoints"));
        assert!(!says_no_local_endpoint("this node has no local endpoints"));
    }

    #[test]
    fn chains_name_services() {
        assert_eq!(
            in_chain("external-HVFWP5L3-shop/web/tcp/http").as_deref(),
            Some("shop/web")
        );
        assert_eq!(
            in_chain("service-HVFWP5L3-my-shop/web/tcp/").as_deref(),
            Some("my-shop/web")
        );
        assert_eq!(
            in_chain("endpoint-A5CMKJJO-shop/web/tcp/http__10.244.1.2/8080").as_deref(),
            Some("shop/web")
        );
        for other in [
            "reject-chain",
            "external-HVFWP5L3-shop/web/udp/dns",
            "external-x",
            "services",
        ] {
            assert_eq!(in_chain(other), None, "{other}");
        }
    }

    #[test]
    fn rules_that_disagree_name_nothing() {
        let mut ports = NodePorts::default();
        ports.add(30_080, false, "shop/web".to_owned());
        ports.add(30_080, false, "shop/web".to_owned());
        ports.add(30_080, true, "shop/web6".to_owned());
        assert_eq!(ports.service(30_080, false), Some("shop/web"));
        assert_eq!(ports.service(30_080, true), Some("shop/web6"));
        ports.add(30_080, false, "shop/api".to_owned());
        assert_eq!(ports.service(30_080, false), None);
        assert_eq!(ports.service(30_081, false), None);
    }
}
