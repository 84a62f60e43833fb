//! The rules of real versions of kube-proxy, loaded into a network namespace and read as on a node.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use nix::sched::{CloneFlags, unshare};
use tracer::{
    facts::{iptables::Packet, translation::Translation, xt},
    node::{destinations, ipset, ipvs, kube_proxy},
};
use tracer_common::{record::table, tcp::SYN};

fn dump(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/real-rules")
        .join(name)
}

/// Runs `work` in a network namespace of its own.
fn in_new_netns(work: impl FnOnce() + Send + 'static) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, which needs root");
        work();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a tool in the calling thread's network namespace.
fn run(command: &str, input: Option<&Path>) {
    let input = input.map_or_else(Stdio::null, |path| File::open(path).expect("a dump").into());
    let mut words = command.split(' ');
    let status = Command::new(words.next().expect("a tool"))
        .args(words)
        .stdin(input)
        .status()
        .expect("the tool");
    assert!(status.success(), "{command}");
}

/// Where the rules lead a SYN from outside to this port.
fn targets(port: u16) -> Vec<String> {
    let syn = Packet {
        source: [192, 168, 50, 2].into(),
        destination: [192, 168, 50, 1].into(),
        input: None,
        output: None,
        inner: xt::Packet {
            sport: 40_000,
            dport: port,
            tcp_flags: Some(SYN),
            mark: None,
            ctinfo: Some(table::NEW),
            from_node: Some(false),
        },
    };
    let found = destinations::of_packet(&syn).expect("the rules");
    let mut targets: Vec<String> = found
        .iter()
        .map(|(_, translation)| match translation {
            Translation::To {
                addresses: Some(addresses),
                ports: Some(ports),
            } if addresses.start() == addresses.end() && ports.start() == ports.end() => {
                format!("{}:{}", addresses.start(), ports.start())
            }
            other => format!("{other:?}"),
        })
        .collect();
    targets.sort();
    targets.dedup();
    targets
}

/// Every NodePort has its service and its endpoints.
fn check(has_endpoints: bool) {
    let names = kube_proxy::node_ports().expect("the rules");
    let web = ["10.244.1.2:8080", "10.244.2.2:8080"];
    let here = |target| if has_endpoints { vec![target] } else { Vec::new() };
    for (port, service, expected) in [
        (30_080, "shop/web", web.to_vec()),
        (30_081, "shop/web", vec!["10.244.1.2:9090", "10.244.2.2:9090"]),
        (30_082, "shop/local", here("10.244.3.2:8080")),
        (30_083, "shop/sticky", web.to_vec()),
        (30_084, "shop/empty", Vec::new()),
        (30_085, "shop/localnone", Vec::new()),
        (30_500, "shop/registry", here("10.244.4.2:8080")),
    ] {
        assert_eq!(names.service(port, false), Some(service), "{port}");
        assert_eq!(targets(port), expected, "{port}");
    }
}

#[test]
#[ignore = "needs root and nft"]
fn rules_of_nftables_mode_are_read() {
    for (name, has_endpoints) in [
        ("1.30-nftables.nft", true),
        ("1.30-nftables-noeps.nft", false),
        ("1.36-nftables.nft", true),
        ("1.36-nftables-noeps.nft", false),
    ] {
        in_new_netns(move || {
            run("nft -f -", Some(&dump(name)));
            check(has_endpoints);
        });
    }
}

#[test]
#[ignore = "needs root, iptables and nfacct"]
fn rules_of_iptables_mode_are_read() {
    for tool in ["iptables-nft-restore", "iptables-legacy-restore"] {
        for version in ["1.20", "1.30", "1.36"] {
            for (end, has_endpoints) in [("", true), ("-noeps", false)] {
                in_new_netns(move || {
                    run("nfacct add ct_state_invalid_dropped_pkts", None);
                    run("nfacct add localhost_nps_accepted_pkts", None);
                    run(tool, Some(&dump(&format!("{version}-iptables{end}.rules"))));
                    check(has_endpoints);
                });
            }
        }
    }
}

#[test]
#[ignore = "needs root and ipset"]
fn sets_of_ipvs_mode_are_read() {
    for name in ["1.20-k5.10pre59-ipvs.ipset", "1.36-k6.12-ipvs.ipset"] {
        in_new_netns(move || {
            run("ipset restore", Some(&dump(name)));
            let local = kube_proxy::local_node_ports().expect("the sets");
            let ports: Vec<u16> = (30_080..30_501).filter(|&port| local.has(port, false)).collect();
            assert_eq!(ports, [30_082, 30_085], "{name}");
            let all = ipset::ports("KUBE-NODE-PORT-TCP")
                .expect("the sets")
                .expect("a set");
            for port in [30_080, 30_081, 30_082, 30_083, 30_084, 30_085, 30_500] {
                assert!(all.contains(&port), "{name}: {port}");
            }
        });
    }
}

#[test]
#[ignore = "needs root, ipvsadm and a kernel with IPVS"]
fn services_of_ipvs_mode_are_read() {
    for name in ["1.20-k5.10pre59-ipvs.ipvsadm-R", "1.36-k6.12-ipvs.ipvsadm-R"] {
        in_new_netns(move || {
            run("ipvsadm -R", Some(&dump(name)));
            let services = ipvs::services().expect("the services");
            let expected = std::fs::read_to_string(dump(name)).expect("a dump");
            let count = |flag: &str| expected.lines().filter(|line| line.starts_with(flag)).count();
            assert_eq!(services.len(), count("-A"), "{name}");
            let servers: usize = services.iter().map(|service| service.real_servers.len()).sum();
            assert_eq!(servers, count("-a"), "{name}");
        });
    }
}
