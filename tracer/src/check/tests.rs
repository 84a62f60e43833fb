use std::collections::BTreeSet;

use super::*;
use crate::{
    diagnose::cause::Cause,
    facts::{
        counters::Counters,
        ipvs::{Listens, RealServer, Service},
        node_address::{NodeAddress, Peer},
        node_state::{Device, IpSet, Ipvs, Listener, Pod, ReuseTrial},
        reading::Reading,
        rule_summary::{DropPolicy, RuleSummary},
    },
};

fn service(address: &str, weight: i32) -> Service {
    Service {
        listens: Listens::Address {
            protocol: 6,
            address: address.parse().expect("an address"),
        },
        scheduler: "rr".to_owned(),
        persistent: None,
        one_packet: false,
        real_servers: vec![RealServer {
            address: "10.244.1.2:8080".parse().expect("an address"),
            forward: "Masq".to_owned(),
            weight,
            active: 0,
            inactive: 0,
        }],
    }
}

/// The settings of a healthy node in IPVS mode.
const HEALTHY: [(&str, &str); 21] = [
    ("kernel.perf_event_paranoid", "2"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.core.somaxconn", "4096"),
    ("net.ipv4.conf.all.forwarding", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.eth0.forwarding", "1"),
    ("net.ipv4.conf.tunl0.rp_filter", "0"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.ip_local_port_range", "32768 60999"),
    ("net.ipv4.neigh.default.gc_thresh3", "1024"),
    ("net.ipv4.tcp_abort_on_overflow", "0"),
    ("net.ipv4.tcp_keepalive_time", "600"),
    ("net.ipv4.tcp_syncookies", "1"),
    ("net.ipv4.vs.conn_reuse_mode", "0"),
    ("net.ipv4.vs.conntrack", "1"),
    ("net.ipv4.vs.expire_nodest_conn", "1"),
    ("net.ipv4.vs.expire_quiescent_template", "1"),
    ("net.netfilter.nf_conntrack_buckets", "65536"),
    ("net.netfilter.nf_conntrack_count", "100"),
    ("net.netfilter.nf_conntrack_max", "262144"),
    ("net.netfilter.nf_conntrack_tcp_timeout_close_wait", "3600"),
];

fn counters(values: &[(&str, u64)]) -> Counters {
    let zero = values.iter().map(|(name, _)| ((*name).to_owned(), 0));
    Counters {
        before: zero.collect(),
        after: values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect(),
    }
}

/// A healthy node in IPVS mode.
fn healthy() -> NodeState {
    let device = |name: &str, index, kind: &str| Device {
        name: name.to_owned(),
        index,
        mtu: 1500,
        hardware: 1,
        kind: kind.to_owned(),
        is_physical: name == "eth0",
        is_up: true,
        programs: Vec::new(),
    };
    let mut tunnel = device("tunl0", 4, "");
    (tunnel.hardware, tunnel.mtu) = (768, 1480);
    let address = |ip: &str, device| NodeAddress {
        ip: ip.parse().expect("an address"),
        device,
    };
    let mut node = NodeState {
        kernel: "3.10.0-1160.el7.x86_64".to_owned(),
        cpus: 8,
        functions: Reading::Is(BTreeSet::new()),
        counters: counters(&[
            ("conntrack.insert_failed", 0),
            ("conntrack.invalid", 0),
            ("arp.entries", 10),
        ]),
        interval_s: 1,
        ipvs: Reading::Is(Ipvs {
            services: vec![service("10.0.0.1:30080", 1), service("10.96.0.1:443", 1)],
            buckets: Some(4096),
            tcp_timeout_s: Reading::Is(900),
        }),
        devices: vec![
            device("eth0", 2, ""),
            device("kube-ipvs0", 3, ""),
            tunnel,
            device("cni0", 5, "bridge"),
        ],
        addresses: Reading::Is(vec![address("10.0.0.1", 2), address("10.96.0.1", 3)]),
        gateways: vec![Peer {
            ip: "10.0.0.254".parse().expect("an address"),
            device: "eth0".to_owned(),
        }],
        legacy_rules: Reading::Is(RuleSummary {
            kube_chains: 9,
            calico_chains: 20,
            ..RuleSummary::default()
        }),
        nft_rules: Reading::Absent,
        ip_sets: Reading::Is(Vec::new()),
        ..NodeState::default()
    };
    node.tracing.has_btf = true;
    node.distribution.id = "centos".to_owned();
    node.distribution.version = "9".to_owned();
    set(&mut node, &HEALTHY);
    node
}

/// Changes sysctls.
fn set(node: &mut NodeState, values: &[(&str, &str)]) {
    let old: Vec<(String, String)> = node
        .sysctls
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let new = values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    node.sysctls = old.into_iter().chain(new).collect();
}

fn state_of(node: &NodeState, id: &str) -> State {
    let hazard = hazards().find(|hazard| hazard.id == id).expect("a hazard");
    (hazard.judge)(node)
}

/// Which hazards are armed or hurt.
fn found(node: &NodeState) -> Vec<(&'static str, &'static str)> {
    judge(node)
        .iter()
        .filter(|judged| judged.state.details().is_some())
        .map(|judged| (judged.hazard.id, judged.state.name()))
        .collect()
}

/// On a healthy node that was changed, exactly this is found besides the end of IPVS mode.
fn assert_only(change: impl FnOnce(&mut NodeState), expected: &[(&str, &str)]) {
    let mut node = healthy();
    change(&mut node);
    let found = found(&node);
    assert_eq!(found, expected);
}

#[test]
fn nothing_is_found_on_a_healthy_node() {
    let node = healthy();
    let not_fine: Vec<_> = judge(&node)
        .into_iter()
        .filter(|judged| !matches!(judged.state, State::Fine(_)))
        .map(|judged| (judged.hazard.id, judged.state))
        .collect();
    // Every node in IPVS mode has that one: the healthy one has its device.
    assert_eq!(not_fine.len(), 1, "{not_fine:?}");
    assert_eq!(not_fine[0].0, "ipvs-deprecated");
}

#[test]
fn a_setting_arms_one_hazard() {
    let cases: [(&[(&str, &str)], &str); 17] = [
        (&[("net.ipv4.vs.conn_reuse_mode", "1")], "ipvs-reuse"),
        (&[("net.ipv4.vs.expire_nodest_conn", "0")], "ipvs-nodest"),
        (&[("net.ipv4.vs.conntrack", "0")], "ipvs-no-conntrack"),
        (&[("net.ipv4.vs.drop_entry", "1")], "ipvs-defense"),
        (&[("net.ipv4.tcp_keepalive_time", "7200")], "ipvs-idle"),
        (
            &[("net.ipv4.ip_local_port_range", "1024 65000")],
            "nodeport-ephemeral",
        ),
        (&[("net.netfilter.nf_conntrack_count", "230000")], "ct-full"),
        (&[("net.netfilter.nf_conntrack_buckets", "1024")], "ct-hash"),
        (
            &[("net.netfilter.nf_conntrack_tcp_timeout_close_wait", "60")],
            "ct-close-wait",
        ),
        (&[("net.ipv4.tcp_tw_recycle", "1")], "tcp-tw-recycle"),
        (&[("net.ipv4.tcp_syncookies", "0")], "tcp-syncookies"),
        (&[("net.ipv4.tcp_abort_on_overflow", "1")], "tcp-abort"),
        (&[("net.ipv4.ip_forward", "0")], "fwd-off"),
        (&[("net.ipv4.conf.eth0.forwarding", "0")], "fwd-off"),
        (&[("net.ipv4.conf.all.rp_filter", "1")], "rp-filter"),
        (&[("net.bridge.bridge-nf-call-iptables", "0")], "bridge-nf"),
        (&[("kernel.perf_event_paranoid", "3")], "paranoid"),
    ];
    for (settings, id) in cases {
        let mut node = healthy();
        set(&mut node, settings);
        let mut expected: BTreeSet<_> = found(&healthy()).into_iter().collect();
        expected.insert((id, "armed"));
        assert_eq!(
            found(&node).into_iter().collect::<BTreeSet<_>>(),
            expected,
            "{settings:?}"
        );
        let State::Armed(details) = state_of(&node, id) else {
            panic!("{id} is not armed");
        };
        let (name, value) = settings[0];
        let shown = [&details.summary, &details.advice]
            .iter()
            .any(|text| text.contains(value));
        assert!(
            shown || details.evidence.iter().any(|fact| fact.contains(name)),
            "{details:?}"
        );
    }
}

#[test]
fn advice_sets_nothing_that_is_set() {
    let mut node = healthy();
    set(&mut node, &[("net.ipv4.vs.conn_reuse_mode", "1")]);
    let advice = |node: &NodeState| {
        state_of(node, "ipvs-reuse")
            .details()
            .expect("armed")
            .advice
            .clone()
    };
    assert!(!advice(&node).contains("expire_nodest_conn"), "{}", advice(&node));
    set(&mut node, &[("net.ipv4.vs.expire_nodest_conn", "0")]);
    assert!(
        advice(&node).contains("expire_nodest_conn=1"),
        "{}",
        advice(&node)
    );
}

#[test]
fn only_a_trial_shows_what_newer_code_does_with_a_reused_port() {
    let mut node = healthy();
    set(&mut node, &[("net.ipv4.vs.conn_reuse_mode", "1")]);
    assert_eq!(state_of(&node, "ipvs-reuse").name(), "armed");
    node.functions = Reading::Is(BTreeSet::from(["ip_vs_expire_nodest_conn_flush".to_owned()]));
    assert_eq!(state_of(&node, "ipvs-reuse").name(), "unknown");
    let mut trial = |reused_ms| {
        node.reuse_trial = Reading::Is(ReuseTrial {
            reused_ms: Some(reused_ms),
            fresh_ms: Some(1),
        });
        state_of(&node, "ipvs-reuse").name()
    };
    assert_eq!((trial(1015), trial(2)), ("armed", "fine"));
}

#[test]
fn moving_counters_hurt() {
    let cases = [
        ("conntrack.drop", "ct-full"),
        ("conntrack.chaintoolong", "ct-hash"),
        ("conntrack.insert_failed", "ct-insert"),
        ("TcpExt.ListenOverflows", "tcp-accept-queue"),
        ("TcpExt.ListenDrops", "tcp-accept-queue"),
        ("TcpExt.TCPReqQFullDrop", "tcp-syncookies"),
        ("TcpExt.IPReversePathFilter", "rp-filter"),
        ("arp.table_fulls", "neigh-full"),
        ("softnet.dropped", "softnet"),
    ];
    for (counter, id) in cases {
        let mut node = healthy();
        node.counters = counters(&[(counter, 7), ("arp.entries", 10)]);
        assert_eq!(found(&node).first(), Some(&(id, "hurts")), "{counter}");
        // What had happened before the first reading does not hurt now.
        node.counters.before = node.counters.after.clone();
        assert_ne!(found(&node).first(), Some(&(id, "hurts")), "{counter}");
    }
    assert_only(
        |node| node.counters = counters(&[("conntrack.invalid", 3), ("arp.entries", 10)]),
        &[("ipvs-deprecated", "armed"), ("ct-invalid", "armed")],
    );
}

#[test]
fn a_pods_listener_is_named() {
    let mut node = healthy();
    node.pods.push(Pod {
        pid: 77,
        process: "nginx".to_owned(),
        counters: counters(&[("TcpExt.ListenOverflows", 2)]),
        listeners: vec![Listener {
            address: "0.0.0.0:80".parse().expect("an address"),
            waiting: 129,
        }],
    });
    let state = state_of(&node, "tcp-accept-queue");
    assert!(state.summary().contains("nginx (pid 77)"), "{state:?}");
    assert!(
        state
            .details()
            .expect("hurts")
            .evidence
            .iter()
            .any(|fact| fact.contains("port 80"))
    );
}

#[test]
fn services_and_addresses() {
    assert_only(
        |node| {
            node.ipvs = Reading::Is(Ipvs {
                services: vec![service("10.0.0.1:30080", 0)],
                buckets: Some(4096),
                tcp_timeout_s: Reading::Is(900),
            });
        },
        &[("ipvs-empty", "armed"), ("ipvs-deprecated", "armed")],
    );
    assert_only(
        |node| {
            if let Reading::Is(addresses) = &mut node.addresses {
                addresses.pop();
            }
        },
        &[("kube-ipvs0-missing", "hurts"), ("ipvs-deprecated", "armed")],
    );
    assert_only(
        |node| node.api_server = "10.96.0.1".parse().ok(),
        &[("kube-ipvs0-foreign", "hurts"), ("ipvs-deprecated", "armed")],
    );
    assert_only(
        |node| node.gateways[0].ip = "10.96.0.1".parse().expect("an address"),
        &[("kube-ipvs0-foreign", "hurts"), ("ipvs-deprecated", "armed")],
    );
    assert_only(
        |node| {
            node.listeners.push(Listener {
                address: "0.0.0.0:30080".parse().expect("an address"),
                waiting: 0,
            });
        },
        &[("nodeport-listener", "armed"), ("ipvs-deprecated", "armed")],
    );
}

#[test]
fn rules_of_two_kinds() {
    let chains = |kube_chains, kube_service_chains| {
        Reading::Is(RuleSummary {
            kube_chains,
            kube_service_chains,
            ..RuleSummary::default()
        })
    };
    assert_only(
        |node| node.nft_rules = chains(2, 0),
        &[("rules-mixed", "armed"), ("ipvs-deprecated", "armed")],
    );
    assert_only(
        |node| {
            node.legacy_rules = Reading::Absent;
            node.nft_rules = chains(9, 4);
        },
        &[("rules-two-modes", "armed"), ("ipvs-deprecated", "armed")],
    );
    assert_only(
        |node| {
            let policy = DropPolicy {
                family: "ip".to_owned(),
                table: "filter".to_owned(),
                chain: "FORWARD".to_owned(),
                is_input: false,
            };
            node.legacy_rules = Reading::Is(RuleSummary {
                kube_chains: 1,
                drop_policies: vec![policy],
                ..RuleSummary::default()
            });
        },
        &[("nodeport-firewall", "armed"), ("ipvs-deprecated", "armed")],
    );
    assert_only(
        |node| node.legacy_rules = Reading::Failed("CAP_NET_ADMIN is missing".to_owned()),
        &[("ipvs-deprecated", "armed")],
    );
}

#[test]
fn sets_of_two_revisions() {
    let set = |name: &str, revision| IpSet {
        name: name.to_owned(),
        kind: "hash:net".to_owned(),
        revision,
        newest: Some(7),
    };
    assert_only(
        |node| node.ip_sets = Reading::Is(vec![set("cali40all", 6), set("KUBE-X", 7)]),
        &[("ipset-revision", "armed"), ("ipvs-deprecated", "armed")],
    );
    assert_only(
        |node| node.ip_sets = Reading::Is(vec![set("cali40all", 6), set("cali40b", 6)]),
        &[("ipvs-deprecated", "armed")],
    );
}

#[test]
fn devices_and_programs_of_the_node() {
    assert_only(
        |node| node.devices[2].mtu = 1500,
        &[("mtu-tunnel", "armed"), ("ipvs-deprecated", "armed")],
    );
    assert_only(
        |node| {
            node.processes.insert("NetworkManager".to_owned());
        },
        &[("nm-manages", "armed"), ("ipvs-deprecated", "armed")],
    );
    assert_only(
        |node| {
            node.processes.insert("firewalld".to_owned());
            node.firewalld_flushes = Some(true);
        },
        &[("firewalld-flush", "armed"), ("ipvs-deprecated", "armed")],
    );
    assert_only(
        |node| node.tracing.has_btf = false,
        &[("ipvs-deprecated", "armed"), ("tracing", "armed")],
    );
    assert_only(
        |node| node.distribution.version = "7".to_owned(),
        &[("ipvs-deprecated", "armed"), ("kernel-eol", "armed")],
    );
    assert_only(
        |node| node.counters = counters(&[("arp.entries", 900)]),
        &[("neigh-full", "armed"), ("ipvs-deprecated", "armed")],
    );
}

#[test]
fn large_nodes() {
    assert_only(
        |node| node.cpus = 20_000,
        &[("ipvs-estimator", "armed"), ("ipvs-deprecated", "armed")],
    );
    let mut node = healthy();
    if let Reading::Is(ipvs) = &mut node.ipvs {
        ipvs.services[0].real_servers[0].inactive = 40_000;
    }
    assert_eq!(state_of(&node, "ipvs-hash").name(), "armed");
    if let Reading::Is(ipvs) = &mut node.ipvs {
        ipvs.services[0].persistent = Some(10_800);
    }
    set(&mut node, &[("net.ipv4.vs.expire_quiescent_template", "0")]);
    assert_eq!(state_of(&node, "ipvs-template").name(), "armed");
}

#[test]
fn a_bare_node_arms_nothing() {
    let mut node = NodeState::default();
    node.tracing.has_btf = true;
    assert_eq!(found(&node), []);
}

#[test]
fn rows_are_complete() {
    let mut ids = BTreeSet::new();
    for hazard in hazards() {
        assert!(ids.insert(hazard.id), "{} twice", hazard.id);
        for text in [hazard.title, hazard.detect, hazard.why, hazard.reference] {
            assert!(!text.is_empty(), "{}", hazard.id);
        }
        assert!(
            hazard.detect.ends_with('.') && hazard.why.ends_with('.'),
            "{}",
            hazard.id
        );
        if let Some(cause) = hazard.cause {
            assert!(
                Cause::ALL.iter().any(|known| known.name() == cause),
                "{}: {cause}",
                hazard.id
            );
        }
    }
}
