//! Reads the processes of the node, and counters and listeners of the network namespaces in which they run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use crate::{
    facts::{
        counters::Values,
        node_state::{Listener, Pod},
    },
    node::host::{Host, first_lines},
};

/// The programs that matter.
const PROGRAMS: [&str; 12] = [
    "NetworkManager",
    "calico-node",
    "cilium-agent",
    "cloud-setup",
    "firewalld",
    "flanneld",
    "hyperkube",
    "k3s-server",
    "kube-proxy",
    "kube-router",
    "kubelet",
    "nft",
];

/// How many other network namespaces are read.
const MAX_PODS: usize = 1024;

/// The counters of a network namespace that are judged.
const WANTED: [&str; 7] = [
    "TcpExt.IPReversePathFilter",
    "TcpExt.ListenDrops",
    "TcpExt.ListenOverflows",
    "TcpExt.PAWSPassive",
    "TcpExt.PAWSPassiveRejected",
    "TcpExt.TCPReqQFullDoCookies",
    "TcpExt.TCPReqQFullDrop",
];

/// Reads the network namespaces other than the node's, each through a process in it. Adds the programs that matter to `programs`.
pub(super) fn pods(host: &Host, programs: &mut BTreeSet<String>) -> Vec<Pod> {
    let netns = |pid: &str| {
        let path = host.path(&format!("proc/{pid}/ns/net"));
        fs::metadata(path).ok().map(|file| file.ino())
    };
    let own = netns("1").or_else(|| netns("self"));
    let mut seen: BTreeMap<u64, Pod> = BTreeMap::new();
    for name in host.names("proc") {
        let Ok(pid) = name.parse::<u32>() else { continue };
        let process = host.word(&format!("proc/{pid}/comm")).unwrap_or_default();
        if PROGRAMS.contains(&process.as_str()) {
            programs.insert(process.clone());
        }
        let Some(netns) = netns(&name).filter(|&netns| Some(netns) != own) else {
            continue;
        };
        if seen.len() < MAX_PODS {
            let new = || {
                let mut pod = Pod {
                    pid,
                    process,
                    listeners: listeners(&host.path(&format!("proc/{pid}/net"))),
                    ..Pod::default()
                };
                pod.counters.before = counters(host, pid);
                pod
            };
            seen.entry(netns).or_insert_with(new);
        }
    }
    seen.into_values().collect()
}

/// Reads the counters a second time.
pub(super) fn read_again(host: &Host, pods: &mut [Pod]) {
    for pod in pods {
        pod.counters.after = counters(host, pod.pid);
    }
}

fn counters(host: &Host, pid: u32) -> Values {
    let mut out = Values::default();
    out.add_groups(&host.text(&format!("proc/{pid}/net/netstat")).unwrap_or_default());
    out.keep(&WANTED);
    out
}

/// The listeners in a `/proc/PID/net` folder.
pub(super) fn listeners(net: &Path) -> Vec<Listener> {
    let is_listener = |line: &str| {
        let state = line.split_ascii_whitespace().nth(3);
        matches!(state, Some("0A" | "st"))
    };
    let files = ["tcp", "tcp6"].map(|name| first_lines(&net.join(name), is_listener));
    files.iter().flat_map(|text| Listener::parse_all(text)).collect()
}
