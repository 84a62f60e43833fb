//! The state of a node as `tracer check` judges it: settings, counters, services, devices and rules at one time. Plain data, for
//! recordings and tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use serde::{Deserialize, Serialize};

use super::{
    counters::Counters,
    ipvs::{Listens, Service},
    link::Program,
    node_address::{NodeAddress, Peer},
    reading::Reading,
    rule_summary::RuleSummary,
    sysctl::Sysctls,
};

/// Kubernetes' default NodePort range.
pub const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// The state of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeState {
    /// The node's name.
    pub host: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The distribution: `ID`, `VERSION_ID` and `PRETTY_NAME` of os-release.
    pub distribution: Distribution,
    /// Number of CPUs.
    pub cpus: u32,
    /// The loaded modules.
    pub modules: BTreeSet<String>,
    /// Which of the kernel functions that `tracer check` looks for exist.
    pub functions: Reading<BTreeSet<String>>,
    /// Sysctls.
    pub sysctls: Sysctls,
    /// Counters of the node's network namespace.
    pub counters: Counters,
    /// Seconds between the two readings of all counters; 0 if there was only one.
    pub interval_s: u32,
    /// IPVS.
    pub ipvs: Reading<Ipvs>,
    /// Listening sockets of the node's network namespace.
    pub listeners: Vec<Listener>,
    /// Other network namespaces, each by a process in it.
    pub pods: Vec<Pod>,
    /// Network devices.
    pub devices: Vec<Device>,
    /// Addresses of the node.
    pub addresses: Reading<Vec<NodeAddress>>,
    /// Gateways of routes.
    pub gateways: Vec<Peer>,
    /// Neighbours with a known MAC address.
    pub neighbours: Vec<Peer>,
    /// The API server's address in kubelet's configuration.
    pub api_server: Option<IpAddr>,
    /// Rules of legacy iptables.
    pub legacy_rules: Reading<RuleSummary>,
    /// Rules of nf_tables.
    pub nft_rules: Reading<RuleSummary>,
    /// IP sets.
    pub ip_sets: Reading<Vec<IpSet>>,
    /// What this kernel offers to tracing programs.
    pub tracing: Tracing,
    /// Programs that run on the node and matter, by the name of the process.
    pub processes: BTreeSet<String>,
    /// firewalld's setting `FlushAllOnReload`.
    pub firewalld_flushes: Option<bool>,
    /// Whether the configuration of `NetworkManager` excludes devices (`unmanaged-devices`).
    pub has_unmanaged_devices: bool,
    /// The experiment with reused ports (`--try`).
    pub reuse_trial: Reading<ReuseTrial>,
}

/// The distribution, from os-release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Distribution {
    /// For example `centos`.
    pub id: String,
    /// For example `7`.
    pub version: String,
    /// For example `CentOS Linux 7 (Core)`.
    pub name: String,
}

impl Distribution {
    /// Parses `/etc/os-release`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let value = |wanted: &str| {
            let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
            let value = lines.find(|(name, _)| *name == wanted).map(|(_, value)| value);
            value
                .unwrap_or_default()
                .trim_matches(|quote| quote == '"' || quote == '\'')
                .to_owned()
        };
        Self {
            id: value("ID"),
            version: value("VERSION_ID"),
            name: value("PRETTY_NAME"),
        }
    }
}

/// IPVS of the node's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ipvs {
    /// Virtual services and their real servers.
    pub services: Vec<Service>,
    /// Number of buckets of the connection table.
    pub buckets: Option<u64>,
    /// The timeout of established TCP connections, seconds.
    pub tcp_timeout_s: Reading<u32>,
}

impl Ipvs {
    /// The number of connection entries, by the counts of the real servers.
    #[must_use]
    pub fn connections(&self) -> u64 {
        let servers = self.services.iter().flat_map(|service| &service.real_servers);
        servers
            .map(|server| u64::from(server.active) + u64::from(server.inactive))
            .sum()
    }

    /// The addresses of the virtual services.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.services.iter().filter_map(|service| match service.listens {
            Listens::Address { address, .. } => Some(address),
            Listens::Mark(_) => None,
        })
    }

    /// The number of buckets in the heading of `/proc/net/ip_vs`: `IP Virtual Server version 1.2.1 (size=4096)`.
    #[must_use]
    pub fn buckets_in(text: &str) -> Option<u64> {
        let size = text.lines().next()?.split_once("(size=")?.1;
        size.trim_end().strip_suffix(')')?.parse().ok()
    }
}

/// A listening TCP socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Its address.
    pub address: SocketAddr,
    /// Connections that wait for `accept()`.
    pub waiting: u32,
}

impl Listener {
    /// Parses the listeners in `/proc/net/tcp` or `tcp6`, which prints them first. For a listener, the receive queue is the number
    /// of connections that wait (`get_tcp4_sock`, `net/ipv4/tcp_ipv4.c`).
    #[must_use]
    pub fn parse_all(text: &str) -> Vec<Self> {
        let mut out = Vec::new();
        for line in text.lines().skip(1) {
            let Some(socket) = super::tcp_socket::TcpSocket::parse(line) else {
                continue;
            };
            if !socket.is_listener() {
                break;
            }
            let queues = line.split_ascii_whitespace().nth(4);
            let waiting = queues.and_then(|queues| u32::from_str_radix(queues.split_once(':')?.1, 16).ok());
            out.push(Self {
                address: socket.local,
                waiting: waiting.unwrap_or_default(),
            });
        }
        out
    }
}

/// A network namespace other than the node's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// A process in it.
    pub pid: u32,
    /// That process's name.
    pub process: String,
    /// Its counters.
    pub counters: Counters,
    /// Its listening sockets.
    pub listeners: Vec<Listener>,
}

/// A network device, as sysfs describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// `ARPHRD_*`.
    pub hardware: u32,
    /// Its kind where sysfs has it, for example `vxlan` or `bridge`.
    pub kind: String,
    /// Whether it is backed by hardware.
    pub is_physical: bool,
    /// Whether it is up.
    pub is_up: bool,
    /// XDP and tc programs attached to it.
    pub programs: Vec<Program>,
}

impl Device {
    /// The bytes that this tunnel adds to each packet; `None` if it is no tunnel.
    #[must_use]
    pub fn tunnel_overhead(&self) -> Option<u32> {
        const IPIP: u32 = 768;
        match (self.hardware, self.kind.as_str()) {
            (IPIP, _) => Some(20),
            (_, "vxlan") => Some(50),
            (_, "wireguard") => Some(60),
            _ => None,
        }
    }
}

/// An IP set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpSet {
    /// Its name.
    pub name: String,
    /// Its type, for example `hash:net`.
    pub kind: String,
    /// The revision of the type with which it was created.
    pub revision: u8,
    /// The newest revision of the type that the kernel supports.
    pub newest: Option<u8>,
}

/// What the kernel offers to tracing programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tracing {
    /// Whether the kernel has BTF.
    pub has_btf: bool,
    /// Whether `ip_vs` has BTF, where it is loaded.
    pub has_ipvs_btf: bool,
    /// Lockdown mode: `none`, `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// Whether `SELinux` is enforcing.
    pub selinux: Option<bool>,
}

/// What happened to connections from reused ports in a private network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReuseTrial {
    /// Milliseconds until the second connection from the port was open, with `conn_reuse_mode` 1.
    pub reused_ms: Option<u64>,
    /// The same for a port that was not used before.
    pub fresh_ms: Option<u64>,
}

impl ReuseTrial {
    /// Whether the first SYN of the reused port was dropped: opening took a retransmission more. `None` if the trial was not
    /// conclusive.
    #[must_use]
    pub fn drops(&self) -> Option<bool> {
        /// The first retransmission of a SYN follows after one second (`TCP_TIMEOUT_INIT`).
        const RETRANSMISSION_MS: u64 = 900;
        let (reused, fresh) = (self.reused_ms?, self.fresh_ms?);
        (fresh < RETRANSMISSION_MS).then_some(reused >= RETRANSMISSION_MS)
    }
}

impl NodeState {
    /// A numeric sysctl.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.sysctls.number(name)
    }

    /// IPVS, if it has virtual services.
    #[must_use]
    pub fn ipvs_in_use(&self) -> Option<&Ipvs> {
        self.ipvs.get().filter(|ipvs| !ipvs.services.is_empty())
    }

    /// The device with this index.
    #[must_use]
    pub fn device(&self, index: u32) -> Option<&Device> {
        self.devices.iter().find(|device| device.index == index)
    }

    /// The addresses of a device, by its name.
    pub fn addresses_of<'a>(&'a self, device: &str) -> impl Iterator<Item = IpAddr> + use<'a> {
        let index = self
            .devices
            .iter()
            .find(|found| found.name == device)
            .map(|found| found.index);
        let all = self.addresses.get().into_iter().flatten();
        all.filter(move |address| Some(address.device) == index)
            .map(|address| address.ip)
    }

    /// Settings by the name of a device: all those of `net.ipv4.conf.DEVICE.NAME`.
    #[must_use]
    pub fn per_device(&self, setting: &str) -> BTreeMap<&str, i64> {
        let of = |name: &'_ str| -> Option<(usize, usize)> {
            let rest = name.strip_prefix("net.ipv4.conf.")?;
            let device = rest.strip_suffix(setting)?.strip_suffix('.')?;
            Some(("net.ipv4.conf.".len(), device.len()))
        };
        self.sysctls
            .iter()
            .filter_map(|(name, value)| {
                let (start, length) = of(name)?;
                Some((name.get(start..start + length)?, value.parse().ok()?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_parsed() {
        let text =
            "NAME=\"CentOS Linux\"\nVERSION_ID=\"7\"\nID=\"centos\"\nPRETTY_NAME=\"CentOS Linux 7 (Core)\"\n";
        let found = Distribution::parse(text);
        assert_eq!((found.id.as_str(), found.version.as_str()), ("centos", "7"));
        assert_eq!(found.name, "CentOS Linux 7 (Core)");
        assert_eq!(Distribution::parse(""), Distribution::default());
    }

    #[test]
    fn listeners_come_first_and_have_a_queue() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 00000000:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 27 1\n\
            1: 0100007F:1F90 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 28 1\n";
        let found = Listener::parse_all(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].address.port(), found[0].waiting), (8080, 3));
    }

    #[test]
    fn the_heading_has_the_size_of_the_table() {
        assert_eq!(
            Ipvs::buckets_in("IP Virtual Server version 1.2.1 (size=4096)\nProt\n"),
            Some(4096)
        );
        assert_eq!(Ipvs::buckets_in(""), None);
    }

    #[test]
    fn settings_of_devices_are_found() {
        let state = NodeState {
            sysctls: [("net.ipv4.conf.cali1.rp_filter".to_owned(), "1".to_owned())]
                .into_iter()
                .collect(),
            ..NodeState::default()
        };
        assert_eq!(state.per_device("rp_filter").get("cali1"), Some(&1));
    }

    #[test]
    fn a_trial_needs_a_fast_first_connection() {
        let drops = |reused_ms, fresh_ms| ReuseTrial { reused_ms, fresh_ms }.drops();
        assert_eq!(drops(Some(1020), Some(2)), Some(true));
        assert_eq!(drops(Some(3), Some(2)), Some(false));
        assert_eq!(drops(Some(1020), Some(1010)), None);
        assert_eq!(drops(None, Some(2)), None);
    }
}
