//! Reads the state of a node for `tracer check`: files and netlink, with nothing that kernels since 3.10 lack, and without making
//! the kernel load or create anything.
//!
//! A netlink query can make the kernel load a module. Each is preceded by a look at files that show that the module is there.

mod counters;
mod devices;
mod ip_sets;
mod ipvs;
mod processes;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead as _, BufReader},
    thread,
    time::{Duration, Instant},
};

use super::{host::Host, iptables, modules, nft};
use crate::facts::{
    node_address,
    node_state::{Distribution, NodeState, Tracing},
    reading::Reading,
    rule_summary::RuleSummary,
    sysctl::Sysctls,
};

/// Time between the two readings of the counters.
const INTERVAL: Duration = Duration::from_secs(1);

/// Folders whose sysctls are all read, and the prefix of their names.
const GROUPS: [(&str, &str); 2] = [("net/ipv4/vs", ""), ("net/netfilter", "nf_conntrack_")];

/// Single sysctls.
const SINGLE: [&str; 27] = [
    "kernel/perf_event_paranoid",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-iptables",
    "net/core/netdev_max_backlog",
    "net/core/somaxconn",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/ipv4/neigh/default/gc_thresh1",
    "net/ipv4/neigh/default/gc_thresh2",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/ipv4/tcp_abort_on_overflow",
    "net/ipv4/tcp_fin_timeout",
    "net/ipv4/tcp_keepalive_time",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_max_tw_buckets",
    "net/ipv4/tcp_mtu_probing",
    "net/ipv4/tcp_synack_retries",
    "net/ipv4/tcp_syncookies",
    "net/ipv4/tcp_timestamps",
    "net/ipv4/tcp_tw_recycle",
    "net/ipv4/tcp_tw_reuse",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/neigh/default/gc_thresh2",
    "net/ipv6/neigh/default/gc_thresh3",
    "net/nf_conntrack_max",
];

/// Sysctls of each device.
const PER_DEVICE: [&str; 2] = ["forwarding", "rp_filter"];

/// The kernel functions whose existence shows what the running code does.
const FUNCTIONS: [&str; 2] = ["ip_vs_expire_nodest_conn_flush", "ip_vs_est_kthread_start"];

/// Reads the state of a node, with two readings of the counters if the node is running. Takes a little more than the interval
/// between them, a second.
pub fn read(host: &Host) -> io::Result<NodeState> {
    let begun = Instant::now();
    let mut state = read_once(host)?;
    if host.is_live() {
        thread::sleep(INTERVAL.saturating_sub(begun.elapsed()));
        state.interval_s = 1;
    }
    state.counters.after = counters::read(host);
    processes::read_again(host, &mut state.pods);
    Ok(state)
}

/// Reads the state of a node, with one reading of the counters.
pub fn read_once(host: &Host) -> io::Result<NodeState> {
    let before = counters::read(host);
    let mut state = NodeState {
        host: host.word("proc/sys/kernel/hostname").unwrap_or_default(),
        kernel: host
            .word("proc/sys/kernel/osrelease")
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "proc/sys/kernel/osrelease is missing"))?,
        ..NodeState::default()
    };
    state.pods = processes::pods(host, &mut state.processes);
    read_settings(host, &mut state);
    read_network(host, &mut state);
    read_rules(host, &mut state);
    state.functions = functions(host);
    state.tracing = tracing(host);
    state.counters.after = before.clone();
    state.counters.before = before;
    Ok(state)
}

fn read_settings(host: &Host, state: &mut NodeState) {
    let os_release = ["etc/os-release", "usr/lib/os-release"];
    state.distribution = os_release
        .iter()
        .find_map(|path| host.text(path))
        .map(|text| Distribution::parse(&text))
        .unwrap_or_default();
    state.cpus = host
        .text("proc/stat")
        .map_or(0, |text| text.lines().filter(|line| is_cpu(line)).count())
        .try_into()
        .unwrap_or(0);
    state.sysctls = sysctls(host);
    let files = host.names("etc/NetworkManager/conf.d");
    let paths = files
        .iter()
        .map(|name| format!("etc/NetworkManager/conf.d/{name}"));
    state.has_unmanaged_devices = paths
        .chain(["etc/NetworkManager/NetworkManager.conf".to_owned()])
        .filter_map(|path| host.text(&path))
        .any(|text| {
            text.lines()
                .any(|line| line.trim().starts_with("unmanaged-devices"))
        });
    let firewalld = host.text("etc/firewalld/firewalld.conf");
    state.firewalld_flushes = firewalld.map(|text| {
        let value = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("FlushAllOnReload="));
        // Since 0.7 the setting is there and on.
        value.is_none_or(|value| value.trim() != "no")
    });
}

/// Whether this line of `/proc/stat` is about a single CPU.
fn is_cpu(line: &str) -> bool {
    line.strip_prefix("cpu")
        .is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
}

fn sysctls(host: &Host) -> Sysctls {
    let mut names: Vec<String> = SINGLE.map(str::to_owned).into();
    for (group, prefix) in GROUPS {
        let all = host.names(&format!("proc/sys/{group}"));
        let wanted = all.iter().filter(|name| name.starts_with(prefix));
        names.extend(wanted.map(|name| format!("{group}/{name}")));
    }
    for device in host.names("proc/sys/net/ipv4/conf") {
        names.extend(PER_DEVICE.map(|setting| format!("net/ipv4/conf/{device}/{setting}")));
    }
    let value = |name: String| {
        let value = host.text(&format!("proc/sys/{name}"))?;
        // A device's name may have dots; the kernel's own tools show them as slashes.
        Some((name.replace('/', "."), value.trim_end().replace('\t', " ")))
    };
    names.into_iter().filter_map(value).collect()
}

fn read_network(host: &Host, state: &mut NodeState) {
    let loaded = host.text("proc/modules").unwrap_or_default();
    state.modules = loaded
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next().map(str::to_owned))
        .collect();
    state.ipvs = ipvs::read(host);
    state.listeners = processes::listeners(&host.net_path(""));
    state.devices = devices::read(host);
    state.addresses = devices::addresses(host);
    state.gateways = node_address::gateways(&host.net_text("route").unwrap_or_default());
    state.neighbours = node_address::neighbours(&host.net_text("arp").unwrap_or_default());
    let kubeconfigs = [
        "etc/kubernetes/kubelet.conf",
        "var/lib/kubelet/kubeconfig",
        "var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    ];
    state.api_server = kubeconfigs
        .iter()
        .find_map(|path| node_address::api_server(&host.text(path)?));
}

fn read_rules(host: &Host, state: &mut NodeState) {
    if !host.is_live() {
        let why = "only files were given, and rules are read by netlink";
        state.legacy_rules = Reading::Failed(why.to_owned());
        state.nft_rules = Reading::Failed(why.to_owned());
        state.ip_sets = Reading::Failed(why.to_owned());
        return;
    }
    let Ok(modules) = modules::read() else {
        return;
    };
    let has_tables = ["ip_tables_names", "ip6_tables_names"]
        .iter()
        .any(|name| host.net_path(name).exists());
    if has_tables {
        state.legacy_rules = Reading::of(iptables::tables(&["filter", "nat", "mangle"]))
            .map(|tables| RuleSummary::of_tables(&tables));
    }
    if modules.has("nf_tables") {
        state.nft_rules = Reading::of(nft::chains()).map(|chains| RuleSummary::of_chains(&chains));
    }
    state.ip_sets = ip_sets::read(&modules);
}

/// Which of [`FUNCTIONS`] the kernel has, by `/proc/kallsyms`. Names are readable without privileges, addresses are not.
fn functions(host: &Host) -> Reading<BTreeSet<String>> {
    let file = match File::open(host.path("proc/kallsyms")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Reading::Absent,
        Err(error) => return Reading::Failed(error.to_string()),
    };
    let mut found = BTreeSet::new();
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        match file.read_until(b'\n', &mut line) {
            Ok(0) => return Reading::Is(found),
            Ok(_) => {}
            Err(error) => return Reading::Failed(error.to_string()),
        }
        let name = line.split(u8::is_ascii_whitespace).nth(2).unwrap_or_default();
        if let Some(name) = FUNCTIONS.iter().find(|wanted| wanted.as_bytes() == name) {
            found.insert((*name).to_owned());
        }
    }
}

fn tracing(host: &Host) -> Tracing {
    // `none [integrity] confidentiality`: the mode in force is in brackets.
    let lockdown = host.text("sys/kernel/security/lockdown").and_then(|text| {
        let (_, rest) = text.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    });
    Tracing {
        has_btf: host.path("sys/kernel/btf/vmlinux").exists(),
        has_ipvs_btf: host.path("sys/kernel/btf/ip_vs").exists(),
        lockdown,
        selinux: host.word("sys/fs/selinux/enforce").map(|value| value == "1"),
    }
}
