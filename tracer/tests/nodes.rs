//! Recordings of several nodes: lines sorted by the wall clock, the same connection seen on more than one node, and flows
//! that change later.

mod tape;

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tape::{NODE, Tape, tuple};
use tracer::{
    facts::Facts,
    finding::Finding,
    report::joined::{Fingerprint, Key, connections},
};
use tracer_common::{hook::Hook, tcp::Part, tuple::Tuple};

const CLIENT: [u8; 4] = [10, 0, 0, 2];
const NODE_A: [u8; 4] = [10, 0, 0, 1];
const BACKEND: [u8; 4] = [10, 244, 1, 2];
const ISN: u32 = 0x1234_5678;

/// The tuple that the client sends.
fn sent(port: u16) -> Tuple {
    tuple((CLIENT, port), (NODE_A, 30_080))
}

/// The same SYN after DNAT and masquerade.
fn masqueraded(port: u16) -> Tuple {
    tuple((NODE_A, port), (BACKEND, 8_080))
}

/// The connections of these nodes: each as run and flow, with the node the client contacted first.
fn joined(tapes: &[&Tape]) -> Vec<Vec<Key>> {
    let mut fingerprints = BTreeMap::new();
    for (run, tape) in tapes.iter().enumerate() {
        for (flow, fate, diagnosis) in tape.judged() {
            let finding = Finding {
                flow: &flow,
                fate,
                diagnosis: &diagnosis,
                facts: &Facts::default(),
                clock: &tape.clock(),
            };
            fingerprints.insert((run + 1, flow.id), Fingerprint::of(&finding));
        }
    }
    connections(&fingerprints)
}

fn node_a() -> Tape {
    Tape::new("node-a", 5_000_000, 0)
}

/// Its wall clock is 40 ms behind: the SYN seems to reach it before the other node.
fn node_b() -> Tape {
    Tape::new("node-b", 70_000, -40)
}

#[test]
fn a_masqueraded_flow_is_recognised_on_the_pods_node() {
    let (mut a, mut b) = (node_a(), node_b());
    a.flow(ISN).forwarded(100, sent(42_000), masqueraded(42_000));
    b.flow(1).reaches_listener(90, masqueraded(41_000), false);
    b.flow(ISN).reaches_listener(101, masqueraded(42_000), false);
    assert_eq!(joined(&[&a, &b]), [[(1, 1), (2, 2)]]);
    assert_eq!(joined(&[&b, &a]), [[(2, 1), (1, 2)]]);
}

#[test]
fn a_tunnel_changes_nothing() {
    let (mut a, mut b) = (node_a(), node_b());
    let inner = masqueraded(42_000);
    a.flow(ISN).forwarded(100, sent(42_000), inner);
    a.in_tunnel(true)
        .packet(100, Hook::DevStartXmit, Part::Syn, inner, NODE);
    b.flow(ISN).in_tunnel(true);
    b.packet(101, Hook::NetifReceive, Part::Syn, inner, NODE);
    b.in_tunnel(false).reaches_listener(101, inner, false);
    assert_eq!(joined(&[&a, &b]), [[(1, 1), (2, 1)]]);
}

#[test]
fn a_real_server_that_gets_the_syn_unmodified_comes_second() {
    let (mut a, mut b) = (node_a(), node_b());
    a.flow(ISN).forwarded(100, sent(42_000), sent(42_000));
    b.flow(ISN)
        .packet(101, Hook::NetifReceive, Part::Syn, sent(42_000), NODE);
    b.listener(101, sent(42_000), NODE, false);
    assert_eq!(joined(&[&a, &b]), [[(1, 1), (2, 1)]]);
    assert_eq!(joined(&[&b, &a]), [[(2, 1), (1, 1)]]);
}

#[test]
fn another_number_or_another_time_is_another_connection() {
    let mut a = node_a();
    a.flow(ISN).forwarded(100, sent(42_000), masqueraded(42_000));
    let of_b = |isn: u32, at_ms: u64, tuple: Tuple| {
        let mut b = node_b();
        b.flow(isn).reaches_listener(at_ms, tuple, false);
        b
    };
    let none: [Vec<Key>; 0] = [];
    assert_eq!(joined(&[&a, &of_b(ISN + 1, 101, masqueraded(42_000))]), none);
    assert_eq!(joined(&[&a, &of_b(ISN, 3_600_101, masqueraded(42_000))]), none);
    assert_eq!(joined(&[&a, &of_b(ISN, 101, masqueraded(42_001))]), none);
    // Its clock is wrong by some seconds.
    assert_eq!(joined(&[&a, &of_b(ISN, 6_000, masqueraded(42_000))]).len(), 1);
    // Two flows of one run are never the same connection.
    let mut twice = node_a();
    twice.flow(ISN).forwarded(100, sent(42_000), masqueraded(42_000));
    twice.flow(ISN).reaches_listener(101, masqueraded(42_000), false);
    assert_eq!(joined(&[&twice]), none);
}

#[test]
fn a_syn_that_only_gets_through_on_retransmission_is_recognised() {
    let (mut a, mut b) = (node_a(), node_b());
    a.flow(ISN);
    for at in [0, 1_000, 3_000, 7_000, 15_000, 31_000] {
        a.forwarded(at, sent(42_000), masqueraded(42_000));
    }
    b.flow(ISN).reaches_listener(31_001, masqueraded(42_000), false);
    assert_eq!(joined(&[&a, &b]), [[(1, 1), (2, 1)]]);
}

#[test]
fn three_nodes_are_in_the_order_of_the_path() {
    let (mut a, mut b) = (node_a(), node_b());
    let mut c = Tape::new("node-c", 9_000, 300);
    let pod = tuple(([10, 244, 9, 9], 42_000), (NODE_A, 30_080));
    let from_c = tuple(([10, 0, 0, 3], 42_000), (NODE_A, 30_080));
    c.flow(ISN).forwarded(100, pod, from_c);
    a.flow(ISN).forwarded(101, from_c, masqueraded(42_000));
    b.flow(ISN).reaches_listener(102, masqueraded(42_000), false);
    assert_eq!(joined(&[&a, &b, &c]), [[(3, 1), (1, 1), (2, 1)]]);
}

/// Recordings of two nodes with four connections to node-a: the first's listener on node-b has a full queue, the second is
/// healthy, the third is seen by node-a only, and the fourth's answer is lost between the nodes.
struct Recorded {
    folder: tempfile::TempDir,
}

impl Recorded {
    fn new() -> Self {
        let (mut a, mut b) = (node_a(), node_b());
        let tuples = |port: u16| (sent(port), masqueraded(port));
        let (from, to) = tuples(42_000);
        a.flow(ISN);
        b.flow(ISN);
        for at in [100, 1_100, 3_100] {
            a.forwarded(at, from, to);
            b.reaches_listener(at + 1, to, true);
        }
        let (from, to) = tuples(42_001);
        a.flow(ISN + 1).forwarded(500, from, to);
        b.flow(ISN + 1).reaches_listener(501, to, false);
        b.answered(502, to);
        a.answer_passes(503, from, to);
        a.acknowledged(504, from);
        b.acknowledged(505, to);
        let (from, to) = tuples(42_002);
        a.flow(ISN + 2).forwarded(9_000, from, to);
        a.answer_passes(9_001, from, to);
        a.acknowledged(9_002, from);
        let (from, to) = tuples(42_003);
        a.flow(ISN + 3);
        b.flow(ISN + 3);
        for at in [20_000, 21_000] {
            a.forwarded(at, from, to);
            b.forwarded(at + 1, to, to);
            b.packet(at + 1, Hook::NetifReceive, Part::Syn, to, tape::POD);
            if at == 20_000 {
                b.listener(at + 1, to, tape::POD, false);
            }
            b.answered(at + 2, to);
        }
        let folder = tempfile::tempdir().expect("a folder");
        a.record(&folder.path().join("a.trace"));
        b.record(&folder.path().join("b.trace"));
        Self { folder }
    }

    /// Runs a command; `a.trace` and `b.trace` are the recordings.
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tracer"))
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .expect("the command runs")
    }

    fn output_of(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && errors.is_empty(),
            "{arguments:?}: {errors}"
        );
        String::from_utf8(output.stdout).expect("text")
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn objects(lines: &str) -> Vec<Value> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn lines_of_several_runs_are_sorted_by_wall_clock_and_name_their_host() {
    let recorded = Recorded::new();
    let json = recorded.output_of(&["replay", "--json", "a.trace", "b.trace"]);
    let lines = objects(&json);
    assert!(
        lines
            .iter()
            .all(|line| ["node-a", "node-b"].contains(&line["host"].as_str().expect("a host")))
    );
    let order: Vec<String> = lines
        .iter()
        .map(|line| {
            let id = line["id"].as_u64().map_or_else(String::new, |id| id.to_string());
            format!(
                "{}{id} {}",
                &line["type"].as_str().expect("a type")[..1],
                &line["host"].as_str().expect("a host")[5..]
            )
        })
        .collect();
    // The clock of node-b is 40 ms behind.
    assert_eq!(
        order,
        [
            "s b", "s a", "f2 b", "f2 a", "f1 b", "f1 a", "f3 a", "f3 b", "f4 a", "e b", "e a"
        ]
    );
    assert_eq!(
        json,
        recorded.output_of(&["replay", "--json", "b.trace", "a.trace"])
    );
    assert_eq!(
        json,
        recorded.output_of(&["export", "--to", "jsonl", "a.trace", "b.trace"])
    );
    let plain = recorded.output_of(&["replay", "--plain", "a.trace", "b.trace"]);
    let one = plain
        .lines()
        .find(|line| line.contains("tcp.accept-queue-full"))
        .expect("a line");
    assert!(
        one.contains("Z node-b #1    unanswered  10.0.0.1:42000 -> 10.244.1.2:8080"),
        "{one}"
    );
    assert!(plain.contains("node-a: 4 flows: "), "{plain}");
    let fails = recorded.run(&[
        "replay",
        "--plain",
        "--fail-on",
        "unanswered",
        "a.trace",
        "b.trace",
    ]);
    assert_eq!(fails.status.code(), Some(3));
}

#[test]
fn lines_of_one_run_do_not_name_the_host() {
    let recorded = Recorded::new();
    let alone = objects(&recorded.output_of(&["replay", "--json", "a.trace"]));
    let together = objects(&recorded.output_of(&["replay", "--json", "a.trace", "b.trace"]));
    let of_a: Vec<Value> = together
        .into_iter()
        .filter(|line| line["host"] == "node-a")
        .map(|mut line| {
            if line["type"] != "start" {
                line.as_object_mut().expect("an object").remove("host");
            }
            line
        })
        .collect();
    assert_eq!(alone, of_a);
    let text = recorded.output_of(&["report", "a.trace"]);
    assert!(
        text.contains("4 flows from 1 client: ") && text.contains("backend.silent"),
        "{text}"
    );
    let json: Value =
        serde_json::from_str(&recorded.output_of(&["report", "--json", "a.trace"])).expect("JSON");
    assert!(json.get("several").is_none() && json["causes"][0].get("found_on").is_none());
}

#[test]
fn a_truncated_recording_is_reported_and_the_others_are_read() {
    let recorded = Recorded::new();
    let bytes = std::fs::read(recorded.path().join("b.trace")).expect("a recording");
    std::fs::write(recorded.path().join("cut.trace"), &bytes[..bytes.len() - 100]).expect("a file");
    let output = recorded.run(&["replay", "--json", "a.trace", "cut.trace"]);
    assert!(output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cut.trace: incomplete (the recorder was killed")
    );
}

#[test]
fn a_connection_seen_by_two_nodes_counts_once_with_the_cause_of_the_one_that_knows() {
    let recorded = Recorded::new();
    let text = recorded.output_of(&["report", "b.trace", "a.trace"]);
    let shown = |part: &str| assert!(text.contains(part), "{part}\n{text}");
    shown("4 flows from 1 client: 2 established, 2 unanswered");
    shown(
        "3 connections seen on more than one node, counted once: 3 on node-a and node-b; the cause of 1 was found on a \
         later node",
    );
    shown("10.0.0.2:42000 -> 10.0.0.1:30080: On node-b: The pod (10.244.1.2:8080) dropped the SYN");
    shown("found on     node-b");
    shown("Nodes disagree\n  10.0.0.2:42003 -> 10.0.0.1:30080, at 2026-11-26T10:00:20Z");
    shown("    node-a: flow 4, unanswered, backend.silent: ");
    shown("    node-b: flow 3, unanswered, client.silent: ");
    let report = |arguments: &[&str]| -> Value {
        let mut all = vec!["report", "--json", "a.trace", "b.trace"];
        all.extend(arguments);
        serde_json::from_str(&recorded.output_of(&all)).expect("JSON")
    };
    let json = report(&[]);
    assert_eq!(
        (json["flows"].as_u64(), json["clients"].as_u64()),
        (Some(4), Some(1))
    );
    let causes: Vec<&str> = json["causes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|cause| cause["cause"].as_str().expect("a name"))
        .collect();
    assert_eq!(causes, ["tcp.accept-queue-full", "unknown"]);
    let unknown = json["causes"][1]["example"]["explanation"]
        .as_str()
        .expect("text");
    assert!(
        unknown.contains("On node-a: ") && unknown.contains("On node-b: "),
        "{unknown}"
    );
    assert_eq!(json["several"]["connections"], 3);
    assert_eq!(
        json["several"]["otherwise"][0]["said"][1]["cause"],
        "client.silent"
    );
    // Filters apply to the whole connection.
    for (arguments, flows) in [
        (["--cause", "tcp.accept-queue-full"], 1),
        (["--cause", "backend.silent"], 0),
        (["--cause", "client.silent"], 0),
        (["--port", "30080"], 4),
        (["--port", "8080"], 0),
        (["--client", "10.0.0.2"], 4),
        (["--fate", "unanswered"], 2),
    ] {
        assert_eq!(report(&arguments)["flows"], flows, "{arguments:?}");
    }
}

#[test]
fn a_report_filters_by_the_last_report_of_a_flow() {
    let mut a = node_a();
    let (from, to) = (sent(42_000), masqueraded(42_000));
    a.flow(ISN).forwarded(0, from, to);
    // After the flow was reported as unanswered.
    a.answer_passes(8_000, from, to);
    a.acknowledged(8_001, from);
    let folder = tempfile::tempdir().expect("a folder");
    a.record(&folder.path().join("a.trace"));
    let recorded = Recorded { folder };
    let lines = objects(&recorded.output_of(&["replay", "--json", "a.trace"]));
    let fates: Vec<&Value> = lines
        .iter()
        .filter(|line| line["type"] == "flow")
        .map(|line| &line["fate"])
        .collect();
    assert_eq!(fates, ["unanswered", "established"]);
    for (fate, flows) in [("unanswered", 0), ("established", 1)] {
        let json = recorded.output_of(&["report", "--json", "--fate", fate, "a.trace"]);
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["flows"], flows, "{fate}");
        let page = recorded.output_of(&["report", "--html", "-", "--fate", fate, "a.trace"]);
        assert_eq!(page.matches("<details class=\"flow\"").count(), flows, "{fate}");
    }
}

#[test]
fn the_page_draws_one_flow_of_each_connection_and_names_the_other() {
    let recorded = Recorded::new();
    let page = recorded.output_of(&["report", "--html", "-", "a.trace", "b.trace"]);
    assert_eq!(page.matches("<details class=\"flow\"").count(), 4);
    for part in [
        "3 connections seen on more than one node",
        "The same connection on node-a: flow 1 there, unanswered, backend.silent.",
        "The same connection on node-b: flow 3 there, unanswered, client.silent.",
        "<h2>Nodes disagree</h2>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // Every link has a target.
    for link in page.split("href=\"#").skip(1) {
        let to = link.split('"').next().expect("a name");
        assert!(page.contains(&format!("id=\"{to}\"")), "{to}");
    }
}

#[test]
fn show_draws_both_halves() {
    let recorded = Recorded::new();
    let text = recorded.output_of(&["show", "a.trace", "b.trace", "1"]);
    let shown = |part: &str| {
        let at = text.find(part);
        at.unwrap_or_else(|| panic!("{part}\n{text}"))
    };
    let first = shown("On node-a:\nflow 1  unanswered  backend.silent\n");
    let second = shown("\nThe same connection on node-b:\nflow 1  unanswered  tcp.accept-queue-full\n");
    let end = shown(
        "\nTogether: the SYN reached node-a, then node-b; unanswered, tcp.accept-queue-full.\nOn node-b: ",
    );
    assert!(first < second && second < end);
    let text = recorded.output_of(&["show", "b.trace", "a.trace", "3"]);
    assert!(
        text.starts_with("On node-b:\nflow 3  unanswered  client.silent\n"),
        "{text}"
    );
    assert!(
        text.contains("The same connection on node-a:\nflow 4  unanswered  backend.silent\n"),
        "{text}"
    );
    assert!(
        text.contains("; unanswered, unknown.\nOn node-a: ") && text.ends_with("The nodes disagree.\n"),
        "{text}"
    );
    let alone = recorded.output_of(&["show", "a.trace", "b.trace", "3"]);
    assert!(alone.starts_with("flow 3  established\n"), "{alone}");
    assert!(
        alone.ends_with("No other recording has this connection.\n"),
        "{alone}"
    );
    let one = recorded.output_of(&["show", "a.trace", "1"]);
    assert!(
        one.starts_with("flow 1  unanswered  backend.silent\n") && !one.contains("node-b"),
        "{one}"
    );
    let none = recorded.run(&["show", "a.trace", "b.trace", "99"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no flow 99 in a.trace: it has flows 1 to 4"));
}
