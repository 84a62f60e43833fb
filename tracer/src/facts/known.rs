//! All facts of a node that diagnosis uses besides the packets: names for addresses and numbers, and tables and settings by
//! network namespace. Plain data, for recordings and tests.

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
    link::{Link, Program},
    nat_rule::NatRules,
    neighbour::Neighbour,
    nft::{Chain, map::Map, rule::Rule},
    node_state::NodeState,
    port::{Port, Ports},
    route::Route,
    route_lookup::RouteLookup,
    sysctl::Sysctls,
};
use crate::decode::watch::Gaps;

/// `IPPROTO_TCP`.
const TCP: u8 = 6;

/// The facts of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Names of kernel functions by return address (`nf_hook_slow+0xc3`), as far as flows needed them.
    pub symbols: HashMap<u64, String>,
    /// Names of this kernel's drop reasons by number.
    pub drop_reasons: HashMap<u32, String>,
    /// Facts of network namespaces by inode number.
    pub netns: HashMap<u32, NetnsFacts>,
    /// Routes by network namespace (inode number) and destination, from recordings by older versions, which looked them up
    /// by destination alone.
    pub routes: HashMap<(u32, IpAddr), Route>,
    /// Routes, as far as flows needed them. `None` where the policy rules match on something unknown.
    pub looked_up: HashMap<RouteLookup, Option<Route>>,
    /// Backends to which no rule of the network namespace (inode number) translated any more when its rules were read. The
    /// values are the last few of these times, monotonic nanoseconds, oldest first.
    pub unreachable_by_rule: HashMap<(u32, SocketAddr), VecDeque<u64>>,
    /// The rules that lead from a NodePort to a backend, by network namespace (inode number), node address and backend, as far
    /// as flows needed them.
    pub nat_rules: HashMap<(u32, SocketAddr, SocketAddr), NatRules>,
    /// A process in each network namespace (inode number) except the node's, as far as flows needed them.
    pub pids: HashMap<u32, u32>,
    /// Since when the facts of a network namespace hold, monotonic nanoseconds, by inode number: only where another namespace had
    /// that number before. About what happened earlier they say nothing.
    pub netns_since: HashMap<u32, u64>,
    /// Hooks that this kernel does not have, or that could not be attached. Their silence proves nothing.
    pub absent: BTreeSet<Hook>,
    /// The periods in which the hooks that wait for suspicion were not attached.
    pub gaps: Gaps,
    /// The state of the node when recording began, for its hazards. Diagnosis does not use it.
    pub node: Option<Box<NodeState>>,
    /// When records were last found to be lost, monotonic nanoseconds.
    pub lost_ns: Option<u64>,
}

/// Facts of one network namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetnsFacts {
    /// Virtual services of IPVS and their real servers (`/proc/net/ip_vs`).
    pub services: Vec<Service>,
    /// Sysctls.
    pub sysctls: Sysctls,
    /// Readings of the IPVS settings that decide about old connections, on kernels whose records do not have them.
    pub ipvs_settings: IpvsSettings,
    /// Chains of nf_tables.
    pub chains: Vec<Chain>,
    /// Rules of nf_tables, read after one dropped or rejected a packet.
    pub rules: Vec<Rule>,
    /// Removed rules of nf_tables that a packet had hit.
    pub removed_rules: VecDeque<Rule>,
    /// The verdict maps that those rules use.
    pub maps: Vec<Map>,
    /// Legacy tables of iptables, read after one dropped or rejected a packet.
    pub tables: Vec<Table>,
    /// Names of services by NodePort, from kube-proxy's rules.
    pub node_ports: NodePorts,
    /// NodePorts of services with `externalTrafficPolicy: Local`, from the IP sets of kube-proxy's IPVS mode.
    pub local_node_ports: LocalNodePorts,
    /// Network devices.
    pub links: Vec<Link>,
    /// BPF programs of the cgroups of its processes that see packets, read after one of them may have dropped a packet.
    pub cgroup_programs: Vec<Program>,
    /// Neighbour entries for the destinations of packets that were dropped on input elsewhere.
    pub neighbours: Vec<Neighbour>,
    /// The objects that name a port for a service, for ports that received a SYN that nothing translated.
    pub ports: Ports,
}

impl Facts {
    /// The name of the kernel function at a return address, if it is known.
    #[must_use]
    pub fn symbol(&self, address: u64) -> Option<&str> {
        self.symbols.get(&address).map(String::as_str)
    }

    /// The service at this NodePort as `NAMESPACE/NAME`, if a rule of kube-proxy names it.
    #[must_use]
    pub fn service(&self, netns: u32, node: SocketAddr) -> Option<&str> {
        self.netns
            .get(&netns)?
            .node_ports
            .service(node.port(), node.is_ipv6())
    }

    /// The facts read about a port of the node.
    #[must_use]
    pub fn port(&self, netns: u32, node: SocketAddr) -> Option<&Port> {
        self.netns.get(&netns)?.ports.get(node.port(), node.is_ipv6())
    }

    /// The route that this lookup finds, if it is known.
    #[must_use]
    pub fn route(&self, lookup: &RouteLookup) -> Option<&Route> {
        match self.looked_up.get(lookup) {
            Some(found) => found.as_ref(),
            None => self.routes.get(&(lookup.netns, lookup.to)),
        }
    }

    /// Whether this happened in a network namespace that no longer exists, and whose inode number (`netns`) another one has now.
    #[must_use]
    pub fn is_of_former_netns(&self, netns: u32, time_ns: u64) -> bool {
        self.netns_since.get(&netns).is_some_and(|&since| time_ns < since)
    }

    /// Drops the facts of a network namespace, except since when facts of its inode number hold.
    pub fn forget_netns(&mut self, netns: u32) {
        self.netns.remove(&netns);
        self.routes.retain(|&(of, _), _| of != netns);
        self.looked_up.retain(|lookup, _| lookup.netns != netns);
        self.unreachable_by_rule.retain(|&(of, _), _| of != netns);
        self.nat_rules.retain(|&(of, _, _), _| of != netns);
        self.pids.remove(&netns);
    }

    /// The lookup as the kernel makes it: the reverse path filter ignores the packet's mark, unless `src_valid_mark` is set.
    #[must_use]
    pub fn as_made(&self, lookup: RouteLookup) -> RouteLookup {
        let unmarked = lookup.unmarked();
        let is_unmarked = !self.looked_up.contains_key(&lookup) && self.looked_up.contains_key(&unmarked);
        if lookup.is_reverse && is_unmarked {
            unmarked
        } else {
            lookup
        }
    }

    /// Whether the policy rules of the network namespace match on a property of this lookup that is unknown.
    #[must_use]
    pub fn is_undecidable(&self, lookup: &RouteLookup) -> bool {
        self.looked_up.get(lookup) == Some(&None)
    }
}

impl NetnsFacts {
    /// The device with this index.
    #[must_use]
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

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
