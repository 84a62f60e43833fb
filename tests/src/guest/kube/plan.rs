//! kube-proxy's input: services with their addresses, policies and endpoints.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use crate::scenario::{Family, Policy, RealServer, Scheduler, Topology, Version, address};

/// The port of every service on its cluster address.
pub(super) const CLUSTER_PORT: u16 = 80;

/// All services, and the node's own addresses.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) family: Family,
    pub(super) version: Version,
    /// The node's addresses towards its clients.
    pub(super) node: Vec<IpAddr>,
    pub(super) service_ports: Vec<ServicePort>,
    /// Every pod that can be an endpoint.
    pods: Vec<(String, Endpoint)>,
}

/// A service.
#[derive(Debug, Clone)]
pub(super) struct ServicePort {
    /// The name of the service alone.
    service: String,
    /// The name of its port, `default/web:http`.
    pub(super) name: String,
    pub(super) cluster_ip: IpAddr,
    pub(super) node_port: u16,
    pub(super) scheduler: Scheduler,
    pub(super) external: Policy,
    pub(super) internal: Policy,
    /// How many seconds a client stays on its endpoint.
    pub(super) affinity: Option<u32>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// A pod as the endpoint of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) at: SocketAddr,
    pub(super) weight: u16,
    /// Whether it is on this node.
    pub(super) on_this_node: bool,
}

impl Plan {
    pub(super) fn new(topology: &Topology) -> Self {
        let pods = topology.pods.iter().map(|pod| {
            let endpoint = Endpoint {
                at: SocketAddr::new(pod.address, pod.port),
                weight: 1,
                on_this_node: pod.node.is_none(),
            };
            (pod.name.clone(), endpoint)
        });
        let mut plan = Self {
            family: topology.family,
            version: topology.version,
            node: topology.own_addresses().collect(),
            service_ports: Vec::new(),
            pods: pods.collect(),
        };
        for (nth, service) in topology.services.iter().enumerate() {
            let endpoints = service
                .real_servers
                .iter()
                .filter_map(|RealServer { pod, weight }| plan.endpoint(pod, *weight));
            let service_port = ServicePort {
                service: service.name.clone(),
                name: service.port_name(),
                cluster_ip: address::cluster_ip(topology.family, nth),
                node_port: service.node_port,
                scheduler: service.scheduler,
                external: service.external_traffic_policy,
                internal: service.internal_traffic_policy,
                affinity: service.affinity_seconds,
                endpoints: endpoints.collect(),
            };
            plan.service_ports.push(service_port);
        }
        plan
    }

    /// The index of a service; without a name, that of the only one.
    pub(super) fn find(&self, service: Option<&str>) -> Result<usize> {
        let found = match service {
            Some(name) => self
                .service_ports
                .iter()
                .position(|service_port| service_port.service == name),
            None => (self.service_ports.len() == 1).then_some(0),
        };
        found.context("no such service")
    }

    /// Adds a pod to a service, or changes its weight.
    pub(super) fn put(&mut self, service: usize, pod: &str, weight: u16) -> Result<()> {
        let endpoint = self
            .endpoint(pod, weight)
            .with_context(|| format!("no pod {pod}"))?;
        let endpoints = &mut self.service_ports[service].endpoints;
        match endpoints.iter_mut().find(|one| one.at == endpoint.at) {
            Some(one) => *one = endpoint,
            None => endpoints.push(endpoint),
        }
        Ok(())
    }

    /// Removes a pod from a service.
    pub(super) fn remove(&mut self, service: usize, pod: &str) -> Result<()> {
        let endpoint = self.endpoint(pod, 0).with_context(|| format!("no pod {pod}"))?;
        self.service_ports[service]
            .endpoints
            .retain(|one| one.at != endpoint.at);
        Ok(())
    }

    fn endpoint(&self, pod: &str, weight: u16) -> Option<Endpoint> {
        let (_, endpoint) = self.pods.iter().find(|(name, _)| name == pod)?;
        Some(Endpoint { weight, ..*endpoint })
    }
}

impl ServicePort {
    /// The endpoints that a policy allows.
    pub(super) fn allowed(&self, policy: Policy) -> Vec<Endpoint> {
        let allowed = |endpoint: &&Endpoint| policy == Policy::Cluster || endpoint.on_this_node;
        self.endpoints.iter().filter(allowed).copied().collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two services: `web` with a pod on this node and one elsewhere, `api` without any.
    pub(in super::super) fn plan(external: Policy, affinity: Option<u32>) -> Plan {
        plan_of(Family::Ipv4, external, affinity)
    }

    /// The same with addresses of a family.
    pub(in super::super) fn plan_of(family: Family, external: Policy, affinity: Option<u32>) -> Plan {
        let pod = |last: u8, on_this_node| Endpoint {
            at: SocketAddr::new(address::in_family([10, 244, last, 2].into(), family), 8080),
            weight: 1,
            on_this_node,
        };
        let service_port = |nth: usize, name: &str, endpoints: Vec<Endpoint>| ServicePort {
            service: name.to_owned(),
            name: format!("default/{name}:http"),
            cluster_ip: address::cluster_ip(family, nth),
            node_port: 30080 + u16::try_from(nth).unwrap(),
            scheduler: Scheduler::Rr,
            external,
            internal: Policy::Cluster,
            affinity,
            endpoints,
        };
        Plan {
            family,
            version: Version::default(),
            node: vec![address::node(family)],
            service_ports: vec![
                service_port(0, "web", vec![pod(1, true), pod(2, false)]),
                service_port(1, "api", Vec::new()),
            ],
            pods: vec![("pod-1".to_owned(), pod(1, true))],
        }
    }

    #[test]
    fn policies_select_endpoints() {
        let plan = plan(Policy::Local, None);
        let web = &plan.service_ports[0];
        assert_eq!(web.allowed(Policy::Cluster).len(), 2);
        assert_eq!(web.allowed(Policy::Local), [web.endpoints[0]]);
    }

    #[test]
    fn endpoints_are_added_changed_and_removed() {
        let mut plan = plan(Policy::Cluster, None);
        plan.put(1, "pod-1", 0).unwrap();
        plan.put(1, "pod-1", 7).unwrap();
        assert_eq!(plan.service_ports[1].endpoints[0].weight, 7);
        plan.remove(1, "pod-1").unwrap();
        assert!(plan.service_ports[1].endpoints.is_empty());
        assert!(plan.put(1, "pod-9", 1).is_err());
        assert!(plan.find(None).is_err());
        assert_eq!(plan.find(Some("api")).unwrap(), 1);
    }
}
