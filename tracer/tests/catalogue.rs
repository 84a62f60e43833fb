//! `docs/causes.md` says what the diagnosis does: it is written from the rows of the catalogue and from the scenarios.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use tracer::diagnose::catalogue;

/// Set it to write the file anew.
const WRITE: &str = "TRACER_WRITE_CATALOGUE";

const HEAD: &str = "\
# Causes

Every cause that tracer can name: what happened, what must have been seen before it is named, what to do, and where it
can occur. The scenarios make it happen on a real kernel: `cargo xtask lab --scenario NAME`. This file is written from
the rows in `tracer/src/diagnose` by `TRACER_WRITE_CATALOGUE=1 cargo test -p tracer --test catalogue`.
";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The scenarios that expect a cause, by cause: name and title.
fn scenarios() -> BTreeMap<String, Vec<(String, String)>> {
    let folder = top().join("tests/scenarios");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the scenarios")
        .map(|entry| entry.expect("a scenario").path())
        .collect();
    files.sort();
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a scenario");
        let scenario: toml::Table = text.parse().expect("a scenario is TOML");
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let title = scenario["title"].as_str().expect("a title").to_owned();
        // One with all of them shows none.
        if scenario["expect"].get("matrix").is_some() {
            continue;
        }
        let mut causes = Vec::new();
        collect(&scenario["expect"], &mut causes);
        causes.sort();
        causes.dedup();
        for cause in causes {
            found
                .entry(cause)
                .or_default()
                .push((name.clone(), title.clone()));
        }
    }
    found
}

/// Every value of a key `cause` in what is expected.
fn collect(value: &toml::Value, causes: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            causes.extend(
                table
                    .get("cause")
                    .and_then(|cause| cause.as_str())
                    .map(str::to_owned),
            );
            table.iter().for_each(|(_, value)| collect(value, causes));
        }
        toml::Value::Array(values) => values.iter().for_each(|value| collect(value, causes)),
        _ => {}
    }
}

fn written() -> String {
    let scenarios = scenarios();
    let mut out = HEAD.to_owned();
    out.push('\n');
    for row in catalogue::rows() {
        // The anchor of a heading has neither its dots nor its backticks.
        let anchor = row.cause.name().replace('.', "");
        let _ = writeln!(out, "- [`{}`](#{anchor}): {}", row.cause, row.says);
    }
    for row in catalogue::rows() {
        let _ = write!(out, "\n## `{}`\n\n{}\n\n", row.cause, row.says);
        let _ = writeln!(out, "- **Proof:** {}", row.proof);
        if let Some(advice) = row.advice {
            let _ = writeln!(out, "- **What to do:** {advice}");
        }
        let _ = writeln!(out, "- **Where:** {}", row.occurs);
        let hooks: Vec<String> = row
            .hooks
            .iter()
            .map(|group| {
                let names: Vec<String> = group.iter().map(|hook| format!("`{}`", hook.name())).collect();
                names.join(" or ")
            })
            .collect();
        if !hooks.is_empty() {
            let _ = writeln!(out, "- **Hooks:** {}", hooks.join("; "));
        }
        for (name, title) in scenarios.get(row.cause.name()).into_iter().flatten() {
            let _ = writeln!(out, "- **Scenario** `{name}`: {title}");
        }
    }
    out
}

#[test]
fn the_catalogue_is_what_the_diagnosis_does() {
    let file = top().join("docs/causes.md");
    let wanted = written();
    if env::var_os(WRITE).is_some() {
        fs::write(&file, wanted).expect("docs/causes.md");
        return;
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/causes.md is not up to date: {WRITE}=1 cargo test -p tracer --test catalogue"
    );
}
