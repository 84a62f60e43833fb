use super::super::plan::tests::{plan, plan_of};
use super::*;

/// The rules of a chain.
fn chain(rules: &str, name: &str) -> Vec<String> {
    let own = format!("-A {name} ");
    let own = rules.lines().filter_map(|rule| rule.strip_prefix(&own));
    own.map(str::to_owned).collect()
}

#[test]
fn a_cluster_service_is_masqueraded_and_balanced_at_random() {
    let plan = plan(Policy::Cluster, None);
    let of = ServiceChains::iptables("default/web:http");
    let (text, _) = rules(&plan, None);
    assert_eq!(
        chain(&text, &of.external),
        [
            "-m comment --comment \"masquerade traffic for default/web:http external destinations\" -j \
             KUBE-MARK-MASQ"
                .to_owned(),
            format!("-j {}", of.cluster),
        ]
    );
    let [first, second] = [0, 1].map(|nth| plan.service_ports[0].endpoints[nth].at);
    let [to_first, to_second] = [first, second].map(|at| iptables_endpoint("default/web:http", at));
    assert_eq!(
        chain(&text, &of.cluster)[1..],
        [
            format!(
                "-m comment --comment \"default/web:http -> {first}\" -m statistic --mode random --probability \
                 0.5000000000 -j {to_first}"
            ),
            format!("-m comment --comment \"default/web:http -> {second}\" -j {to_second}"),
        ]
    );
    assert_eq!(
        chain(&text, &to_first)[1],
        format!("-m comment --comment default/web:http -m tcp -p tcp -j DNAT --to-destination {first}")
    );
}

#[test]
fn without_endpoints_connections_are_rejected_and_without_local_ones_dropped() {
    let mut plan = plan(Policy::Local, None);
    plan.service_ports[0].endpoints.remove(0);
    let (text, _) = rules(&plan, None);
    assert_eq!(
        chain(&text, "KUBE-EXTERNAL-SERVICES"),
        [
            "-m comment --comment \"default/web:http has no local endpoints\" -m addrtype --dst-type LOCAL -m tcp \
             -p tcp --dport 30080 -j DROP",
            "-m comment --comment \"default/api:http has no endpoints\" -m addrtype --dst-type LOCAL -m tcp -p tcp \
             --dport 30081 -j REJECT",
        ]
    );
    let of = ServiceChains::iptables("default/web:http");
    assert_eq!(
        chain(&text, &of.external).len(),
        3,
        "pods and the node itself are served"
    );
    assert!(!text.contains(&of.local));
}

#[test]
fn affinity_is_checked_first_and_stored_last() {
    let plan = plan(Policy::Local, Some(300));
    let of = ServiceChains::iptables("default/web:http");
    let (text, _) = rules(&plan, None);
    let at = plan.service_ports[0].endpoints[0].at;
    let endpoint = iptables_endpoint("default/web:http", at);
    assert_eq!(
        chain(&text, &of.local),
        [
            format!(
                "-m comment --comment \"default/web:http -> {at}\" -m recent --name {endpoint} --rcheck --seconds \
                 300 --reap -j {endpoint}"
            ),
            format!("-m comment --comment \"default/web:http -> {at}\" -j {endpoint}"),
        ]
    );
    assert!(chain(&text, &endpoint)[1].contains(&format!("-m recent --name {endpoint} --set -m tcp")));
}

#[test]
fn unused_chains_are_deleted() {
    let mut plan = plan(Policy::Cluster, None);
    let (first, chains) = rules(&plan, None);
    assert!(
        first
            .contains("-I PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n")
    );
    let gone = iptables_endpoint("default/web:http", plan.service_ports[0].endpoints[1].at);
    plan.remove(0, "pod-1").unwrap();
    plan.service_ports[0].endpoints.clear();
    let (second, left) = rules(&plan, Some(&chains));
    assert!(left.is_empty());
    assert!(second.contains(&format!(":{gone} - [0:0]\n")) && second.contains(&format!("-X {gone}\n")));
    assert!(!second.contains("-I "), "the jumps are there already");
}

#[test]
fn ipv6_ports_exclude_the_loopback_address() {
    let (text, _) = rules(&plan_of(Family::Ipv6, Policy::Local, None), None);
    for word in ["127.0.0", "10.244", "10.96", "10.0.0"] {
        assert!(!text.contains(word), "`{word}` in\n{text}");
    }
    let last = chain(&text, "KUBE-SERVICES").pop().unwrap();
    assert!(
        last.ends_with("--dst-type LOCAL ! -d ::1/128 -j KUBE-NODEPORTS"),
        "{last}"
    );
}

#[test]
fn version_1_20_marks_what_has_no_local_endpoint() {
    let mut plan = plan(Policy::Local, None);
    plan.version = Version::V1_20;
    plan.service_ports[0].endpoints.remove(0);
    let (text, _) = old::rules(&plan, None);
    let local = ServiceChains::iptables("default/web:http")
        .cluster
        .replace("KUBE-SVC-", "KUBE-XLB-");
    assert_eq!(
        chain(&text, &local)[3],
        "-m comment --comment \"default/web:http has no local endpoints\" -j KUBE-MARK-DROP"
    );
    assert!(chain(&text, "KUBE-FIREWALL")[0].ends_with("--mark 0x8000/0x8000 -j DROP"));
}

#[test]
fn version_1_30_has_no_counters() {
    let (text, _) = rules(&plan(Policy::Cluster, None), None);
    let text = without_counters(&text);
    assert!(!text.contains("nfacct"));
    assert_eq!(chain(&text, "KUBE-NODEPORTS").len(), 1);
}
