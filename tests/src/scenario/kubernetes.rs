//! A real control plane instead of the lab's stand-in for kube-proxy.

use serde::Deserialize;

/// The control plane of a scenario. Services and endpoints are written to its API server; kube-proxy reads
/// them there and writes the node's rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// The version of kube-proxy and the API server.
    pub version: ControlPlaneVersion,
    /// The kernel release that kube-proxy reads in `/proc/sys/kernel/osrelease`, if it is not the real one.
    pub osrelease: Option<String>,
}

/// A version of Kubernetes that the lab can build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ControlPlaneVersion {
    /// 1.20.
    #[serde(rename = "1.20")]
    V1_20,
}

/// What happens to kube-proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KubeProxy {
    /// It is stopped; its rules stay.
    Stop,
    /// `kube-proxy --cleanup` runs.
    Cleanup,
    /// It is started in IPVS mode.
    StartIpvs,
    /// It is started in iptables mode.
    StartIptables,
}
