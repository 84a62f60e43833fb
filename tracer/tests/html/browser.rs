//! The page in a browser: headless Chromium from Debian, without a network.
//!
//! `cargo xtask test` installs it and runs these tests; `cargo test` skips them. The screenshots are kept in `target/tmp`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use serde_json::Value;

use crate::{
    command::{output_of, recordings},
    pages,
};

/// Names the browser's program.
const BROWSER: &str = "TRACER_BROWSER";
const HARNESS: &str = include_str!("harness.html");
/// Window widths: a desktop, half of one, and a phone.
const WIDTHS: [u64; 3] = [1280, 480, 360];

/// One browser at a time: each needs a core or two.
static ONE: Mutex<()> = Mutex::new(());

/// The colour scheme that the reader prefers.
#[derive(Clone, Copy, PartialEq)]
enum Scheme {
    Dark = 0,
    Light = 1,
}

/// Runs the browser; returns its output and its console messages.
fn browse(folder: &Path, scheme: Scheme, arguments: &[&str]) -> (String, Vec<String>) {
    let _one = ONE.lock();
    let program = std::env::var_os(BROWSER).unwrap_or_else(|| "chromium".into());
    let output = Command::new(&program)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            // No name resolves: there is no network.
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("--blink-settings=preferredColorScheme={}", scheme as u8))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let is_console = |line: &&str| line.contains(":CONSOLE") || line.contains("Uncaught");
    let messages = errors.lines().filter(is_console).map(str::to_owned).collect();
    (String::from_utf8_lossy(&output.stdout).into_owned(), messages)
}

/// Writes the pages to a folder and returns their names: those of the recordings, and the one that is hardest to lay out.
fn written(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut write = |name: String, page: &str| {
        fs::write(folder.join(&name), page).expect("a file");
        names.push(name);
    };
    for recording in recordings() {
        let stem = Path::new(&recording).file_stem().expect("a name");
        let name = format!("{}.html", stem.to_str().expect("text"));
        write(name, &output_of(&["report", "--html", "-", &recording]));
    }
    write("nasty.html".to_owned(), &pages::nasty());
    names
}

fn address(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// The harness's measurements of each page at each width.
fn measured(scheme: Scheme, widths: &[u64]) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = written(folder.path());
    let harness = HARNESS
        .replace("PAGES", &serde_json::to_string(&pages).expect("JSON"))
        .replace("WIDTHS", &format!("{widths:?}"));
    let path = folder.path().join("harness.html");
    fs::write(&path, harness).expect("a file");
    let (dom, messages) = browse(
        folder.path(),
        scheme,
        &["--window-size=1400,1000", "--dump-dom", &address(&path)],
    );
    assert_eq!(messages, [""; 0]);
    let (_, results) = dom
        .split_once("<pre id=\"results\">")
        .expect("the results of the harness");
    let (results, _) = results.split_once("</pre>").expect("its end");
    let results = results
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    let results: Vec<Value> =
        serde_json::from_str(&results).unwrap_or_else(|error| panic!("{error}: {results}"));
    assert_eq!(results.len(), pages.len() * widths.len());
    results
}

fn number(page: &Value, name: &str) -> u64 {
    page[name].as_u64().unwrap_or_else(|| panic!("{name}: {page:#}"))
}

fn check(scheme: Scheme, widths: &[u64]) {
    for page in measured(scheme, widths) {
        let is_nasty = page["page"] == "nasty.html";
        assert_eq!(page["dark"], scheme == Scheme::Dark);
        let empty = Value::Array(Vec::new());
        for fault in ["outside", "overflowing", "low_contrast"] {
            assert_eq!(page[fault], empty, "{fault}: {page:#}");
        }
        let width = number(&page, "width");
        assert!(
            widths.contains(&width) && number(&page, "scroll") <= width,
            "{page:#}"
        );
        assert_eq!(number(&page, "loaded"), 0, "{page:#}");
        assert_eq!(
            page["title"]
                .as_str()
                .map(|title| title.starts_with("tracer report: ")),
            Some(true)
        );
        // The chart, with every part of each bar visible.
        assert!(
            number(&page, "charts") >= 1 && number(&page, "bars") >= 2,
            "{page:#}"
        );
        assert_eq!(page["bars"], page["filled"], "{page:#}");
        // Ladders, with a mark for each step inside its rails.
        let flows = number(&page, "flows");
        assert!(flows >= if is_nasty { 8 } else { 2 }, "{page:#}");
        assert_eq!(page["flows"], page["ladders"], "{page:#}");
        assert!(number(&page, "steps") > 30, "{page:#}");
        assert_eq!(page["steps"], page["marks"], "{page:#}");
        assert_eq!(number(&page, "closed"), flows - 1, "{page:#}");
        // The content security policy lets the script run, and the script works.
        assert_eq!(number(&page, "copies"), 1, "{page:#}");
        assert_eq!(number(&page, "hidden"), flows, "{page:#}");
    }
}

#[test]
#[ignore = "needs a browser: cargo xtask test runs it"]
fn the_light_page_is_complete_and_fits_the_window() {
    check(Scheme::Light, &WIDTHS);
}

#[test]
#[ignore = "needs a browser: cargo xtask test runs it"]
fn the_dark_page_is_complete_and_readable() {
    // Only the colours differ.
    check(Scheme::Dark, &WIDTHS[..1]);
}

#[test]
#[ignore = "needs a browser: cargo xtask test runs it"]
fn a_screenshot_is_not_blank() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = written(folder.path());
    let keep = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (scheme, size, page, name) in [
        (Scheme::Light, "1280,2000", &pages[0], "report-light.png"),
        (Scheme::Dark, "500,2000", &pages[0], "report-dark.png"),
    ] {
        let picture = keep.join(name);
        fs::remove_file(&picture).ok();
        let (_, messages) = browse(
            folder.path(),
            scheme,
            &[
                &format!("--window-size={size}"),
                &format!("--screenshot={}", picture.display()),
                &address(&folder.path().join(page)),
            ],
        );
        assert_eq!(messages, [""; 0]);
        // A single colour would take a few kilobytes.
        let length = fs::metadata(&picture).expect("a picture").len();
        assert!(length > 40_000, "{} has {length} bytes", picture.display());
    }
}
