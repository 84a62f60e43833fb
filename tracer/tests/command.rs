//! Exit status and error line of invalid commands.

use std::process::{Command, Output};

fn tracer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .output()
        .expect("the command runs")
}

/// Exit status and the single line on stderr. Asserts that stdout is empty.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = tracer(arguments);
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(error.lines().count(), 1, "{arguments:?}: {error:?}");
    assert!(output.stdout.is_empty());
    (output.status.code(), error)
}

#[test]
fn bad_arguments_end_with_2_and_one_line_that_names_them() {
    for (arguments, named) in [
        (&["live", "--port", "http"][..], "`http` is not a port"),
        (&["live", "--port", "30100-30000"], "runs backwards"),
        (
            &["live", "--client", "10.0.0.0/40"],
            "`10.0.0.0/40` is not a network",
        ),
        (&["live", "--fate", "lost"], "not a fate; give established"),
        (
            &["live", "--cause", "ipvs.reuse-droped"],
            "did you mean `ipvs.reuse-dropped`?",
        ),
        (&["live", "--until", "stalld"], "did you mean `stalled`?"),
        (&["record", "-o", "x", "--duration", "0"], "--duration"),
        (&["live", "--count", "0"], "--count"),
        (&["causes", "ipsv"], "did you mean `ipvs`?"),
        (&["live", "--patience", "0"], "--patience"),
        (&["live", "--plain", "--json"], "cannot be used with"),
        (&["nonsense"], "nonsense"),
    ] {
        let (status, error) = refused(arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {error}");
        assert!(error.contains(named), "{arguments:?}: {error}");
        assert!(error.contains("--help"), "{arguments:?}: {error}");
    }
}

#[test]
fn help_and_version_need_no_privilege() {
    for arguments in [
        &["--help"][..],
        &["live", "--help"],
        &["hooks", "--help"],
        &["--version"],
    ] {
        let output = tracer(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_kernel_without_kprobes_ends_with_69_and_advice() {
    if tracer::probe::attach::has_kprobes() {
        eprintln!("this kernel has kprobes: nothing to test");
        return;
    }
    let (status, error) = refused(&["live", "--json"]);
    assert_eq!(status, Some(69), "{error}");
    assert!(
        error.contains("kprobes") && error.contains("tracer check"),
        "{error}"
    );
}

/// A recording that comes with the source.
const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/recordings/1.1-demo-registry-5.10.trace"
);

/// Exit status, standard output and standard error.
fn printed(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = tracer(arguments);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn filters_select_families_and_failures_and_say_how_many_match() {
    let last = |filter: &[&str]| {
        let (status, out, _) = printed(&[&["replay", "--plain", RECORDING], filter].concat());
        assert_eq!(status, Some(0));
        out.lines().last().expect("a line").to_owned()
    };
    assert!(last(&[]).starts_with("31 flows: "), "{}", last(&[]));
    let failed = last(&["--fate", "failed"]);
    assert!(
        failed.starts_with("9 of 31 flows match --fate failed: "),
        "{failed}"
    );
    let family = last(&["--cause", "ipvs"]);
    assert!(
        family.starts_with("9 of 31 flows match --cause ipvs: "),
        "{family}"
    );
    let none = last(&["--fate", "refused"]);
    assert!(none.starts_with("0 of 31 flows match --fate refused; "), "{none}");
    let (_, out, _) = printed(&["replay", "--json", RECORDING, "--fate", "refused"]);
    let end: serde_json::Value = serde_json::from_str(out.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&end["flows"], &end["flows_seen"]), (&0.into(), &31.into()));
}

#[test]
fn a_filtered_report_says_so_in_the_ticket() {
    let (_, out, _) = printed(&["report", RECORDING, "--fate", "stalled"]);
    let (_, ticket) = out.split_once("For the ticket\n").expect("a ticket");
    let first = ticket.lines().next().expect("a sentence");
    assert!(
        first.ends_with("failed or were delayed (6 of 31 connections shown: --fate stalled)."),
        "{first}"
    );
    let (_, out, _) = printed(&["report", RECORDING, "--port", "1"]);
    assert!(out.contains("\n0 of 31 flows match --port 1.\n"), "{out}");
    let (_, out, _) = printed(&["report", RECORDING]);
    assert!(!out.contains("shown"), "{out}");
}

#[test]
fn fail_on_takes_fates_causes_and_families() {
    for (outcome, status) in [
        ("failed", 3),
        ("ipvs", 3),
        ("refused,ipvs.nodest-expired", 3),
        ("tcp", 0),
        ("refused", 0),
    ] {
        let (found, _, errors) = printed(&["replay", "--json", RECORDING, "--fail-on", outcome]);
        assert_eq!(found, Some(status), "{outcome}: {errors}");
        assert_eq!(errors.contains("matched --fail-on"), status == 3, "{errors}");
    }
}

#[test]
fn show_finds_a_flow_by_its_client() {
    let (_, lines, _) = printed(&["replay", "--plain", RECORDING]);
    let clients: Vec<&str> = lines
        .lines()
        .filter_map(|line| line.split_once(" -> ")?.0.split_whitespace().last())
        .filter(|word| word.contains(':'))
        .collect();
    let uses = |client: &str| clients.iter().filter(|other| **other == client).count();
    let once = clients.iter().find(|client| uses(client) == 1).expect("a client");
    let line = lines.lines().find(|line| line.contains(once)).expect("a line");
    let number = line.split_whitespace().nth(1).expect("a number");
    let (status, by_client, _) = printed(&["show", RECORDING, once]);
    assert_eq!(status, Some(0));
    assert_eq!(by_client, printed(&["show", RECORDING, number]).1);
    let twice = clients.iter().find(|client| uses(client) > 1).expect("a client");
    let (status, listed, errors) = printed(&["show", RECORDING, twice]);
    assert_eq!(status, Some(0));
    assert!(listed.lines().all(|line| line.contains(twice)), "{listed}");
    assert!(errors.contains("give a number"), "{errors}");
    let (status, _, errors) = printed(&["show", RECORDING, "192.0.2.1:1"]);
    assert_eq!(status, Some(1));
    assert!(errors.contains("no flow from 192.0.2.1:1 in "), "{errors}");
}

#[test]
fn completions_offer_commands_fates_and_causes() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (status, script, _) = printed(&["completions", shell]);
        assert_eq!(status, Some(0), "{shell}");
        for word in ["completions", "--fail-on"] {
            assert!(script.contains(word.trim_start_matches('-')), "{shell}: {word}");
        }
        assert!(!script.contains("run-for-flows"), "{shell}");
        // Elvish and PowerShell complete no values.
        if matches!(shell, "bash" | "zsh" | "fish") {
            for word in ["stalled", "failed", "ipvs.reuse-dropped"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}

#[test]
fn diff_compares_two_recordings() {
    let other = RECORDING.replace("1.1-demo-registry-5.10", "1.0-reuse-after-rst-6.12");
    let (status, text, errors) = printed(&["diff", RECORDING, &other]);
    assert_eq!(status, Some(0), "{errors}");
    assert!(
        text.starts_with("Failed or delayed: 9 of 31 (29.0 %) before, 1 of 3 (33.3 %) after: "),
        "{text}"
    );
    assert!(text.contains("\nDifferent kernels: 5.10"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&printed(&["diff", "--json", RECORDING, &other]).1).expect("JSON");
    assert_eq!(json["failures"]["flows"], serde_json::json!([9, 1]));
    let same = printed(&["diff", RECORDING, RECORDING, "--fate", "failed"]).1;
    assert!(same.contains("9 of 9 (100.0 %) after: no difference"), "{same}");
    let page = printed(&["diff", "--html", "-", RECORDING, &other]).1;
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.contains("ipvs.reuse-dropped"),
        "{page}"
    );
}
