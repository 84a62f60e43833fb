//! `tracer report --html`, of recordings that were made in the lab.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::form;

pub(crate) fn tracer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .output()
        .expect("the command runs")
}

/// The output of a command that succeeds without a message.
pub(crate) fn output_of(arguments: &[&str]) -> String {
    let output = tracer(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{arguments:?}: {errors}"
    );
    String::from_utf8(output.stdout).expect("text")
}

pub(crate) fn recordings() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut out: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "trace"))
        .collect();
    out.sort();
    assert!(!out.is_empty());
    let text = |path: &PathBuf| path.to_str().expect("text").to_owned();
    out.iter().map(text).collect()
}

#[test]
fn the_page_has_what_the_text_has() {
    let recordings = recordings();
    let all: Vec<&str> = recordings.iter().map(String::as_str).collect();
    let each: Vec<Vec<&str>> = all.iter().map(|recording| vec![*recording]).collect();
    for files in each.into_iter().chain([all]) {
        let with = |option: &[&'static str]| output_of(&[&["report"], option, files.as_slice()].concat());
        let report: Value = serde_json::from_str(&with(&["--json"])).expect("JSON");
        let (tags, text) = form::check(&with(&["--html", "-"]));
        for line in with(&[]).lines() {
            // The sentences for the ticket, and what to do, in the words of the text.
            if let Some(sentence) = line.strip_prefix("  ").filter(|line| !line.starts_with(' ')) {
                let sentence = sentence.split_once(": ").map_or(sentence, |(_, advice)| advice);
                assert!(form::bare(&text).contains(&form::bare(sentence)), "{sentence}");
            }
        }
        let bars = tags.iter().filter(|tag| {
            tag.name == "rect" && tag.get("height").is_some_and(|height| height.ends_with('%'))
        });
        let fates = report["over_time"]["bins"].as_array().expect("a list");
        let parts: usize = fates
            .iter()
            .map(|bin| 1 + bin["by_fate"].as_object().expect("fates").len())
            .filter(|parts| *parts > 1)
            .sum();
        assert_eq!(bars.count(), parts);
        let flows: u64 = report["by_fate"]
            .as_object()
            .expect("fates")
            .iter()
            .map(|(fate, count)| {
                assert!(text.contains(&format!("{count}\n {fate}")), "{count} {fate}");
                count.as_u64().expect("a number")
            })
            .sum();
        assert_eq!(report["flows"], flows);
        for cause in report["causes"].as_array().expect("a list") {
            let name = cause["cause"].as_str().expect("a name");
            let flows = cause["flows"].as_u64().expect("a number");
            assert!(
                text.contains(&format!("{name}\n\n\n{flows}\n")),
                "{name} {flows}: {text}"
            );
        }
        // Where there are few flows, each of them has its ladder, and each step of it is there.
        for file in files.iter().filter(|_| flows <= 8) {
            for line in output_of(&["replay", "--json", file]).lines() {
                let line: Value = serde_json::from_str(line).expect("JSON");
                for step in line["path"].as_array().into_iter().flatten() {
                    assert!(text.contains(step["note"].as_str().expect("text")), "{step}");
                }
            }
        }
    }
}

#[test]
fn filters_select_the_flows_on_the_page() {
    let recording = &recordings()[0];
    let page = output_of(&["report", "--html", "-", "--fate", "stalled", recording]);
    let (tags, text) = form::check(&page);
    let ladders = tags
        .iter()
        .filter(|tag| tag.get("class") == Some("ladder"))
        .count();
    assert_eq!(ladders, 1);
    assert!(!text.contains("established\n 10.0.0.2"));
}

#[test]
fn the_file_is_for_its_owner_and_never_the_recording() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("report.html");
    let name = page.to_str().expect("text");
    let recording = folder.path().join("node.trace");
    fs::copy(&recordings()[0], &recording).expect("a copy");
    let recording = recording.to_str().expect("text");
    assert_eq!(output_of(&["report", recording, "--html", name]), "");
    let mode = fs::metadata(&page).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    form::check(&fs::read_to_string(&page).expect("text"));

    let before = fs::read(recording).expect("a recording");
    let output = tracer(&["report", recording, "--html", recording]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("is one of the recordings"), "{errors}");
    assert_eq!(fs::read(recording).expect("a recording"), before);

    for (arguments, status, named) in [
        (&["--html", "x", "--json"][..], 2, "cannot be used with"),
        (&["--html", "/nonexistent/x"], 1, "cannot write /nonexistent/x"),
    ] {
        let output = tracer(&[&["report", recording], arguments].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{errors}");
        assert!(errors.contains(named) && errors.lines().count() == 1, "{errors}");
    }
}

#[test]
fn the_page_says_that_a_recording_is_incomplete() {
    let folder = tempfile::tempdir().expect("a folder");
    let cut = folder.path().join("cut <i>.trace");
    let bytes = fs::read(&recordings()[0]).expect("a recording");
    fs::write(&cut, &bytes[..bytes.len() * 7 / 8]).expect("a file");
    let output = tracer(&["report", "--html", "-", cut.to_str().expect("text")]);
    let page = String::from_utf8(output.stdout).expect("text");
    let (_, text) = form::check(&page);
    assert!(text.contains("incomplete (the recorder was killed"), "{text}");
    assert!(text.contains("cut <i>.trace: "), "{text}");
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(["report", "--html", "-", &recordings()[1]])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    // It cannot have written all of it: a pipe holds 64 KiB.
    let mut first = [0; 16];
    let mut out = child.stdout.take().expect("its output");
    out.read_exact(&mut first).expect("the beginning");
    drop(out);
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
