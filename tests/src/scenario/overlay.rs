//! Other nodes of the cluster, and how their pods are reached.

use std::net::IpAddr;

use serde::Deserialize;

/// Another node, in a netns of its own. It is joined to the first node by a link of its own, and knows it by its
/// address towards the clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherNode {
    /// Its name.
    pub name: String,
    /// Its address, in the network of the clients.
    pub address: IpAddr,
}

/// How packets for pods of another node travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlay {
    /// As they are, by routes.
    #[default]
    None,
    /// In IP, through `tunl0`: Calico's `ipipMode: Always`.
    Ipip,
    /// In UDP, through `vxlan.calico`: Calico's `vxlanMode: Always`.
    Vxlan,
}
