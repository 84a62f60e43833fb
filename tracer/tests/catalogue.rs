//! The documentation and the lab agree with the code about causes and fates. `docs/causes.md` and two tables of the
//! README are generated from the rows of the catalogue, the fates and the scenarios.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use tracer::{
    diagnose::{
        catalogue,
        cause::Cause,
        evidence::Key,
        row::{Group, Light, Row},
    },
    flow::fate::Fate,
};

/// Environment variable that makes the tests write the files instead of checking them.
const WRITE: &str = "TRACER_WRITE_CATALOGUE";

const HEAD: &str = "\
# Causes

Every cause that tracer can name: what happened, what must have been seen before it is named, what to do, and where it can
occur. At depth light, only the hooks that run once per connection or when something goes wrong are attached; at depth auto, the
others are attached once a SYN is retransmitted, dropped, reset, refused by ICMP, or not answered within 0.2 s. The scenarios reproduce it on a real kernel: `cargo xtask lab --scenario NAME`. This file is generated from the rows in
`tracer/src/diagnose` by `TRACER_WRITE_CATALOGUE=1 cargo test -p tracer --test catalogue`.
";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A scenario file.
struct Scenario {
    name: String,
    title: String,
    expect: toml::Value,
}

fn scenarios() -> Vec<Scenario> {
    let folder = top().join("tests/scenarios");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the scenarios")
        .map(|entry| entry.expect("a scenario").path())
        .collect();
    files.sort();
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).expect("a scenario");
        let scenario: toml::Table = text.parse().expect("a scenario is TOML");
        Scenario {
            name: file.file_stem().expect("a name").to_string_lossy().into_owned(),
            title: scenario["title"].as_str().expect("a title").to_owned(),
            expect: scenario["expect"].clone(),
        }
    };
    files.into_iter().map(read).collect()
}

/// The scenarios that expect a cause, by cause: name and title.
fn scenarios_by_cause() -> BTreeMap<String, Vec<(String, String)>> {
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for scenario in scenarios() {
        // A scenario with all causes is not an example of one.
        if scenario.expect.get("matrix").is_some() {
            continue;
        }
        for cause in values(&scenario.expect, "cause") {
            let example = (scenario.name.clone(), scenario.title.clone());
            found.entry(cause).or_default().push(example);
        }
    }
    found
}

/// Every text under this key, at any depth.
fn values(value: &toml::Value, key: &str) -> BTreeSet<String> {
    match value {
        toml::Value::Table(table) => {
            let own = table.get(key).and_then(|value| value.as_str()).map(str::to_owned);
            let inner = table.values().flat_map(|value| values(value, key));
            own.into_iter().chain(inner).collect()
        }
        toml::Value::Array(array) => array.iter().flat_map(|value| values(value, key)).collect(),
        _ => BTreeSet::new(),
    }
}

/// The rows of a group, in the order of the causes.
fn rows_of(group: Group) -> impl Iterator<Item = &'static Row> {
    Cause::ALL
        .iter()
        .filter_map(|&cause| catalogue::row(cause))
        .filter(move |row| row.group == group)
}

fn causes_page() -> String {
    let scenarios = scenarios_by_cause();
    let mut out = HEAD.to_owned();
    for group in Group::ALL {
        let _ = writeln!(out, "\n{}:\n", group.title());
        for row in rows_of(group) {
            // The anchor of a heading has neither its dots nor its backticks.
            let anchor = row.cause.name().replace('.', "");
            let _ = writeln!(out, "- [`{}`](#{anchor}): {}", row.cause, row.summary);
        }
    }
    for row in Group::ALL.into_iter().flat_map(rows_of) {
        let _ = write!(out, "\n## `{}`\n\n{}\n\n", row.cause, row.summary);
        let _ = writeln!(out, "- **Proof:** {}", row.proof);
        if let Some(advice) = row.advice {
            let _ = writeln!(out, "- **What to do:** {advice}");
        }
        let _ = writeln!(out, "- **Where:** {}", row.scope);
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
        if row.cause != Cause::Unknown {
            let raise = if row.light == Light::Proves {
                String::new()
            } else {
                " At depth auto, such a SYN raises the depth, and the next one is named.".to_owned()
            };
            let _ = writeln!(out, "- **Depth light** {}{raise}", row.light.words());
        }
        for (name, title) in scenarios.get(row.cause.name()).into_iter().flatten() {
            let _ = writeln!(out, "- **Scenario** `{name}`: {title}");
        }
    }
    out
}

fn causes_table() -> String {
    let mut out = "| what | causes |\n|---|---|\n".to_owned();
    for group in Group::ALL {
        let causes: Vec<String> = rows_of(group).map(|row| format!("`{}`", row.cause)).collect();
        let _ = writeln!(out, "| {} | {} |", group.title(), causes.join(", "));
    }
    out
}

fn fates_table() -> String {
    let mut out = "| fate | means |\n|---|---|\n".to_owned();
    for fate in Fate::ALL {
        let _ = writeln!(out, "| `{fate}` | {} |", fate.meaning());
    }
    out
}

/// The text with a new table between its two markers.
fn with_table(text: &str, name: &str, table: &str) -> String {
    let begin = format!("<!-- {name}: generated by tracer/tests/catalogue.rs -->\n");
    let end = format!("<!-- {name}: end -->");
    let (before, rest) = text.split_once(&begin).expect("the first marker");
    let (_, after) = rest.split_once(&end).expect("the second marker");
    format!("{before}{begin}{table}{end}{after}")
}

/// Writes the file, or checks that it has this content.
fn write_or_check(file: &str, wanted: &str) {
    let path = top().join(file);
    if env::var_os(WRITE).is_some() {
        fs::write(&path, wanted).expect(file);
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{file} is not up to date: {WRITE}=1 cargo test -p tracer --test catalogue"
    );
}

#[test]
fn the_page_of_causes_agrees_with_the_rows() {
    write_or_check("docs/causes.md", &causes_page());
}

#[test]
fn the_readme_agrees_with_the_causes_and_the_fates() {
    let readme = fs::read_to_string(top().join("README.md")).expect("README.md");
    let readme = with_table(&readme, "causes", &causes_table());
    write_or_check("README.md", &with_table(&readme, "fates", &fates_table()));
}

#[test]
fn the_lab_knows_every_cause() {
    let words = fs::read_to_string(top().join("tests/src/scenario/words.rs")).expect("the lab's words");
    let (_, list) = words
        .split_once("pub const CAUSES: &[&str] = &[")
        .expect("the list");
    let (list, _) = list.split_once("];").expect("the end of the list");
    let known: Vec<&str> = list
        .split(',')
        .map(|word| word.trim().trim_matches('"'))
        .filter(|word| !word.is_empty())
        .collect();
    let wanted: Vec<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
    assert_eq!(known, wanted, "CAUSES in tests/src/scenario/words.rs");
}

#[test]
fn scenarios_expect_only_known_causes_and_evidence() {
    let causes: BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
    let keys: BTreeSet<&str> = Key::ALL.iter().map(|key| key.name()).collect();
    let mut checked = 0;
    for scenario in scenarios() {
        for cause in values(&scenario.expect, "cause") {
            assert!(causes.contains(cause.as_str()), "{}: {cause}", scenario.name);
        }
        for key in values(&scenario.expect, "key") {
            assert!(keys.contains(key.as_str()), "{}: {key}", scenario.name);
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} keys of evidence");
}
