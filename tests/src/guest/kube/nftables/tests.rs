use super::super::plan::tests::{plan, plan_of};
use super::*;

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|other| other == line), "no `{line}` in\n{text}");
}

#[test]
fn the_table_matches_kube_proxy() {
    let plan = plan(Policy::Cluster, Some(300));
    let text = all(&plan);
    let of = ServiceChains::nftables("default/web:http");
    let [first, second] =
        [0, 1].map(|nth| nftables_endpoint("default/web:http", plan.service_ports[0].endpoints[nth].at));
    has(&text, "add element ip kube-proxy nodeport-ips { 10.0.0.1 }");
    has(
        &text,
        &format!(
            "add element ip kube-proxy service-nodeports {{ tcp . 30080 : goto {} }}",
            of.external
        ),
    );
    has(
        &text,
        &format!(
            "add rule ip kube-proxy {} numgen random mod 2 vmap {{ 0 : goto endpoint-{first} , 1 : goto \
             endpoint-{second} }}",
            of.cluster
        ),
    );
    has(
        &text,
        &format!(
            "add rule ip kube-proxy {} ip saddr @affinity-{second} goto endpoint-{second}",
            of.cluster
        ),
    );
    has(
        &text,
        "add element ip kube-proxy no-endpoint-nodeports { tcp . 30081 comment \"default/api:http\" : goto \
         reject-chain }",
    );
    assert!(!text.contains("drop }"));
}

#[test]
fn a_chain_is_created_before_it_is_referenced() {
    let text = all(&plan(Policy::Local, Some(300)));
    for (nth, line) in text.lines().enumerate() {
        for word in ["jump ", "goto "] {
            for rest in line.split(word).skip(1) {
                let name = rest.split([' ', ',']).next().unwrap();
                let made = format!("add chain ip kube-proxy {name}");
                let before = text.lines().take(nth);
                assert!(
                    before.into_iter().any(|line| line.trim_end().starts_with(&made)),
                    "{line}"
                );
            }
        }
    }
}

#[test]
fn without_a_local_pod_the_port_drops_and_only_changes_are_written() {
    let mut plan = plan(Policy::Local, None);
    let before = plan.service_ports[0].clone();
    let gone = nftables_endpoint("default/web:http", before.endpoints[0].at);
    plan.remove(0, "pod-1").unwrap();
    let text = difference(plan.version, &before, &plan.service_ports[0]);
    has(
        &text,
        "add element ip kube-proxy no-endpoint-nodeports { tcp . 30080 comment \"default/web:http\" : drop }",
    );
    has(&text, &format!("flush chain ip kube-proxy endpoint-{gone}"));
    assert!(
        !text.contains("delete element") && !text.contains("service-nodeports"),
        "{text}"
    );
    let text = difference(plan.version, &plan.service_ports[0], &before);
    has(
        &text,
        "delete element ip kube-proxy no-endpoint-nodeports { tcp . 30080 }",
    );
}

#[test]
fn with_ipv6_no_ipv4_words_remain() {
    let plan = plan_of(Family::Ipv6, Policy::Local, Some(300));
    let text = for_family(Family::Ipv6, &all(&plan));
    has(&text, "add element ip6 kube-proxy nodeport-ips { fd00:10::1 }");
    has(
        &text,
        "add rule ip6 kube-proxy services ip6 daddr . meta l4proto . th dport vmap @service-ips",
    );
    for word in ["ipv4", " ip ", "10.244.0.0", "10.244.1.2", "10.96.", "10.0.0"] {
        assert!(!text.contains(word), "`{word}` in\n{text}");
    }
}

#[test]
fn version_1_36_translates_by_a_map() {
    let mut plan = plan(Policy::Cluster, None);
    plan.version = Version::V1_36;
    let text = all(&plan);
    let of = ServiceChains::nftables("default/web:http");
    let rule = "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.1.2 . 8080 , 1 : 10.244.2.2 . 8080 }";
    has(&text, &format!("add rule ip kube-proxy {} {rule}", of.cluster));
    has(
        &text,
        "add element ip kube-proxy hairpin-connections { 10.244.1.2 . 10.244.1.2 . tcp . 8080 }",
    );
    assert!(!text.contains("goto endpoint-") && !text.contains("mark-for-masquerade"));
    // Only endpoints with session affinity have chains.
    plan.service_ports[0].affinity = Some(300);
    assert!(all(&plan).contains("update @affinity-"));
}
