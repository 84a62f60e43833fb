//! A real control plane on the node: etcd, the API server and kube-proxy.

mod control_plane;
mod http;
mod kube_proxy;
mod kubelet;
mod objects;
mod program;

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::cancel::Cancel;
use crate::scenario::{KubeProxy, Kubernetes, Proxy, Topology};
use control_plane::ControlPlane;
use kube_proxy::RunningProxy;
use objects::{NODE, NODES, SERVICES, SLICES};

/// The control plane, and the kube-proxy that it feeds.
#[derive(Debug)]
pub(super) struct Cluster {
    topology: Topology,
    kubernetes: Kubernetes,
    control_plane: ControlPlane,
    kube_proxy: Option<RunningProxy>,
}

impl Cluster {
    /// Starts everything, with the services of the topology, and waits until kube-proxy has written its rules.
    pub(super) fn start(kubernetes: &Kubernetes, topology: &Topology, cancel: &Cancel) -> Result<Self> {
        let control_plane = ControlPlane::start(topology, cancel)?;
        cancel.begin("creating nodes, services and endpoints")?;
        control_plane.create(NODES, &objects::node(NODE, topology.node_address()))?;
        for node in &topology.nodes {
            control_plane.create(NODES, &objects::node(&node.name, node.address))?;
        }
        for service in &topology.services {
            control_plane.create(SERVICES, &objects::service(service))?;
            for server in &service.real_servers {
                let slice = objects::slice(topology, &service.name, &server.pod)?;
                control_plane.create(SLICES, &slice)?;
            }
        }
        let mut cluster = Self {
            topology: topology.clone(),
            kubernetes: kubernetes.clone(),
            control_plane,
            kube_proxy: None,
        };
        kubelet::write_rules()?;
        cluster.start_proxy(topology.proxy, cancel)?;
        Ok(cluster)
    }

    /// Adds a pod to a service; without a name, to the only one.
    pub(super) fn add_endpoint(&self, service: Option<&str>, pod: &str, cancel: &Cancel) -> Result<()> {
        let service = self.service(service)?;
        let slice = objects::slice(&self.topology, service, pod)?;
        self.change(cancel, || self.control_plane.create(SLICES, &slice))
    }

    /// Removes a pod from a service; without a name, from the only one.
    pub(super) fn remove_endpoint(&self, service: Option<&str>, pod: &str, cancel: &Cancel) -> Result<()> {
        let name = objects::slice_name(self.service(service)?, pod);
        self.change(cancel, || self.control_plane.delete(SLICES, &name))
    }

    /// Makes a change and waits until kube-proxy has written it, if it runs.
    fn change(&self, cancel: &Cancel, change: impl FnOnce() -> Result<()>) -> Result<()> {
        match &self.kube_proxy {
            Some(kube_proxy) => kube_proxy.follow(cancel, change),
            None => change(),
        }
    }

    fn service(&self, name: Option<&str>) -> Result<&str> {
        let service = self.topology.service(name).context("no such service")?;
        Ok(&service.name)
    }

    /// Starts or stops kube-proxy, or lets it clean up.
    pub(super) fn kube_proxy(&mut self, what: KubeProxy, cancel: &Cancel) -> Result<()> {
        match what {
            KubeProxy::Stop => self
                .kube_proxy
                .take()
                .context("kube-proxy is not running")?
                .stop(cancel),
            KubeProxy::Cleanup => kube_proxy::clean_up(),
            KubeProxy::StartIpvs => self.start_proxy(Proxy::Ipvs, cancel),
            KubeProxy::StartIptables => self.start_proxy(Proxy::Iptables, cancel),
        }
    }

    fn start_proxy(&mut self, mode: Proxy, cancel: &Cancel) -> Result<()> {
        ensure!(self.kube_proxy.is_none(), "kube-proxy is already running");
        let osrelease = self.kubernetes.osrelease.as_deref();
        self.kube_proxy = Some(RunningProxy::start(mode, osrelease, cancel)?);
        Ok(())
    }

    /// All that kube-proxy has logged.
    pub(super) fn kube_proxy_log() -> String {
        program::log(kube_proxy::NAME)
    }

    /// Ends all programs and removes their files.
    pub(super) fn end(self) -> Result<()> {
        drop(self);
        fs::remove_dir_all(program::FOLDER).with_context(|| format!("cannot remove {}", program::FOLDER))
    }
}
