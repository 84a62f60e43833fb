//! The API objects of a scenario: its node, services and endpoints.
//!
//! Without a controller manager, no endpoints are derived from pods. So each pod of a service is an
//! `EndpointSlice` of its own, which kube-proxy 1.20 reads by default instead of `Endpoints`.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::scenario::{Policy, Service, Topology};

/// The name of the node that the guest is.
pub(super) const NODE: &str = "node-1";

/// The path of all nodes.
pub(super) const NODES: &str = "/api/v1/nodes";
/// The path of all services.
pub(super) const SERVICES: &str = "/api/v1/namespaces/default/services";
/// The path of all endpoint slices.
pub(super) const SLICES: &str = "/apis/discovery.k8s.io/v1beta1/namespaces/default/endpointslices";

/// The label that assigns a slice to its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The key of an endpoint's node.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// A node and its address.
pub(super) fn node(name: &str, address: IpAddr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name },
        "status": { "addresses": [
            { "type": "InternalIP", "address": address },
            { "type": "Hostname", "address": name },
        ] },
    })
}

/// A service.
pub(super) fn service(service: &Service) -> Value {
    let policy = match service.external_traffic_policy {
        Policy::Cluster => "Cluster",
        Policy::Local => "Local",
    };
    let mut spec = json!({
        "type": "NodePort",
        "externalTrafficPolicy": policy,
        "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "nodePort": service.node_port }],
    });
    if let Some(seconds) = service.affinity_seconds {
        spec["sessionAffinity"] = "ClientIP".into();
        spec["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": seconds } });
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": service.name },
        "spec": spec,
    })
}

/// The name of the slice with this pod of a service.
pub(super) fn slice_name(service: &str, pod: &str) -> String {
    format!("{service}-{pod}")
}

/// The slice with this pod of a service.
pub(super) fn slice(topology: &Topology, service: &str, pod: &str) -> Result<Value> {
    let name = slice_name(service, pod);
    let pod = topology.pod(pod).with_context(|| format!("no pod {pod}"))?;
    Ok(json!({
        "apiVersion": "discovery.k8s.io/v1beta1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "labels": { SERVICE_NAME: service } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": pod.port, "protocol": "TCP" }],
        "endpoints": [{
            "addresses": [pod.address],
            "conditions": { "ready": true },
            "targetRef": { "kind": "Pod", "namespace": "default", "name": pod.name },
            "topology": { HOSTNAME: pod.node.as_deref().unwrap_or(NODE) },
        }],
    }))
}
