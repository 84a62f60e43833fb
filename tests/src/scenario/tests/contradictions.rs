//! Inconsistent scenarios.

use super::refused;

/// A change to the smallest scenario (from, to), and a part of the error.
const CONTRADICTIONS: &[(&str, &str, &str)] = &[
    (
        "client = \"client-a\"",
        "client = \"client-z\"",
        "step 1: no client `client-z`",
    ),
    (
        "[topology]",
        "[kubernetes]\nversion = \"1.19\"\n[topology]",
        "unknown variant `1.19`",
    ),
    (
        "[topology]",
        "[kubernetes]\nversion = \"1.20\"\n[topology]\nproxy = \"nftables\"",
        "has the modes `ipvs` and `iptables`",
    ),
    (
        "[[steps]]",
        "[[steps]]\nkube_proxy = \"stop\"\n[[steps]]",
        "step 1: `kube_proxy` needs a `[kubernetes]` table",
    ),
    ("[{ pod = \"pod-1\" }]", "[{ pod = \"pod-9\" }]", "no pod `pod-9`"),
    ("\"6.12\", \"7\"", "\"7\", \"7\"", "appears twice"),
    (
        "node_port = 30080",
        "node_port = 8080",
        "web: 8080 is not a NodePort",
    ),
    (
        "\"10.0.0.2\"",
        "\"10.0.1.2\"",
        "10.0.1.2 is not in 10.0.0.2 to 10.0.0.254",
    ),
    ("\"10.0.0.2\"", "\"10.0.0.1\"", "10.0.0.1 is not in"),
    (
        "\"10.244.1.2\"",
        "\"10.244.1.1\"",
        "10.244.1.1 is not a pod address",
    ),
    (
        "name = \"pod-1\"",
        "name = \"client-a\"",
        "client, node or pod \"client-a\" appears twice",
    ),
    (
        "name = \"pod-1\"",
        "name = \"a-very-long-pod\"",
        "part of a device name",
    ),
    (
        "source_port = 41000",
        "source_port = 65535",
        "source ports are 1024 to 65535",
    ),
    (
        "source_port = 41000",
        "source_port = 80",
        "source ports are 1024 to 65535",
    ),
    (
        "times = 2",
        "times = 0",
        "`count`, `times` and `at_once` must be at least 1",
    ),
    (
        "address = \"10.0.0.2\" }",
        "address = \"10.0.0.2\", on_node = true }",
        "client-a: 10.0.0.2 is not an address of the node",
    ),
    (
        "[topology]",
        "[topology]\nnode_addresses = [\"10.0.0.2\"]",
        "client-a: 10.0.0.2 is an address of the node",
    ),
    (
        "times = 2",
        "times = 2, to_address = \"10.0.0.9\"",
        "10.0.0.9 is not an address of the node or another one",
    ),
    (
        "address = \"10.244.1.2\" }",
        "host_network = true, behaviour = \"gone\" }",
        "pod-1: a pod in its node's netns cannot be Gone",
    ),
    (
        "address = \"10.244.1.2\" }",
        "address = \"10.244.1.2\", host_network = true }",
        "pod-1: 10.244.1.2 is not its node's address",
    ),
    (
        "times = 2",
        "times = 2, half_open = {}, ttl = 3",
        "`half_open` only sends SYNs",
    ),
    (
        "times = 2",
        "times = 2, half_open = {}, sequence = 3",
        "use `half_open.sequence`",
    ),
    (
        "connect = {",
        "fates_told = 0\n[[steps]]\nconnect = {",
        "`fates_told` must be at least 1",
    ),
    (
        "times = 2",
        "times = 1, hold = true, close = \"rst\"",
        "`hold` cannot be used with `close`",
    ),
    (
        "[{ pod = \"pod-1\" }] }]",
        "[{ pod = \"pod-1\", weight = 2 }] }]\nproxy = \"nftables\"",
        "weight 2: only IPVS mode has weights",
    ),
    (
        "connect = {",
        "run_in = { where = \"pod-9\", line = \"true\" }\n[[steps]]\nconnect = {",
        "`pod-9` is not a client, a pod, another node or `node`",
    ),
    (
        "times = 2",
        "times = 2, hold = true",
        "a held connection keeps its port",
    ),
    ("times = 2", "to = \"mail\"", "no service `mail`"),
    (
        "services = [",
        "services = [{ name = \"api\", node_port = 30081 }, ",
        "step 1: several services exist",
    ),
    (
        "default = { fate = \"established\" }",
        "",
        "no expectation for client-a:41000 (attempt 1)",
    ),
    (
        "fate = \"established\" }",
        "fate = \"established\", evidence = [{}] }",
        "empty evidence",
    ),
    (
        "[topology]",
        "[facts]\n\"vm.swappiness\" = 1\n[topology]",
        "is not a network sysctl",
    ),
    (
        "fate = \"established\" }",
        "fate = \"established\" }\ntotals = { flows = 3, by_fate = { established = 3 } }",
        "totals expect 3 flows, but the steps create 4",
    ),
    (
        "fate = \"established\" }",
        "fate = \"established\" }\ntotals = { flows = 4, by_fate = { established = 3 } }",
        "the fates add up to 3, not 4",
    ),
    (
        "fate = \"established\" }",
        "fate = \"established\" }\nflows = [{ client = \"client-a\", source_port = 41000, occurrence = 3, fate = \
             \"stalled\" }]",
        "no step creates the expected flows client-a:41000",
    ),
    (
        "fate = \"established\" }",
        "fate = \"established\" }\nflows = [{ client = \"client-a\", source_port = 41000, count = 2, fate = \
             \"stalled\" }, { client = \"client-a\", source_port = 41001, fate = \"stalled\" }]",
        "client-a:41001 (attempt 1): expected 2 times",
    ),
    (
        "connect = { client = \"client-a\", source_port = 41000, count = 2, times = 2 }",
        "parallel = [{ client = \"client-a\", source_port = 41000, count = 2 }, { client = \"client-a\", \
             source_port = 41001 }]",
        "client-a connects twice at once from port 41001",
    ),
];

#[test]
fn contradictions_are_rejected() {
    for (from, to, expected) in CONTRADICTIONS {
        let error = refused(from, to);
        assert!(error.contains(expected), "{to}: {error}");
    }
}
