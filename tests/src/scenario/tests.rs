mod contradictions;

use std::path::Path;

use super::*;

/// The smallest valid scenario.
const SMALL: &str = r#"
title = "One connection"
story = "For these tests."
kernels = ["6.12", "7"]

[topology]
clients = [{ name = "client-a", address = "10.0.0.2" }]
pods = [{ name = "pod-1", address = "10.244.1.2" }]
services = [{ name = "web", node_port = 30080, real_servers = [{ pod = "pod-1" }] }]

[[steps]]
connect = { client = "client-a", source_port = 41000, count = 2, times = 2 }

[expect]
default = { fate = "established" }
"#;

fn all() -> Vec<Named> {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")).unwrap()
}

fn kubernetes() -> Vec<Named> {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes")).unwrap()
}

/// The full error of [`SMALL`] after a change.
#[track_caller]
fn refused(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    let error = Scenario::from_toml(&SMALL.replace(from, to)).unwrap_err();
    format!("{error:#}")
}

#[test]
fn defaults_are_what_kubernetes_has() {
    let scenario = Scenario::from_toml(SMALL).unwrap();
    let service = &scenario.topology.services[0];
    assert_eq!(service.external_traffic_policy, Policy::Cluster);
    assert_eq!(service.scheduler, Scheduler::Rr);
    assert_eq!(service.real_servers[0].weight, 1);
    assert_eq!(scenario.topology.pods[0].port, 8080);
    assert_eq!(scenario.topology.pods[0].behaviour, Behaviour::Fin);
    assert_eq!(scenario.node_ports(), [30080]);
}

#[test]
fn clients_and_pods_on_the_node_have_its_address() {
    let scenario = SMALL
        .replace("address = \"10.0.0.2\" }", "on_node = true }")
        .replace("address = \"10.244.1.2\" }", "host_network = true, port = 9090 }");
    let topology = Scenario::from_toml(&scenario).unwrap().topology;
    assert_eq!(topology.pods[0].address, address::node(Family::Ipv4));
    // The pod would be indistinguishable from the client.
    assert_eq!(
        topology.parties().collect::<Vec<_>>(),
        [("client-a", address::node(Family::Ipv4))]
    );
    let scenario = SMALL.replace("client = \"client-a\"", "client = \"pod-1\"");
    Scenario::from_toml(&scenario).unwrap();
}

#[test]
fn tracer_runs_with_defaults_unless_a_scenario_changes_them() {
    assert_eq!(Scenario::from_toml(SMALL).unwrap().tracer, Process::default());
    let customized = SMALL.replace(
        "[[steps]]",
        "[tracer]\nstatus = 3\nchecks = [\"ends\"]\n\n[[steps]]",
    );
    let tracer = Scenario::from_toml(&customized).unwrap().tracer;
    assert_eq!(
        (tracer.status, tracer.checks.as_slice()),
        (3, [Check::Ends].as_slice())
    );
    let error = refused("[[steps]]", "[tracer]\nsatus = 3\n\n[[steps]]");
    assert!(error.contains("unknown"), "{error}");
}

#[test]
fn attempts_are_counted_by_port() {
    let scenario = Scenario::from_toml(SMALL).unwrap();
    let attempts: Vec<String> = scenario
        .attempts()
        .iter()
        .map(|(attempt, _)| attempt.to_string())
        .collect();
    assert_eq!(
        attempts,
        [
            "client-a:41000 (attempt 1)",
            "client-a:41000 (attempt 2)",
            "client-a:41001 (attempt 1)",
            "client-a:41001 (attempt 2)",
        ]
    );
}

#[test]
fn a_flows_own_expectation_overrides_the_default() {
    let special = "[[expect.flows]]\nclient = \"client-a\"\nsource_port = 41000\ncount = 2\noccurrence = 2\nfate = \
                   \"stalled\"\nstall_ms = [900, 1500]\n";
    let scenario = Scenario::from_toml(&format!("{SMALL}\n{special}")).unwrap();
    let fates: Vec<Fate> = scenario
        .attempts()
        .iter()
        .map(|(attempt, _)| scenario.expected(attempt).unwrap().fate)
        .collect();
    assert_eq!(
        fates,
        [Fate::Established, Fate::Stalled, Fate::Established, Fate::Stalled]
    );
}

#[test]
fn unknown_keys_are_rejected_everywhere() {
    for (from, to) in [
        ("story =", "stroy ="),
        ("address = \"10.0.0.2\"", "adress = \"10.0.0.2\""),
        ("pod = \"pod-1\"", "pod = \"pod-1\", wieght = 2"),
        ("times = 2", "tmies = 2"),
        ("connect =", "conect ="),
        ("fate = \"established\"", "fate = \"established\", sysn = 2"),
    ] {
        let error = refused(from, to);
        assert!(error.contains("unknown"), "{to}: {error}");
    }
    let flow =
        "[[expect.flows]]\nclient = \"client-a\"\nsource_port = 41000\nfate = \"stalled\"\nstal_ms = 7\n";
    let error = Scenario::from_toml(&format!("{SMALL}\n{flow}")).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "inconsistent scenario: unknown key in the expectation of client-a:41000: `stal_ms`"
    );
}

#[test]
fn errors_name_place_and_value() {
    let error = refused("[\"6.12\", \"7\"]", "[\"6.12\", \"seven\"]");
    assert!(error.contains("line 4"), "{error}");
    assert!(error.contains("`seven` is not a kernel"), "{error}");

    let error = refused(
        "fate = \"established\"",
        "fate = \"established\", cause = \"ipvs.bad-luck\"",
    );
    assert!(error.contains("`ipvs.bad-luck` is not a cause"), "{error}");

    let error = refused("fate = \"established\"", "fate = \"established\", syns = [3, 2]");
    assert!(
        error.contains("the minimum 3 is greater than the maximum 2"),
        "{error}"
    );

    let error = refused("fate = \"established\"", "fate = \"pending\"");
    assert!(error.contains("unknown variant `pending`"), "{error}");
}

#[test]
fn only_ipvs_has_weights_to_set() {
    let set = "[[steps]]\nset_weight = { pod = \"pod-1\", weight = 0 }\n\n[[steps]]";
    let scenario = SMALL.replace("[[steps]]", set);
    Scenario::from_toml(&scenario).unwrap();
    let scenario = scenario.replace("[topology]", "[topology]\nproxy = \"iptables-legacy\"");
    let error = format!("{:#}", Scenario::from_toml(&scenario).unwrap_err());
    assert!(error.contains("step 1: only IPVS mode has weights"), "{error}");
}

#[test]
fn every_scenario_of_the_catalogue_parses() {
    let all = [all(), kubernetes()].concat();
    let mut titles: Vec<_> = all.iter().map(|named| &named.scenario.title).collect();
    titles.sort();
    titles.dedup();
    assert_eq!(titles.len(), all.len(), "two scenarios have the same title");
    for Named { name, scenario, .. } in &all {
        // Without totals, a scenario would not notice a cause in the wrong flow as long as the counts match.
        // Where some outcomes are unpredictable, there are no totals.
        let expect = &scenario.expect;
        let lossy = expect.flows.iter().any(|flow| flow.expected.lossy);
        assert!(expect.totals.is_some() != lossy, "{name}: totals");
    }
}

#[test]
fn files_are_ordered_from_facts_to_expectation() {
    for Named { name, file, .. } in [all(), kubernetes()].concat() {
        let text = std::fs::read_to_string(file).unwrap();
        let places: Vec<usize> = [
            "title = ",
            "story = ",
            "kernels = ",
            "families = ",
            "[kubernetes]",
            "[facts]",
            "[topology]",
            "[tracer]",
            "[[steps]]",
            "[rounds]",
            "[expect]",
        ]
        .iter()
        .filter_map(|key| {
            text.find(&format!("\n{key}"))
                .or_else(|| text.starts_with(key).then_some(0))
        })
        .collect();
        assert!(places.is_sorted(), "{name} is out of order");
    }
}

#[test]
fn scenarios_with_and_without_a_control_plane_have_their_own_folders() {
    assert!(all().iter().all(|named| named.scenario.kubernetes.is_none()));
    for Named { name, scenario, .. } in kubernetes() {
        assert!(scenario.kubernetes.is_some(), "{name}");
        assert!(all().iter().all(|ordinary| ordinary.name != name), "{name}");
    }
}

#[test]
fn every_kernel_has_its_scenarios() {
    let all = all();
    for kernel in ["5.10", "6.1", "6.12", "7"] {
        let kernel = kernel.parse().unwrap();
        assert!(select(&all, &[], &kernel).unwrap().len() >= 11, "{kernel}");
    }
    let pre_5_9 = "5.10/pre-5.9".parse().unwrap();
    let names: Vec<_> = select(&all, &[], &pre_5_9)
        .unwrap()
        .iter()
        .map(|named| named.name.as_str())
        .collect();
    for own in ["demo-registry", "reuse-time-wait-pre-5.9", "two-clients"] {
        assert!(names.contains(&own), "{own} is not among {names:?}");
    }
    assert!(
        !names.contains(&"reuse-time-wait"),
        "this flavour has its own scenario"
    );
}

#[test]
fn scenarios_are_selected_by_name_in_the_requested_order() {
    let (all, kernel) = (all(), "6.12".parse().unwrap());
    let select = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let chosen = select(&all, &names, &kernel).map_err(|error| error.to_string())?;
        Ok::<_, String>(chosen.iter().map(|named| named.name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(
        select(&["two-clients", "healthy"]).unwrap(),
        ["two-clients", "healthy"]
    );
    let unknown = select(&["helthy"]).unwrap_err();
    assert!(
        unknown.starts_with("no scenario `helthy` (did you mean healthy or ") && unknown.contains("--list"),
        "{unknown}"
    );
    assert_eq!(
        select(&["demo-registry"]).unwrap_err(),
        "`demo-registry` does not run on 6.12, only on 5.10/pre-5.9"
    );
}

#[test]
fn rounds_repeat_their_steps_from_other_ports() {
    let all = all();
    let endurance = all.iter().find(|named| named.name == "endurance").unwrap();
    let scenario = &endurance.scenario;
    let rounds = scenario
        .steps
        .iter()
        .filter(|step| matches!(step, Step::NextRound(_)));
    assert_eq!(rounds.count(), 5, "one minute, 12 s each");
    let moments: Vec<Moment> = scenario
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Measure(moment) => Some(*moment),
            _ => None,
        })
        .collect();
    assert_eq!(moments, [Moment::Start, Moment::Middle, Moment::End]);
    let last = scenario.connects().last().unwrap();
    assert_eq!(last.source_port, 40_000 + 4 * last.count);
    let silent = scenario
        .expect
        .flows
        .iter()
        .find(|flow| flow.source_port == 30_000);
    assert_eq!(silent.unwrap().count, 15);
}
