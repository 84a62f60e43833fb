//! JSON lines and plain lines.

mod story;

use serde_json::{Value, json};
use story::{MS, Story, clock, entry, finding};
use tracer::{
    flow::fate::Fate,
    report::{
        json::{self, Run},
        ladder::{Ladder, Rung, Sign},
        path, plain,
    },
};
use tracer_common::record::ipvs_conn;

fn stalled() -> Story {
    let mut story = Story::new();
    story.expired_and_dropped(MS, entry(ipvs_conn::TIME_WAIT, 1, 1, 0));
    story.served(1_001 * MS);
    story
}

#[test]
fn a_flow_has_every_member_of_schema_1_and_nothing_else() {
    let mut story = stalled();
    let only = story.only();
    let line = json::flow(&Run::default(), &finding(&only, &story.facts, &clock()));
    assert!(!line.contains('\n'));
    let mut line: Value = serde_json::from_str(&line).expect("one object");
    let members: Vec<&str> = line
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        members,
        [
            "advice",
            "attempts",
            "backend",
            "boot_id",
            "cause",
            "client",
            "connect_ms",
            "dataplane",
            "dnat",
            "evidence",
            "explanation",
            "fate",
            "id",
            "inner_cause",
            "lost_ms",
            "netns",
            "node",
            "node_name",
            "path",
            "service",
            "snat",
            "stall_ms",
            "start",
            "syn_seq",
            "synacks",
            "syns",
            "type"
        ]
    );
    assert_eq!(line["type"], "flow");
    assert_eq!(line["start"], "2026-11-22T18:35:45.501000000Z");
    assert_eq!(line["client"], json!({"ip": "10.0.0.2", "port": 40_001}));
    assert_eq!(line["node"], json!({"ip": "10.0.0.1", "port": 30_080}));
    assert_eq!(
        line["backend"],
        json!({"ip": "10.244.1.2", "port": 8080, "name": null})
    );
    assert_eq!(
        (&line["service"], &line["dataplane"]),
        (&Value::Null, &json!("ipvs"))
    );
    assert_eq!(
        (&line["fate"], &line["cause"]),
        (&json!("stalled"), &json!("ipvs.reuse-dropped"))
    );
    assert_eq!(
        (&line["syns"], &line["synacks"], &line["stall_ms"]),
        (&json!(2), &json!(1), &json!(1000.0))
    );
    let step = line["path"][0].take();
    assert_eq!(step["hook"], "netif_receive_skb");
    assert_eq!(step.as_object().expect("an object").len(), 7);
    let fact = line["evidence"][0].take();
    assert_eq!(
        (&fact["key"], &fact["what"]),
        (&json!("old-entry-state"), &json!("old IPVS entry: state"))
    );
    assert_eq!(
        (&fact["value"], &fact["hook"]),
        (&json!("TIME_WAIT"), &json!("ip_vs_conn_in_get_proto"))
    );
}

#[test]
fn the_step_of_a_drop_with_a_reason_is_marked_as_the_end() {
    let mut story = Story::new();
    story.arrives(MS);
    story.dropped_with_reason(2 * MS);
    let only = story.only();
    let steps = path::steps(&only.0, &story.facts);
    let verdict = steps
        .iter()
        .find(|step| step.hook == "nft_do_chain")
        .expect("the chain");
    assert_eq!(verdict.verdict.as_deref(), Some("NF_DROP_REASON"));
    assert!(verdict.is_drop);
    let ladder = Ladder::of(&finding(&only, &story.facts, &clock()));
    let signs: Vec<Sign> = ladder
        .rungs
        .iter()
        .filter_map(|rung| match rung {
            Rung::Step { sign, .. } => Some(*sign),
            Rung::Syn(_) => None,
        })
        .collect();
    assert_eq!(signs, [Sign::Inward, Sign::End, Sign::End]);
}

#[test]
fn what_is_not_known_is_null() {
    let mut story = Story::new();
    story.arrives(MS);
    let only = story.only();
    let line: Value = serde_json::from_str(&json::flow(
        &Run::default(),
        &finding(&only, &story.facts, &clock()),
    ))
    .expect("one object");
    for member in [
        "backend",
        "dataplane",
        "connect_ms",
        "stall_ms",
        "service",
        "advice",
        "inner_cause",
    ] {
        assert_eq!(line[member], Value::Null, "{member}");
    }
}

#[test]
fn people_get_one_line_and_the_path_only_on_request() {
    let mut story = stalled();
    let only = story.only();
    let line = plain::flow(None, &finding(&only, &story.facts, &clock()), None, false).into_string();
    assert!(line.starts_with(
        "2026-11-22T18:35:45.501Z #1    stalled     10.0.0.2:40001 -> 10.0.0.1:30080 -> 10.244.1.2:8080"
    ));
    assert!(line.contains("1000 ms lost  ipvs.reuse-dropped: The client reused source port 40001"));
    assert_eq!(line.lines().count(), 1);
    let long = plain::flow(None, &finding(&only, &story.facts, &clock()), None, true).into_string();
    assert!(long.starts_with(&line));
    let again =
        |was| plain::flow(None, &finding(&only, &story.facts, &clock()), Some(was), false).into_string();
    assert!(
        again(Fate::Unanswered).contains("1000 ms lost  (updated; was unanswered)  ipvs.reuse-dropped: ")
    );
    assert!(again(Fate::Stalled).contains("1000 ms lost  (updated)  ipvs.reuse-dropped: "));
    assert!(long.contains("evidence: old IPVS entry: state: TIME_WAIT [ip_vs_conn_in_get_proto]"));
    assert!(long.contains("what to do: Set net.ipv4.vs.conn_reuse_mode=0"));
}
