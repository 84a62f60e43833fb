//! Scenarios whose parts do not fit together.

use super::refused;

/// What of the smallest scenario is changed, into what, and what is said then.
const CONTRADICTIONS: &[(&str, &str, &str)] = &[
    (
        "client = \"client-a\"",
        "client = \"client-z\"",
        "step 1: there is no client `client-z`",
    ),
    (
        "[{ pod = \"pod-1\" }]",
        "[{ pod = \"pod-9\" }]",
        "there is no pod `pod-9`",
    ),
    ("\"6.12\", \"7\"", "\"7\", \"7\"", "is there twice"),
    (
        "node_port = 30080",
        "node_port = 8080",
        "web: 8080 is no NodePort",
    ),
    (
        "\"10.0.0.2\"",
        "\"10.0.1.2\"",
        "10.0.1.2 is none of 10.0.0.2 to 10.0.0.254",
    ),
    ("\"10.0.0.2\"", "\"10.0.0.1\"", "10.0.0.1 is none of"),
    ("\"10.244.1.2\"", "\"10.244.1.1\"", "or is the node's own end"),
    (
        "name = \"pod-1\"",
        "name = \"client-a\"",
        "client, node or pod \"client-a\" is there twice",
    ),
    (
        "name = \"pod-1\"",
        "name = \"a-very-long-pod\"",
        "part of a device's name",
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
    ("times = 2", "times = 0", "connects not even once"),
    (
        "address = \"10.0.0.2\" }",
        "address = \"10.0.0.2\", on_node = true }",
        "client-a: 10.0.0.2 is none of the node's addresses",
    ),
    (
        "[topology]",
        "[topology]\nnode_addresses = [\"10.0.0.2\"]",
        "client-a: 10.0.0.2 is the node's",
    ),
    (
        "times = 2",
        "times = 2, to_address = \"10.0.0.9\"",
        "10.0.0.9 is none of the node's addresses",
    ),
    (
        "address = \"10.244.1.2\" }",
        "host_network = true, behaviour = \"gone\" }",
        "pod-1: a pod without a netns of its own cannot be Gone",
    ),
    (
        "address = \"10.244.1.2\" }",
        "address = \"10.244.1.2\", host_network = true }",
        "pod-1: 10.244.1.2 is not its node's address",
    ),
    (
        "times = 2",
        "times = 2, half_open = {}, ttl = 3",
        "a client without a TCP only sends SYNs",
    ),
    (
        "times = 2",
        "times = 2, half_open = {}, sequence = 3",
        "is part of `half_open`",
    ),
    (
        "connect = {",
        "fates_told = 0\n[[steps]]\nconnect = {",
        "the fates of no flows",
    ),
    (
        "times = 2",
        "times = 1, hold = true, close = \"rst\"",
        "a connection that is held is not closed",
    ),
    (
        "[{ pod = \"pod-1\" }] }]",
        "[{ pod = \"pod-1\", weight = 2 }] }]\nproxy = \"nftables\"",
        "weight 2: in this mode a pod is there or it is not",
    ),
    (
        "connect = {",
        "run_in = { where = \"pod-9\", line = \"true\" }\n[[steps]]\nconnect = {",
        "`pod-9` is neither a client nor a pod, nor another node, nor `node`",
    ),
    ("times = 2", "times = 2, hold = true", "keeps its port"),
    ("times = 2", "to = \"mail\"", "there is no service `mail`"),
    (
        "services = [",
        "services = [{ name = \"api\", node_port = 30081 }, ",
        "step 1: there are several services",
    ),
    (
        "default = { fate = \"established\" }",
        "",
        "nothing is expected of client-a:41000 (attempt 1)",
    ),
    (
        "fate = \"established\" }",
        "fate = \"established\", evidence = [{}] }",
        "evidence of nothing",
    ),
    (
        "[topology]",
        "[facts]\n\"vm.swappiness\" = 1\n[topology]",
        "is no sysctl of the network",
    ),
    (
        "fate = \"established\" }",
        "fate = \"established\" }\ntotals = { flows = 3, by_fate = { established = 3 } }",
        "3 flows are expected, but the steps make 4",
    ),
    (
        "fate = \"established\" }",
        "fate = \"established\" }\ntotals = { flows = 4, by_fate = { established = 3 } }",
        "the fates add up to 3, not to 4",
    ),
    (
        "fate = \"established\" }",
        "fate = \"established\" }\nflows = [{ client = \"client-a\", source_port = 41000, occurrence = 3, fate = \
             \"stalled\" }]",
        "flows are expected that no step makes: client-a:41000",
    ),
    (
        "fate = \"established\" }",
        "fate = \"established\" }\nflows = [{ client = \"client-a\", source_port = 41000, count = 2, fate = \
             \"stalled\" }, { client = \"client-a\", source_port = 41001, fate = \"stalled\" }]",
        "client-a:41001 (attempt 1): what is expected of it is said 2 times",
    ),
    (
        "connect = { client = \"client-a\", source_port = 41000, count = 2, times = 2 }",
        "parallel = [{ client = \"client-a\", source_port = 41000, count = 2 }, { client = \"client-a\", \
             source_port = 41001 }]",
        "client-a connects twice at once from 41001",
    ),
];

#[test]
fn contradictions_are_refused() {
    for (from, to, complaint) in CONTRADICTIONS {
        let error = refused(from, to);
        assert!(error.contains(complaint), "{to}: {error}");
    }
}
