//! etcd and the API server.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::http;
use super::program::{FOLDER, Program};
use crate::guest::cancel::Cancel;
use crate::scenario::{Family, Topology, address};

/// How long each program may take to start, in an emulated guest on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(4);

const ETCD_PORT: u16 = 2379;
const API_PORT: u16 = 6443;
/// Where `kubectl proxy` listens, through which the lab talks to the API server without TLS.
const PLAIN_PORT: u16 = 8001;

/// The token of every client, which may do everything.
const TOKEN: &str = "lab";

/// A running API server. Its programs end when this is dropped.
#[derive(Debug)]
pub(super) struct ControlPlane {
    // Dropped in this order: each client ends before its server.
    _kubectl: Program,
    _api_server: Program,
    _etcd: Program,
}

impl ControlPlane {
    /// Starts it and waits until it answers.
    pub(super) fn start(topology: &Topology, cancel: &Cancel) -> Result<Self> {
        fs::create_dir_all(FOLDER).with_context(|| format!("cannot create {FOLDER}"))?;
        write("tokens", &format!("{TOKEN},admin,admin\n"))?;
        write("kubeconfig", &kubeconfig().to_string())?;
        let mut etcd = Program::start("etcd", &etcd_arguments())?;
        etcd.wait_until_ready(START_LIMIT, cancel, || {
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, ETCD_PORT)).is_ok())
        })?;
        let mut api_server = Program::start("kube-apiserver", &api_server_arguments(topology))?;
        let kubectl = Program::start("kubectl", &kubectl_arguments())?;
        // The namespace is one of the last things that the API server creates by itself.
        api_server.wait_until_ready(START_LIMIT, cancel, || {
            let answers =
                |path: &str| http::request(PLAIN_PORT, "GET", path, "").is_ok_and(|body| !body.is_empty());
            Ok(answers("/readyz") && answers("/api/v1/namespaces/default"))
        })?;
        Ok(Self {
            _kubectl: kubectl,
            _api_server: api_server,
            _etcd: etcd,
        })
    }

    /// Creates an object among those at `path`.
    #[expect(clippy::unused_self, reason = "there is no API without a control plane")]
    pub(super) fn create(&self, path: &str, object: &Value) -> Result<()> {
        http::request(PLAIN_PORT, "POST", path, &object.to_string()).map(drop)
    }

    /// Deletes an object among those at `path`.
    #[expect(clippy::unused_self, reason = "there is no API without a control plane")]
    pub(super) fn delete(&self, path: &str, name: &str) -> Result<()> {
        http::request(PLAIN_PORT, "DELETE", &format!("{path}/{name}"), "").map(drop)
    }
}

/// The path of the file with which a client finds the API server.
pub(super) fn kubeconfig_path() -> String {
    format!("{FOLDER}/kubeconfig")
}

fn write(name: &str, text: &str) -> Result<()> {
    let path = format!("{FOLDER}/{name}");
    fs::write(&path, text)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
        .with_context(|| format!("cannot write {path}"))
}

fn kubeconfig() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": {
            "server": format!("https://127.0.0.1:{API_PORT}"),
            // The API server signs its own certificate at each start.
            "insecure-skip-tls-verify": true,
        } }],
        "users": [{ "name": "lab", "user": { "token": TOKEN } }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
        "current-context": "lab",
    })
}

fn etcd_arguments() -> Vec<String> {
    let url = format!("http://127.0.0.1:{ETCD_PORT}");
    vec![
        format!("--data-dir={FOLDER}/etcd"),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
    ]
}

fn api_server_arguments(topology: &Topology) -> Vec<String> {
    // It writes a key of its own into its folder, which can sign tokens as well.
    let key = format!("{FOLDER}/apiserver.key");
    vec![
        format!("--etcd-servers=http://127.0.0.1:{ETCD_PORT}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={API_PORT}"),
        format!("--advertise-address={}", topology.node_address()),
        format!("--cert-dir={FOLDER}"),
        format!("--service-cluster-ip-range={}", address::services(Family::Ipv4)),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={key}"),
        format!("--service-account-signing-key-file={key}"),
        format!("--token-auth-file={FOLDER}/tokens"),
        "--authorization-mode=AlwaysAllow".to_owned(),
        // Without a controller manager there are no service accounts.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]
}

fn kubectl_arguments() -> Vec<String> {
    vec![
        "proxy".to_owned(),
        format!("--kubeconfig={}", kubeconfig_path()),
        format!("--port={PLAIN_PORT}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubeconfig_names_its_own_context() {
        let config = kubeconfig();
        assert_eq!(config["current-context"], config["contexts"][0]["name"]);
        assert_eq!(
            config["contexts"][0]["context"]["user"],
            config["users"][0]["name"]
        );
    }
}
