//! Scenarios with thousands of flows, a few of which may deviate.

use serde_json::json;

use super::{SCENARIO, flow, one};
use crate::expect::judge;
use crate::protocol::{Outcome, Traffic};
use crate::scenario::Scenario;

/// A thousand flows that should connect; the first `deviating` of them deviate.
fn many_flows(
    answered_by: Option<&str>,
    outcome: Outcome,
    fate: &str,
    cause: Option<&str>,
    deviating: usize,
) -> Vec<String> {
    let text = SCENARIO.split("[[steps]]").next().unwrap().to_owned()
        + r#"
[[steps]]
connect = { client = "client-a", to = "web", source_port = 20000, count = 1000 }

[expect]
matrix = true
default = { fate = "established" }
"#;
    let scenario = Scenario::from_toml(&text).unwrap();
    let (mut lines, mut traffic) = (Vec::new(), Vec::new());
    for number in 0..1000_u16 {
        let deviates = usize::from(number) < deviating;
        let port = 20_000 + number;
        let mut line = flow(
            u32::from(number),
            port,
            if deviates { fate } else { "established" },
        );
        line["start"] = json!("2026-01-01T00:00:01Z");
        if deviates {
            line["cause"] = json!(cause);
            line["explanation"] = json!("for these tests");
        }
        lines.push(line);
        traffic.push(Traffic {
            client: "client-a".into(),
            source_port: port,
            to: ([10, 0, 0, 1], 30_080).into(),
            outcome: if deviates { outcome } else { Outcome::Connected },
            ms: 20.0,
            answer_ms: Some(1.0),
            backend: if deviates { answered_by } else { Some("pod-1") }.map(Into::into),
        });
    }
    let verdict = judge(&scenario, &lines, &traffic);
    verdict.iter().map(ToString::to_string).collect()
}

#[test]
fn few_of_many_flows_may_deviate_if_tracers_report_matches_the_client() {
    let no_mismatch: [String; 0] = [];
    let unanswered = |fate, cause, deviating| many_flows(None, Outcome::Connected, fate, cause, deviating);
    assert_eq!(unanswered("refused", Some("unknown"), 2), no_mismatch);
    assert_eq!(unanswered("established", None, 2), no_mismatch);
    one(
        &unanswered("refused", Some("unknown"), 3),
        "the machine: 3 of 1000 connections did not go as planned",
    );
    let refused = |fate, cause| many_flows(Some("pod-1"), Outcome::Refused, fate, cause, 1);
    assert_eq!(refused("refused", Some("unknown")), no_mismatch);
    one(
        &refused("established", None),
        "client-a:20000 (attempt 1): tracer reports established, but the client was refused after 20 ms",
    );
}
