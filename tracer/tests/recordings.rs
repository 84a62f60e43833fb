//! Recordings that earlier versions made in the lab stay readable, and every command works on them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn tracer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .output()
        .expect("the command runs")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

fn recordings() -> Vec<String> {
    let mut out: Vec<String> = fs::read_dir(folder())
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "trace"))
        .map(|path| path.to_str().expect("a name that is text").to_owned())
        .collect();
    out.sort();
    assert!(!out.is_empty());
    out
}

/// The output of a command on an intact recording.
fn output_of(arguments: &[&str]) -> String {
    let output = tracer(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{arguments:?}: {errors}"
    );
    String::from_utf8(output.stdout).expect("text")
}

fn flows(lines: &str) -> Vec<Value> {
    lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|line| line["type"] == "flow")
        .collect()
}

/// The flows without their diagnosis: one line per flow.
fn without_diagnosis(lines: &str) -> String {
    let line = |flow: &Value| {
        let end = |end: &Value| match (&end["ip"], &end["port"]) {
            (Value::String(ip), Value::Number(port)) => format!("{ip} {port}"),
            _ => "none".to_owned(),
        };
        format!(
            "{} {} {} -> {} -> {}, {} SYNs, {} SYN-ACKs\n",
            flow["id"],
            flow["fate"].as_str().unwrap_or("no fate"),
            end(&flow["client"]),
            end(&flow["node"]),
            end(&flow["backend"]),
            flow["syns"],
            flow["synacks"]
        )
    };
    flows(lines).iter().map(line).collect()
}

#[test]
fn recordings_of_earlier_versions_stay_readable() {
    for recording in recordings() {
        let flows = without_diagnosis(&output_of(&["replay", "--json", &recording]));
        let beside = recording.replace(".trace", ".flows");
        if std::env::var_os("TRACER_WRITE_FLOWS").is_some() {
            fs::write(&beside, &flows).expect("a file");
        }
        let expected = fs::read_to_string(&beside).expect("its expected flows are beside it");
        assert_eq!(flows, expected, "{recording}");
    }
}

#[test]
fn a_truncated_recording_is_read_up_to_the_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let cut = folder.path().join("cut.trace");
    let cut_name = cut.to_str().expect("text");
    let recording = &recordings()[0];
    let bytes = fs::read(recording).expect("a recording");
    let complete = flows(&output_of(&["replay", "--json", recording])).len();
    let mut most = 0;
    for part in 1..8 {
        fs::write(&cut, &bytes[..bytes.len() * part / 8]).expect("a file");
        let output = tracer(&["replay", "--json", cut_name]);
        let errors = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            assert!(errors.contains("incomplete (the recorder was killed"), "{errors}");
            let flows = flows(&String::from_utf8(output.stdout).expect("text")).len();
            assert!((most..=complete).contains(&flows));
            most = flows;
        } else {
            // Its first chunk is incomplete.
            assert!(errors.contains("truncated within its first bytes"), "{errors}");
            assert_eq!(errors.lines().count(), 1, "{errors}");
        }
    }
}

#[test]
fn the_size_of_the_unusable_rest_is_right_in_singular_and_plural() {
    let folder = tempfile::tempdir().expect("a folder");
    let cut = folder.path().join("cut.trace");
    let cut_name = cut.to_str().expect("text");
    let bytes = fs::read(&recordings()[0]).expect("a recording");
    let errors_at = |length: usize| {
        fs::write(&cut, &bytes[..length]).expect("a file");
        String::from_utf8(tracer(&["replay", "--json", cut_name]).stderr).expect("text")
    };
    let half = bytes.len() / 2;
    let errors = errors_at(half);
    let (_, rest) = errors.split_once(": the last ").expect("an unusable rest");
    let (count, rest) = rest.split_once(' ').expect("a number");
    assert_eq!(rest, "bytes are unusable, the rest was read\n");
    let unusable: usize = count.parse().expect("a number");
    let errors = errors_at(half - unusable + 1);
    assert!(
        errors.ends_with(": the last byte is unusable, the rest was read\n"),
        "{errors}"
    );
}

#[test]
fn filters_select_recorded_flows() {
    for recording in recordings() {
        let all = flows(&output_of(&["replay", "--json", &recording]));
        let of = |name: &str, value: &str| {
            let lines = output_of(&["replay", "--json", name, value, &recording]);
            flows(&lines)
        };
        let first = &all[0];
        let client = first["client"]["ip"].as_str().expect("an address");
        let port = first["node"]["port"].to_string();
        let fate = first["fate"].as_str().expect("a fate");
        let same = |path: &[&str]| -> Vec<Value> {
            let value = |flow: &Value| path.iter().fold(flow.clone(), |value, name| value[*name].clone());
            let wanted = value(first);
            all.iter().filter(|flow| value(flow) == wanted).cloned().collect()
        };
        assert_eq!(of("--client", client), same(&["client", "ip"]));
        assert_eq!(of("--port", &port), same(&["node", "port"]));
        assert_eq!(of("--fate", fate), same(&["fate"]));
        assert_eq!(of("--port", "1"), Vec::<Value>::new());
        assert_eq!(of("--service", "no/such"), Vec::<Value>::new());
    }
}

#[test]
fn a_report_counts_the_flows_and_ranks_the_causes() {
    for recording in recordings() {
        let mut last = std::collections::BTreeMap::new();
        for flow in flows(&output_of(&["replay", "--json", &recording])) {
            last.insert(flow["id"].as_u64().expect("a number"), flow);
        }
        let report: Value =
            serde_json::from_str(&output_of(&["report", "--json", &recording])).expect("JSON");
        assert_eq!(report["flows"], last.len());
        let causes = report["causes"].as_array().expect("a list");
        let lost: Vec<f64> = causes
            .iter()
            .map(|cause| cause["lost_ms"].as_f64().expect("a time"))
            .collect();
        assert!(lost.is_sorted_by(|one, next| one >= next));
        for cause in causes {
            let has = last
                .values()
                .filter(|flow| flow["cause"] == cause["cause"])
                .count();
            assert_eq!(cause["flows"], has);
        }
        let text = output_of(&["report", &recording]);
        for cause in causes {
            assert!(text.contains(cause["cause"].as_str().expect("a name")), "{text}");
        }
        assert!(text.contains(&format!("{} flow", last.len())), "{text}");
    }
}

#[test]
fn one_flow_is_shown_step_by_step() {
    for recording in recordings() {
        for flow in flows(&output_of(&["replay", "--json", &recording])) {
            let text = output_of(&["show", &recording, &flow["id"].to_string()]);
            for step in flow["path"].as_array().expect("a list") {
                assert!(text.contains(step["hook"].as_str().expect("a name")), "{text}");
            }
        }
        let none = tracer(&["show", &recording, "999999"]);
        assert_eq!(none.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&none.stderr).contains("no flow 999999 in"));
    }
}

#[test]
fn a_file_that_is_not_a_recording_is_one_line_of_error() {
    let this = file!().rsplit('/').next().expect("a name");
    let this = folder().parent().expect("a folder").join(this);
    for (file, named) in [
        (this.to_str().expect("text"), "not a tracer recording"),
        ("/nonexistent.trace", "cannot open /nonexistent.trace"),
        ("/", "cannot read /: "),
    ] {
        for command in ["replay", "report"] {
            let output = tracer(&[command, file]);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{errors}");
            assert_eq!(errors.lines().count(), 1, "{errors}");
            assert!(errors.contains(named), "{errors}");
        }
    }
}

#[test]
fn record_fails_on_an_unwritable_file_before_it_attaches_anything() {
    let output = tracer(&["record", "-o", "/nonexistent/node.trace"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(
        errors.trim(),
        "tracer: cannot write /nonexistent/node.trace: No such file or directory (os error 2)"
    );
}

#[test]
fn contradictory_options_are_refused() {
    for (arguments, named) in [
        (&["record"][..], "--output"),
        (
            &["record", "-o", "-", "--ring", "1MiB"],
            "several files to standard output",
        ),
        (
            &["record", "-o", "x", "--ring", "1MiB", "--rotate-size", "1MiB"],
            "cannot be used with",
        ),
        (&["record", "-o", "x", "--rotate-count", "2"], "--rotate-size"),
        (&["record", "-o", "x", "--until", "bored"], "neither a fate"),
        (&["record", "-o", "x", "--after", "1"], "--until"),
        (&["export", "x", "--to", "csv"], "jsonl, pcapng, parquet"),
    ] {
        let output = tracer(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(named), "{arguments:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn advice_needs_no_replacement_and_contradicts_no_evidence() {
    for file in recordings() {
        let lines = output_of(&["replay", "--json", &file]);
        for flow in flows(&lines) {
            let Some(advice) = flow["advice"].as_str() else {
                continue;
            };
            for word in ["NODEPORT", "DEVICE", " PID", "TABLE", "CHAIN", "…", "<"] {
                assert!(!advice.contains(word), "{file}: {advice}");
            }
            let evidence = flow["evidence"].as_array().expect("a list");
            for set in advice.split("`sysctl -w ").skip(1) {
                let (name, rest) = set.split_once('=').expect("a setting");
                let value = rest.split('`').next().expect("a value");
                let is_set = |fact: &&Value| {
                    fact["what"].as_str().is_some_and(|label| label.ends_with(name)) && fact["value"] == value
                };
                assert!(!evidence.iter().any(|fact| is_set(&fact)), "{file}: {advice}");
            }
        }
    }
}
