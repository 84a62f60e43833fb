//! The node of a scenario: built from scratch, and torn down completely.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cancel::Cancel;
use super::client::{self, Client};
use super::cluster::Cluster;
use super::kube::Kube;
use super::leftovers::{Inventory, Kind};
use super::netns::{self, Netns};
use super::node_state::{ipvs_connections, is_up, names_in};
use super::nodes::{self, OtherNode};
use super::pod::Pod;
use super::restore::{self, Sysctls};
use super::sysctl::Changed;
use super::{modules, neighbour, process_table, shell, sysctl, tool};
use crate::scenario::{
    self, Behaviour, Family, KubeProxy, Membership, Removal, RunIn, Scenario, Topology, address,
};

/// How long a new link may take until it carries packets.
const LINK_UP: Duration = Duration::from_secs(10);

/// How long the kernel may take to free what removed objects hold: IPVS services' connections, rules' sets.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);

/// The node, with the clients and other nodes around it and the pods on it.
#[derive(Debug, Default)]
pub(super) struct Node {
    clients: Vec<Client>,
    others: Vec<OtherNode>,
    pods: Vec<Pod>,
    kube: Option<Kube>,
    /// The real control plane, of a scenario that has one instead of [`Node::kube`].
    cluster: Option<Cluster>,
    sysctls: Changed,
    /// Whether shell commands of steps or kube-proxy may have changed anything on the node.
    runs_other_programs: bool,
    /// All network sysctls as they were before such commands.
    all_sysctls: Sysctls,
}

impl Node {
    /// Builds what the scenario describes. After a failure too, [`Node::tear_down`] removes what exists.
    pub(super) fn build(&mut self, scenario: &Scenario, cancel: &Cancel) -> Result<()> {
        let topology = &scenario.topology;
        cancel.begin("setting sysctls")?;
        self.runs_other_programs = scenario.runs_other_programs();
        if self.runs_other_programs {
            self.all_sysctls = Sysctls::take();
        }
        if topology.family == Family::Ipv6 {
            sysctl::ipv6().try_for_each(|(name, value)| self.sysctls.set(&name, value))?;
        }
        let kube = match scenario.kubernetes {
            Some(_) => {
                // The network plugin's part.
                self.sysctls.set(topology.family.forwarding(), 1)?;
                None
            }
            None => Some(Kube::start(topology, &mut self.sysctls)?),
        };
        for (name, value) in &scenario.facts {
            self.sysctls.set(name, value)?;
        }
        nodes::prepare(topology.overlay)?;
        for (nth, client) in topology.outside().enumerate() {
            cancel.begin(format!("building {}", client.name))?;
            let built = Client::create(client, nth, topology.node_address())
                .with_context(|| format!("cannot build {}", client.name))?;
            self.clients.push(built);
        }
        for node in &topology.nodes {
            cancel.begin(format!("building {}", node.name))?;
            let built =
                OtherNode::create(node, topology).with_context(|| format!("cannot build {}", node.name))?;
            self.others.push(built);
        }
        own_addresses(topology)?;
        for pod in &topology.pods {
            cancel.begin(format!("building {}", pod.name))?;
            let host = match &pod.node {
                None => Netns::node(),
                Some(name) => self.other(name)?.netns().clone(),
            };
            let built = Pod::create(pod, host).with_context(|| format!("cannot build {}", pod.name))?;
            self.pods.push(built);
        }
        // Before rules and virtual services exist, because these packets would be the first to hit them.
        for client in &self.clients {
            neighbour::resolve_ipv6(client.netns(), topology.node_address(), cancel)?;
        }
        for node in &self.others {
            neighbour::resolve_ipv6(node.netns(), topology.node_address(), cancel)?;
        }
        for pod in self.pods.iter().filter(|pod| pod.can_resolve_gateway()) {
            neighbour::resolve_ipv6(pod.netns(), pod.gateway(), cancel)?;
        }
        self.others_as_clients(topology);
        cancel.begin("setting up routes between nodes")?;
        nodes::connect(topology)?;
        if let Some(mut kube) = kube {
            cancel.begin("writing kube-proxy's rules")?;
            kube.sync()?;
            self.kube = Some(kube);
        }
        if let Some(kubernetes) = &scenario.kubernetes {
            self.cluster = Some(Cluster::start(kubernetes, topology, cancel)?);
        }
        if let Some(rules) = &topology.nft {
            self.nft(rules)?;
        }
        cancel.begin("waiting for the links")?;
        let links = topology.outside().count() + topology.nodes.len();
        for device in (0..links).map(client::device) {
            let up = cancel.wait_until(LINK_UP, || Ok(is_up(&device, topology.node_address())))?;
            ensure!(up, "{device} did not come up");
        }
        for pod in &self.pods {
            let up = cancel.wait_until(LINK_UP, || pod.is_up())?;
            ensure!(up, "{} did not come up", pod.device());
        }
        Ok(())
    }

    /// Lets the other parties connect too: processes on the node, pods and other nodes.
    fn others_as_clients(&mut self, topology: &Topology) {
        for (name, address) in topology.parties() {
            if self.clients.iter().any(|client| client.name() == name) {
                continue;
            }
            let netns = self.netns(name).cloned().unwrap_or(Netns::node());
            self.clients.push(Client::at(name, address, &netns));
        }
    }

    /// The netns of a client, another node or a pod.
    pub(super) fn netns(&self, name: &str) -> Option<&Netns> {
        let pod = self.pods.iter().find(|pod| pod.name() == name).map(Pod::netns);
        let other = || self.other(name).ok().map(OtherNode::netns);
        let client = || self.client(name).ok().map(Client::netns);
        pod.or_else(other).or_else(client)
    }

    /// The client of this name.
    pub(super) fn client(&self, name: &str) -> Result<&Client> {
        let client = self.clients.iter().find(|client| client.name() == name);
        client.with_context(|| format!("no client {name}"))
    }

    /// Adds a pod to a service, or changes its weight.
    pub(super) fn add_real_server(&mut self, change: &Membership, cancel: &Cancel) -> Result<()> {
        match &self.cluster {
            Some(cluster) => cluster.add_endpoint(change.service.as_deref(), &change.pod, cancel),
            None => self.kube()?.put_real_server(change),
        }
    }

    /// Removes a pod from a service.
    pub(super) fn remove_real_server(&mut self, removal: &Removal, cancel: &Cancel) -> Result<()> {
        match &self.cluster {
            Some(cluster) => cluster.remove_endpoint(removal.service.as_deref(), &removal.pod, cancel),
            None => self.kube()?.remove_real_server(removal),
        }
    }

    /// Starts or stops a real kube-proxy, or lets it clean up.
    pub(super) fn kube_proxy(&mut self, what: KubeProxy, cancel: &Cancel) -> Result<()> {
        let cluster = self.cluster.as_mut().context("there is no control plane")?;
        cluster.kube_proxy(what, cancel)
    }

    /// The log of a real kube-proxy, if there is one.
    pub(super) fn kube_proxy_log(&self) -> Option<String> {
        self.cluster.as_ref().map(|_| Cluster::kube_proxy_log())
    }

    fn kube(&mut self) -> Result<&mut Kube> {
        self.kube.as_mut().context("kube-proxy has not started yet")
    }

    fn other(&self, name: &str) -> Result<&OtherNode> {
        let node = self.others.iter().find(|node| node.name() == name);
        node.with_context(|| format!("no node {name}"))
    }

    /// Changes a pod's behaviour.
    pub(super) fn behave(&mut self, name: &str, behaviour: Behaviour) -> Result<()> {
        let pod = self.pods.iter_mut().find(|pod| pod.name() == name);
        pod.with_context(|| format!("no pod {name}"))?.behave(behaviour)
    }

    /// Sets a sysctl of the node for the rest of the scenario.
    pub(super) fn sysctl(&mut self, name: &str, value: &scenario::SysctlValue) -> Result<()> {
        self.sysctls.set(name, value)
    }

    /// Loads third-party rules on the node.
    #[expect(
        clippy::unused_self,
        reason = "the rules are the node's, as all else that steps change is"
    )]
    pub(super) fn nft(&self, rules: &str) -> Result<()> {
        tool::run_with_input("nft -f -", rules)?;
        Ok(())
    }

    /// Runs a shell command on the node, or in the netns of a client, another node or a pod. Returns its
    /// output.
    pub(super) fn run(&self, place: &str, line: &str) -> Result<String> {
        if place == RunIn::NODE {
            return shell::run(line);
        }
        let netns = self
            .netns(place)
            .with_context(|| format!("no client, pod or node {place}"))?;
        netns.run(|| shell::run(line))
    }

    /// Tears everything down as far as possible, and returns the failures. The node is then as it was before.
    pub(super) fn tear_down(mut self, before: &Inventory, cancel: &Cancel) -> Vec<anyhow::Error> {
        let mut errors = Vec::new();
        let begin = |what: &str| {
            // A cancelled scenario is cleaned up too.
            let _ = cancel.begin(format!("cleaning up: {what}"));
        };
        let mut take = |outcome: Result<()>| errors.extend(outcome.err());
        begin("clients and pods");
        self.clients.iter().for_each(Client::close_held);
        if let Some(cluster) = self.cluster.take() {
            take(cluster.end());
        }
        self.pods.clear();
        process_table::end_all(before.of(Kind::Process));
        begin("IPVS");
        take(clear_ipvs(&mut self.sysctls));
        begin("rules");
        take(tool::run("nft flush ruleset").map(drop));
        take(restore::legacy_tables());
        begin("IP sets");
        take(destroy_ip_sets());
        begin("devices");
        take(delete_devices(before));
        begin("netns");
        for name in names_in(netns::FOLDER) {
            take(netns::delete(&name));
        }
        if self.runs_other_programs {
            begin("routes");
            take(restore::routes(before));
        }
        begin("conntrack");
        take(tool::run("conntrack -F").map(drop));
        begin("sysctls");
        take(self.sysctls.restore());
        take(self.all_sysctls.restore());
        begin("modules");
        take(modules::restore(before.of(Kind::Module)));
        errors
    }
}

/// Adds the node's addresses that its links do not have yet.
fn own_addresses(topology: &Topology) -> Result<()> {
    let mut lines = String::new();
    let links = topology.outside().count() + topology.nodes.len();
    let mut missing = topology.node_addresses.clone();
    if links == 0 {
        // A node without links has an address too.
        let uplink = client::device(0);
        let _ = writeln!(lines, "link add {uplink} type dummy\nlink set {uplink} up");
        missing.push(topology.node_address());
    }
    // As with the first address: for IPv4 one device answers for all links, for IPv6 each device only for its
    // own addresses.
    let devices = match topology.family {
        Family::Ipv4 => 1,
        Family::Ipv6 => links.max(1),
    };
    for address in missing {
        let address = address::of_device(address, address::bits(address));
        for device in (0..devices).map(client::device) {
            let _ = writeln!(lines, "addr add {address} dev {device}");
        }
    }
    tool::run_with_input("ip -batch -", &lines)?;
    Ok(())
}

/// Deletes all devices that were not there before.
fn delete_devices(before: &Inventory) -> Result<()> {
    let new_devices = || {
        let mut names = names_in("/sys/class/net");
        names.retain(|name| !before.has(Kind::Device, name));
        names
    };
    let deletions = new_devices().iter().fold(String::new(), |mut lines, name| {
        let _ = writeln!(lines, "link delete {name}");
        lines
    });
    let deleted = tool::run_with_input("ip -force -batch -", &deletions);
    // Deleting one end of a veth removes the other one, whose own deletion then fails.
    if new_devices().is_empty() {
        return Ok(());
    }
    deleted.map(drop)
}

/// The address of a service for its clients, at this address of the node or at the first one.
pub(super) fn address(topology: &Topology, service: Option<&str>, at: Option<IpAddr>) -> Result<SocketAddr> {
    let service = topology.service(service).context("no such service")?;
    let at = at.unwrap_or(topology.node_address());
    Ok(SocketAddr::new(at, service.node_port))
}

/// Removes all virtual services and waits until their connections are gone too. By default IPVS keeps those
/// until they time out; with `expire_nodest_conn` it expires them with their real servers.
fn clear_ipvs(sysctls: &mut Changed) -> Result<()> {
    sysctls.set("net.ipv4.vs.expire_nodest_conn", 1)?;
    tool::run("ipvsadm -C")?;
    // A separate `Cancel`, so that a cancelled scenario is cleaned up too.
    let cleared = Cancel::default().wait_until(RELEASE_LIMIT, || Ok(ipvs_connections().is_empty()))?;
    ensure!(
        cleared,
        "IPVS keeps connections:\n{}",
        ipvs_connections().join("\n")
    );
    Ok(())
}

/// Removes all IP sets. The kernel destroys rules some time after `nft` has removed them, and until then they
/// hold their sets.
fn destroy_ip_sets() -> Result<()> {
    let mut refused = None;
    Cancel::default().wait_until(RELEASE_LIMIT, || {
        refused = tool::run("ipset destroy").err();
        Ok(refused.is_none())
    })?;
    refused.map_or(Ok(()), Err)
}
