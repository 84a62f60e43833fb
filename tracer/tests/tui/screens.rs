//! docs/screens.md and README.md quote the screen.

use std::{env, fmt::Write as _, fs, path::Path};

use tracer::tui::theme::{Depth, Theme};

use super::{
    recorded,
    show::{busy, press, shown},
};

const UNICODE: Theme = Theme {
    depth: Depth::Mono,
    is_ascii: false,
};

/// Tabs: title, keys that open it, columns and lines, description.
const TABS: [(&str, &str, (u16, u16), &str); 5] = [
    (
        "Overview",
        "",
        (80, 24),
        "Outcomes over time, top causes, services. Enter lists the connections of the selected cause or service.",
    ),
    (
        "Flows",
        "2t",
        (100, 15),
        "Every connection, including those without a verdict yet (`pending`). Here `t` limits the list to failed and delayed ones. `/` filters by the names of the command-line options, for example `port:30080 fate:dropped`.",
    ),
    (
        "Flow",
        "2/cause:ipvs.reuse\n\n",
        (100, 40),
        "One connection: the cause, what to do, and its path through the kernel. Each network namespace has a column.",
    ),
    (
        "Drops",
        "4",
        (100, 15),
        "Functions in which this node dropped packets.",
    ),
    (
        "Hooks",
        "5",
        (100, 15),
        "Hooks: attached or not, records seen and lost, and why a hook is not attached.",
    ),
];

/// A tab as the docs quote it.
fn quote(keys: &str, (width, height): (u16, u16)) -> String {
    let mut model = busy(UNICODE, width, height);
    press(&mut model, keys);
    format!("```\n{}```\n", shown(&mut model))
}

/// Compares a file with its expected content; with `TRACER_WRITE_SCREENS`, writes it first.
fn assert_file(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    if env::var_os("TRACER_WRITE_SCREENS").is_some() {
        fs::write(&path, expected).expect("the file can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, expected,
        "{name} is out of date: run this test with TRACER_WRITE_SCREENS=1"
    );
}

#[test]
fn the_docs_quote_the_screen() {
    let mut text = "# Screens\n\nGenerated from the code that draws the screen: `TRACER_WRITE_SCREENS=1 cargo test -p tracer --test tui`.\n".to_owned();
    for (title, keys, size, description) in TABS {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n## {title}\n\n{description}\n\n{}", quote(keys, size));
    }
    assert_file("docs/screens.md", &text);
}

#[test]
fn the_readme_quotes_the_overview() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(path).expect("README.md can be read");
    let start = "```\ntracer   1 Overview";
    let (before, rest) = readme.split_once(start).expect("README.md shows the screen");
    let (_, after) = rest.split_once("\n```\n").expect("the screen ends");
    let mut model = recorded::at_end("1.1-demo-registry-5.10.trace", UNICODE, 80, 24);
    let screen = format!("```\n{}```\n", shown(&mut model));
    assert_file("README.md", &format!("{before}{screen}{after}"));
}
