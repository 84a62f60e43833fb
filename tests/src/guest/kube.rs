//! kube-proxy's changes to a node for the services of a scenario, in each of its modes.
//!
//! Chain names, rule order, comments and options are those of Kubernetes 1.33 (`pkg/proxy`), or of another
//! [`crate::scenario::Version`] that the scenario names, with the pods'
//! network as `--cluster-cidr` and the default NodePort addresses of each mode: all addresses of the node
//! with iptables, those towards the clients with IPVS and nftables.

mod iptables;
mod ipvs;
mod names;
mod nftables;
mod plan;

use anyhow::Result;

use super::sysctl::Changed;
use crate::scenario::{Family, Membership, Proxy, Removal, Topology};
use iptables::{Backend, Iptables};
use plan::{Plan, ServicePort};

/// A stand-in for kube-proxy.
#[derive(Debug)]
pub(super) struct Kube {
    plan: Plan,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Ipvs,
    Iptables(Iptables),
    Nftables,
}

impl Kube {
    /// Starts it: sets kube-proxy's sysctls.
    pub(super) fn start(topology: &Topology, sysctls: &mut Changed) -> Result<Self> {
        let mode = match topology.proxy {
            Proxy::Ipvs => Mode::Ipvs,
            Proxy::Iptables => Mode::Iptables(Iptables::new(Backend::Nft)),
            Proxy::IptablesLegacy => Mode::Iptables(Iptables::new(Backend::Legacy)),
            Proxy::Nftables => Mode::Nftables,
        };
        // The network plugin does this where kube-proxy does not.
        sysctls.set(topology.family.forwarding(), 1)?;
        let own = match (&mode, topology.family) {
            (Mode::Ipvs, _) => ipvs::SYSCTLS,
            (Mode::Iptables(_), Family::Ipv4) => iptables::SYSCTLS,
            (Mode::Iptables(_), Family::Ipv6) | (Mode::Nftables, _) => &[],
        };
        own.iter().try_for_each(|name| sysctls.set(name, 1))?;
        Ok(Self {
            plan: Plan::new(topology),
            mode,
        })
    }

    /// Writes everything for the services in their initial state.
    pub(super) fn sync(&mut self) -> Result<()> {
        match &mut self.mode {
            Mode::Ipvs => ipvs::sync(&self.plan),
            Mode::Iptables(iptables) => iptables.sync(&self.plan),
            Mode::Nftables => nftables::sync(&self.plan),
        }
    }

    /// Adds a pod to a service, or changes its weight.
    pub(super) fn put_real_server(&mut self, change: &Membership) -> Result<()> {
        self.change(change.service.as_deref(), |plan, nth| {
            plan.put(nth, &change.pod, change.weight)
        })
    }

    /// Removes a pod from a service.
    pub(super) fn remove_real_server(&mut self, removal: &Removal) -> Result<()> {
        self.change(removal.service.as_deref(), |plan, nth| {
            plan.remove(nth, &removal.pod)
        })
    }

    fn change(
        &mut self,
        service: Option<&str>,
        change: impl FnOnce(&mut Plan, usize) -> Result<()>,
    ) -> Result<()> {
        let nth = self.plan.find(service)?;
        let before: ServicePort = self.plan.service_ports[nth].clone();
        change(&mut self.plan, nth)?;
        match &mut self.mode {
            Mode::Ipvs => ipvs::change(&self.plan, &before, &self.plan.service_ports[nth]),
            Mode::Iptables(iptables) => iptables.sync(&self.plan),
            Mode::Nftables => nftables::change(&self.plan, &before, &self.plan.service_ports[nth]),
        }
    }
}
