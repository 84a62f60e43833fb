//! What is known of the node besides the packets: names for addresses and numbers, tables and settings by netns.
//!
//! Plain data, so that a recording can carry it and tests can write it down.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
};

use tracer_common::hook::Hook;

use super::{
    iptables::Table,
    ipvs::{Listens, Service},
    ipvs_settings::IpvsSettings,
    kube_proxy::{LocalNodePorts, NodePorts},
    nft::{Chain, map::Map, rule::Rule},
    route::Route,
    sysctl::Sysctls,
};

/// `IPPROTO_TCP`.
const TCP: u8 = 6;

/// All facts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Names of kernel functions by return address, as far as they were asked for (`nf_hook_slow+0xc3`).
    pub symbols: HashMap<u64, String>,
    /// Names of this kernel's drop reasons by number.
    pub drop_reasons: HashMap<u32, String>,
    /// What belongs to one network namespace, by its inode number.
    pub netns: HashMap<u32, NetnsFacts>,
    /// The way from a network namespace, by its inode number, to an address, as far as it was asked for.
    pub routes: HashMap<(u32, IpAddr), Route>,
    /// When, in monotonic nanoseconds, the rules of a network namespace were read and none of them translated to this
    /// backend any more: the last few times, oldest first.
    pub unreachable_by_rule: HashMap<(u32, SocketAddr), VecDeque<u64>>,
    /// Hooks that this kernel does not have, or that could not be attached: that they showed nothing proves nothing.
    pub absent: BTreeSet<Hook>,
    /// When records were last found to be lost, monotonic nanoseconds.
    pub lost_ns: Option<u64>,
}

/// Facts of one network namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetnsFacts {
    /// Virtual services of IPVS with their real servers (`/proc/net/ip_vs`).
    pub services: Vec<Service>,
    /// Settings.
    pub sysctls: Sysctls,
    /// Settings of IPVS that decide about old entries, over time, where the kernel's memory does not tell them.
    pub ipvs_settings: IpvsSettings,
    /// Chains of nf_tables.
    pub chains: Vec<Chain>,
    /// Rules of nf_tables, once one of them has discarded a packet or rejected one.
    pub rules: Vec<Rule>,
    /// Rules that a packet has met and that were taken away since.
    pub former: VecDeque<Rule>,
    /// The verdict maps that those rules asked.
    pub maps: Vec<Map>,
    /// Legacy tables of iptables, once one of them has discarded a packet or rejected one.
    pub tables: Vec<Table>,
    /// Services by NodePort, as kube-proxy's rules name them.
    pub node_ports: NodePorts,
    /// NodePorts of services with `externalTrafficPolicy: Local`, as kube-proxy's IPVS mode keeps them.
    pub local_node_ports: LocalNodePorts,
}

impl Facts {
    /// The kernel function that a return address lies in, if it was asked for.
    #[must_use]
    pub fn symbol(&self, address: u64) -> Option<&str> {
        self.symbols.get(&address).map(String::as_str)
    }

    /// The service that a flow is for, as `NAMESPACE/NAME`, where a rule of kube-proxy's says so of its NodePort.
    #[must_use]
    pub fn service(&self, netns: u32, node: SocketAddr) -> Option<&str> {
        self.netns
            .get(&netns)?
            .node_ports
            .service(node.port(), node.is_ipv6())
    }

    /// The way to an address, if it was asked for and could be read.
    #[must_use]
    pub fn route(&self, netns: u32, to: IpAddr) -> Option<&Route> {
        self.routes.get(&(netns, to))
    }
}

impl NetnsFacts {
    /// The TCP service with this address.
    #[must_use]
    pub fn service(&self, address: SocketAddr) -> Option<&Service> {
        let listens = Listens::Address {
            protocol: TCP,
            address,
        };
        self.services.iter().find(|service| service.listens == listens)
    }
}
