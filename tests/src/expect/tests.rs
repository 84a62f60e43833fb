mod many_flows;

use serde_json::{Value, json};

use super::{judge, judge_traffic};
use crate::protocol::{Outcome, Traffic};
use crate::scenario::Scenario;

/// Three flows: one established, one that stalls on the same port, one unanswered by a silent pod.
const SCENARIO: &str = r#"
title = "A stall and a silence"
story = "For these tests."
kernels = ["6.12"]

[topology]
clients = [{ name = "client-a", address = "10.0.0.2" }]
pods = [
  { name = "pod-1", address = "10.244.1.2", behaviour = "rst" },
  { name = "pod-2", address = "10.244.2.2", behaviour = "silent" },
]
services = [
  { name = "web", node_port = 30080, real_servers = [{ pod = "pod-1" }] },
  { name = "mute", node_port = 30090, real_servers = [{ pod = "pod-2" }] },
]

[[steps]]
connect = { client = "client-a", to = "web", source_port = 41000, times = 2 }
[[steps]]
connect = { client = "client-a", to = "mute", source_port = 41001 }

[expect]
default = { fate = "established" }

[[expect.flows]]
client = "client-a"
source_port = 41000
occurrence = 2
fate = "stalled"
cause = "ipvs.reuse-dropped"
backend = "pod-1"
dataplane = "ipvs"
service = "default/web"
syns = 2
stall_ms = [900, 1500]
connect_ms = [900, 1600]
evidence = [{ key = "old-entry-state", value = "close" }, { value = "conntrack" }]

[[expect.flows]]
client = "client-a"
source_port = 41001
fate = "unanswered"
cause = "backend.silent"
syns = [2, 3]

[expect.totals]
flows = 3
by_fate = { established = 1, stalled = 1, unanswered = 1 }
by_cause = { "ipvs.reuse-dropped" = 1, "backend.silent" = 1 }
"#;

struct Case {
    scenario: Scenario,
    lines: Vec<Value>,
    traffic: Vec<Traffic>,
}

impl Case {
    /// Everything as expected.
    fn good() -> Self {
        let truth = |source_port, outcome, ms, backend: Option<&str>| Traffic {
            client: "client-a".into(),
            source_port,
            to: ([10, 0, 0, 1], if source_port == 41001 { 30_090 } else { 30_080 }).into(),
            outcome,
            ms,
            answer_ms: Some(1.5),
            backend: backend.map(Into::into),
        };
        Self {
            scenario: Scenario::from_toml(SCENARIO).unwrap(),
            lines: vec![
                json!({"type": "start", "schema": 1}),
                flow(1, 41000, "established"),
                json!({
                    "type": "flow", "id": 2, "start": "2026-01-01T00:00:02.5Z", "netns": 1,
                    "client": {"ip": "10.0.0.2", "port": 41000}, "node": {"ip": "10.0.0.1", "port": 30080},
                    "service": "default/web", "dataplane": "ipvs",
                    "backend": {"ip": "10.244.1.2", "port": 8080, "name": null},
                    "fate": "stalled", "cause": "ipvs.reuse-dropped", "explanation": "…", "advice": "…",
                    "evidence": [
                        {"key": "old-entry-state", "what": "old connection's state", "value": "CLOSE", "hook": "ip_vs_conn_in_get_proto"},
                        {"key": "syn-conntrack-entry", "what": "held by", "value": "conntrack", "hook": "ip_vs_conn_in_get_proto"},
                    ],
                    "syns": 2, "synacks": 1, "connect_ms": 1012.5, "stall_ms": 1008.0, "path": [],
                }),
                json!({
                    "type": "flow", "id": 3, "start": "2026-01-01T00:00:03.51Z", "netns": 1,
                    "client": {"ip": "10.0.0.2", "port": 41001}, "node": {"ip": "10.0.0.1", "port": 30090},
                    "service": "default/web", "dataplane": "ipvs",
                    "backend": {"ip": "10.244.2.2", "port": 8080, "name": null},
                    "fate": "unanswered", "cause": "backend.silent", "explanation": "…", "advice": null,
                    "evidence": [], "syns": 2, "synacks": 0, "connect_ms": null, "stall_ms": null, "path": [],
                }),
                json!({"type": "end", "flows": 3, "events": 90, "lost": 0}),
            ],
            traffic: vec![
                truth(41000, Outcome::Connected, 4.2, Some("pod-1")),
                truth(41000, Outcome::Connected, 1013.0, Some("pod-1")),
                truth(41001, Outcome::Timeout, 2500.0, None),
            ],
        }
    }

    fn verdict(&self) -> Vec<String> {
        let mismatches = judge(&self.scenario, &self.lines, &self.traffic);
        mismatches.iter().map(ToString::to_string).collect()
    }

    /// The verdict after a change to the line of the stalled flow.
    fn with_stalled(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut case = Self::good();
        change(&mut case.lines[2]);
        case.verdict()
    }

    fn with_truth(nth: usize, change: impl FnOnce(&mut Traffic)) -> Vec<String> {
        let mut case = Self::good();
        change(&mut case.traffic[nth]);
        case.verdict()
    }
}

fn flow(id: u32, port: u16, fate: &str) -> Value {
    json!({
        "type": "flow", "id": id, "start": format!("2026-01-01T00:00:0{id}.49Z"), "netns": 1,
        "client": {"ip": "10.0.0.2", "port": port}, "node": {"ip": "10.0.0.1", "port": 30080},
        "service": "default/web", "dataplane": "ipvs", "backend": {"ip": "10.244.1.2", "port": 8080, "name": null},
        "fate": fate, "cause": null, "explanation": "", "advice": null, "evidence": [],
        "syns": 1, "synacks": 1, "connect_ms": 3.9, "stall_ms": null, "path": [],
    })
}

#[track_caller]
fn one(verdict: &[String], expected: &str) {
    assert_eq!(verdict, [expected]);
}

#[test]
fn a_correct_report_passes() {
    assert_eq!(Case::good().verdict(), Vec::<String>::new());
}

#[test]
fn a_wrong_fate_contradicts_the_scenario_and_the_client() {
    let verdict = Case::with_stalled(|flow| flow["fate"] = "established".into());
    assert_eq!(
        verdict,
        [
            "client-a:41000 (attempt 2): the fate is established, expected stalled",
            "client-a:41000 (attempt 2): tracer reports established, but the client was connected after 1013 ms",
            "totals: established: 2, expected 1",
            "totals: stalled: 0, expected 1",
        ]
    );
}

#[test]
fn pending_is_not_a_final_fate() {
    let verdict = Case::with_stalled(|flow| flow["fate"] = "pending".into());
    assert!(
        verdict.contains(&"client-a:41000 (attempt 2): `pending` is not a final fate".to_owned()),
        "{verdict:?}"
    );
}

#[test]
fn wrong_missing_and_superfluous_causes_are_mismatches() {
    let verdict = Case::with_stalled(|flow| flow["cause"] = "ipvs.nodest-expired".into());
    assert_eq!(
        verdict[0],
        "client-a:41000 (attempt 2): the cause is ipvs.nodest-expired, expected ipvs.reuse-dropped"
    );
    let verdict = Case::with_stalled(|flow| flow["cause"] = Value::Null);
    assert_eq!(
        verdict,
        [
            "client-a:41000 (attempt 2): the cause is none, expected ipvs.reuse-dropped",
            "totals: ipvs.reuse-dropped: 0, expected 1",
        ]
    );
    let mut case = Case::good();
    case.lines[1]["cause"] = "unknown".into();
    case.lines[1]["explanation"] = "Who knows.".into();
    assert_eq!(
        case.verdict(),
        [
            "client-a:41000 (attempt 1): the cause is unknown, expected none",
            "totals: unknown: 1, expected 0",
        ]
    );
}

#[test]
fn a_cause_needs_an_explanation() {
    one(
        &Case::with_stalled(|flow| flow["explanation"] = " ".into()),
        "client-a:41000 (attempt 2): it has a cause without an explanation",
    );
}

#[test]
fn both_texts_must_be_in_one_piece_of_evidence() {
    one(
        &Case::with_stalled(|flow| {
            flow["evidence"][0]["value"] = "TIME_WAIT".into();
            flow["evidence"][1]["value"] = "conntrack, in CLOSE".into();
        }),
        "client-a:41000 (attempt 2): no evidence `old-entry-state` = `close`; found `old-entry-state` = \
         `TIME_WAIT`, `syn-conntrack-entry` = `conntrack, in CLOSE`",
    );
    let verdict = Case::with_stalled(|flow| flow["evidence"] = json!([]));
    assert_eq!(
        verdict[1],
        "client-a:41000 (attempt 2): no evidence `…` = `conntrack`; found none"
    );
}

#[test]
fn an_evidence_value_may_be_a_number() {
    let mut case = Case::good();
    case.lines[2]["evidence"][1]["value"] = json!(17);
    assert_eq!(
        case.verdict(),
        [
            "client-a:41000 (attempt 2): no evidence `…` = `conntrack`; found `old-entry-state` = \
             `CLOSE`, `syn-conntrack-entry` = `17`"
        ]
    );
}

#[test]
fn numbers_must_be_in_their_spans() {
    one(
        &Case::with_stalled(|flow| flow["syns"] = 3.into()),
        "client-a:41000 (attempt 2): syns is 3, expected 2",
    );
    one(
        &Case::with_stalled(|flow| flow["connect_ms"] = Value::Null),
        "client-a:41000 (attempt 2): connect_ms is unknown, expected 900 to 1600",
    );
    one(
        &Case::with_stalled(|flow| flow["stall_ms"] = 880.5.into()),
        "client-a:41000 (attempt 2): stall_ms is 880.5, expected 900 to 1500",
    );
}

#[test]
fn a_stall_must_match_the_clients_wait() {
    let verdict = Case::with_truth(1, |truth| truth.ms = 3020.0);
    one(
        &verdict,
        "client-a:41000 (attempt 2): stall_ms is 1008, but the client waited 3020 ms",
    );
}

#[test]
fn a_wrong_dataplane_is_a_mismatch() {
    one(
        &Case::with_stalled(|flow| flow["dataplane"] = Value::Null),
        "client-a:41000 (attempt 2): the dataplane is none, expected ipvs",
    );
}

#[test]
fn a_wrong_service_is_a_mismatch() {
    one(
        &Case::with_stalled(|flow| flow["service"] = json!("default/api")),
        "client-a:41000 (attempt 2): the service is default/api, expected default/web",
    );
}

#[test]
fn the_backend_must_be_the_pod_that_answered() {
    let wrong = json!({"ip": "10.244.2.2", "port": 8080, "name": null});
    one(
        &Case::with_stalled(|flow| flow["backend"] = wrong),
        "client-a:41000 (attempt 2): the backend is 10.244.2.2:8080, but pod-1 (10.244.1.2:8080) answered",
    );
    // The first flow has no expected backend, but the pod sent its name.
    let mut case = Case::good();
    case.lines[1]["backend"] = Value::Null;
    one(
        &case.verdict(),
        "client-a:41000 (attempt 1): the backend is unknown, but pod-1 (10.244.1.2:8080) answered",
    );
}

#[test]
fn a_wrong_node_port_is_a_mismatch() {
    one(
        &Case::with_stalled(|flow| flow["node"]["port"] = 30090.into()),
        "client-a:41000 (attempt 2): it went to 10.0.0.1:30080, tracer reports 10.0.0.1:30090",
    );
}

/// Two connections at once from one port, to two services; the later one ends first.
fn at_once() -> Case {
    let text = SCENARIO
        .replace("times = 2", "timeout_ms = 9000")
        .replace("source_port = 41001", "source_port = 41000")
        .replace("occurrence = 2", "occurrence = 1")
        .replace("syns = [2, 3]", "syns = [2, 3]\noccurrence = 2");
    let (text, _) = text.split_once("[expect.totals]").unwrap();
    let mut case = Case::good();
    case.scenario = Scenario::from_toml(text).unwrap();
    case.lines.remove(1);
    case.lines[1]["start"] = "2026-01-01T00:00:04Z".into();
    case.lines[2]["client"]["port"] = 41000.into();
    case.traffic.remove(0);
    case.traffic[1].source_port = 41000;
    case.traffic.swap(0, 1);
    case
}

#[test]
fn two_connections_from_one_port_are_distinguished_by_destination() {
    assert_eq!(at_once().verdict(), Vec::<String>::new());
    let mut case = at_once();
    case.lines[2]["cause"] = "unknown".into();
    one(
        &case.verdict(),
        "client-a:41000 (attempt 2): the cause is unknown, expected backend.silent",
    );
}

#[test]
fn packets_lost_in_the_network_are_blamed_on_nothing_else() {
    let text = SCENARIO.replace(
        "default = { fate = \"established\" }",
        "default = { fate = \"established\", lossy = true }",
    );
    let mut case = Case::good();
    case.scenario = Scenario::from_toml(&text).unwrap();
    // The SYN was lost on its way to the node, which saw an immediate handshake.
    case.traffic[0].ms = 1020.0;
    assert_eq!(case.verdict(), Vec::<String>::new());
    // The ACK was lost: the client was connected at once, the backend a second later.
    case.scenario.expect.totals = None;
    case.lines[1]["fate"] = "stalled".into();
    case.lines[1]["cause"] = "client.silent".into();
    case.lines[1]["stall_ms"] = 1010.into();
    assert_eq!(case.verdict(), Vec::<String>::new());
    case.lines[1]["cause"] = "backend.slow".into();
    one(
        &case.verdict(),
        "client-a:41000 (attempt 1): stalled, backend.slow: its packets were lost outside the node",
    );
}

#[test]
fn the_last_line_of_a_flow_counts() {
    let mut case = Case::good();
    let mut early = case.lines[2].clone();
    early["fate"] = "dropped".into();
    early["cause"] = "unknown".into();
    case.lines.insert(1, early);
    assert_eq!(case.verdict(), Vec::<String>::new());

    let (early, late) = (1, 3);
    case.lines.swap(early, late);
    assert_eq!(
        case.verdict()[0],
        "client-a:41000 (attempt 2): the fate is dropped, expected stalled"
    );
}

#[test]
fn flows_of_a_port_are_ordered_by_start_and_not_by_output() {
    let mut case = Case::good();
    case.lines.swap(1, 2);
    assert_eq!(case.verdict(), Vec::<String>::new());

    // "00.5" is before "00.51", although not alphabetically.
    case.lines[1]["start"] = "2026-01-01T00:00:00.51Z".into();
    case.lines[2]["start"] = "2026-01-01T00:00:00.5Z".into();
    assert_eq!(case.verdict(), Vec::<String>::new());
}

#[test]
fn missing_and_superfluous_flows_are_mismatches() {
    let mut case = Case::good();
    case.lines.remove(3);
    assert_eq!(
        case.verdict(),
        [
            "client-a:41001 (attempt 1): tracer reports no such flow",
            "totals: flows: 2, expected 3",
            "totals: unanswered: 0, expected 1",
            "totals: backend.silent: 0, expected 1",
        ]
    );

    let mut case = Case::good();
    case.lines.push(flow(9, 41000, "established"));
    case.lines.push(flow(8, 5555, "dropped"));
    let mut stranger = flow(7, 41000, "refused");
    stranger["client"]["ip"] = "10.0.0.77".into();
    case.lines.push(stranger);
    assert_eq!(
        case.verdict(),
        [
            "10.0.0.77:41000: tracer reports a flow (refused) from an unknown client",
            "client-a:5555 (attempt 1): tracer reports a flow (dropped) that no step created",
            "client-a:41000 (attempt 3): tracer reports a flow (established) that no step created",
        ]
    );
}

#[test]
fn a_line_that_breaks_the_schema_is_shown() {
    let verdict = Case::with_stalled(|flow| flow["syns"] = "two".into());
    assert!(
        verdict[0].starts_with("tracer: this flow breaks the schema (invalid type: string \"two\""),
        "{verdict:?}"
    );
    assert_eq!(
        verdict[1],
        "client-a:41000 (attempt 2): tracer reports no such flow"
    );
}

#[test]
fn lost_records_and_wrong_totals_are_mismatches() {
    let mut case = Case::good();
    case.lines[4] = json!({"type": "end", "flows": 4, "events": 90, "lost": 2});
    case.lines
        .insert(3, json!({"type": "health", "events": 50, "lost": 1}));
    assert_eq!(
        case.verdict(),
        [
            "totals: tracer's last line counts 4 flows, expected 3",
            "tracer: records lost: 2",
        ]
    );
}

#[test]
fn a_scenario_that_did_not_happen_fails() {
    let verdict = Case::with_truth(1, |truth| truth.ms = 5.0);
    assert_eq!(
        verdict,
        [
            "client-a:41000 (attempt 2): expected stalled, but the client was connected after 5 ms",
            "client-a:41000 (attempt 2): tracer reports stalled, but the client was connected after 5 ms",
            "client-a:41000 (attempt 2): stall_ms is 1008, but the client waited 5 ms",
        ]
    );
    let verdict = Case::with_truth(2, |truth| truth.outcome = Outcome::Refused);
    assert_eq!(
        verdict,
        [
            "client-a:41001 (attempt 1): expected unanswered, but the client was refused after 2500 ms",
            "client-a:41001 (attempt 1): tracer reports unanswered, but the client was refused after 2500 ms",
        ]
    );
}

#[test]
fn traffic_can_be_judged_alone() {
    let mut case = Case::good();
    assert_eq!(judge_traffic(&case.scenario, &case.traffic), []);
    case.traffic[1].backend = Some("pod-2".into());
    case.traffic[2].client = "client-z".into();
    let verdict: Vec<String> = judge_traffic(&case.scenario, &case.traffic)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        verdict,
        [
            "client-a:41000 (attempt 2): pod-2 answered, expected pod-1",
            "client-a:41001 (attempt 1): the client never reported its outcome",
            "client-z:41001 (attempt 1): the client connected, but no step makes this connection",
        ]
    );
}

#[test]
fn no_output_fails() {
    let mut case = Case::good();
    case.lines.clear();
    let verdict = case.verdict();
    assert_eq!(
        verdict
            .iter()
            .filter(|line| line.ends_with("no such flow"))
            .count(),
        3
    );
}
