//! Other nodes of the cluster, and how their pods are reached.

use std::net::IpAddr;

use serde::Deserialize;

/// Another node, in its own netns. It has its own link to the first node, and reaches it at the first node's
/// address towards the clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherNode {
    /// Its name.
    pub name: String,
    /// Its address, in the network of the clients.
    pub address: IpAddr,
}

/// How packets to pods of another node travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlay {
    /// Unencapsulated, by routes.
    #[default]
    None,
    /// In IP, through `tunl0`: Calico's `ipipMode: Always`.
    Ipip,
    /// In UDP, through `vxlan.calico`: Calico's `vxlanMode: Always`.
    Vxlan,
}
