//! The page in a browser: Debian's Chromium without a screen and without a network.
//!
//! `cargo xtask test` sees to it that there is one and runs these tests; `cargo test` needs none and leaves them out.
//! What the browser drew is kept in `target/tmp` for the eye.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use serde_json::Value;

use crate::{
    command::{recordings, said},
    pages,
};

/// Names the browser's program.
const BROWSER: &str = "TRACER_BROWSER";
const HARNESS: &str = include_str!("harness.html");
/// Windows of a desk, of half of one, and of a telephone.
const WIDTHS: [u64; 3] = [1280, 480, 360];

/// One at a time: each wants a core or two.
static ONE: Mutex<()> = Mutex::new(());

/// What people see at night and by day.
#[derive(Clone, Copy, PartialEq)]
enum Scheme {
    Dark = 0,
    Light = 1,
}

/// Runs the browser; gives what it prints, and what it complains of.
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
            // No name leads anywhere: there is no network.
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
    let said = |line: &&str| line.contains(":CONSOLE") || line.contains("Uncaught");
    let complaints = errors.lines().filter(said).map(str::to_owned).collect();
    (String::from_utf8_lossy(&output.stdout).into_owned(), complaints)
}

/// The pages that are looked at, by name, in a folder: those of the recordings, and the one that is hardest to lay out.
fn written(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut write = |name: String, page: &str| {
        fs::write(folder.join(&name), page).expect("a file");
        names.push(name);
    };
    for recording in recordings() {
        let stem = Path::new(&recording).file_stem().expect("a name");
        let name = format!("{}.html", stem.to_str().expect("text"));
        write(name, &said(&["report", "--html", "-", &recording]));
    }
    write("nasty.html".to_owned(), &pages::nasty());
    names
}

fn address(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// What the harness tells of each page at each width.
fn told(scheme: Scheme, widths: &[u64]) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = written(folder.path());
    let harness = HARNESS
        .replace("PAGES", &serde_json::to_string(&pages).expect("JSON"))
        .replace("WIDTHS", &format!("{widths:?}"));
    let path = folder.path().join("harness.html");
    fs::write(&path, harness).expect("a file");
    let (dom, complaints) = browse(
        folder.path(),
        scheme,
        &["--window-size=1400,1000", "--dump-dom", &address(&path)],
    );
    assert_eq!(complaints, [""; 0]);
    let (_, told) = dom
        .split_once("<pre id=\"told\">")
        .expect("what the harness tells");
    let (told, _) = told.split_once("</pre>").expect("its end");
    let told = told
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    let told: Vec<Value> = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert_eq!(told.len(), pages.len() * widths.len());
    told
}

fn number(told: &Value, name: &str) -> u64 {
    told[name].as_u64().unwrap_or_else(|| panic!("{name}: {told:#}"))
}

fn holds(scheme: Scheme, widths: &[u64]) {
    for page in told(scheme, widths) {
        let is_nasty = page["page"] == "nasty.html";
        assert_eq!(page["dark"], scheme == Scheme::Dark);
        let empty = Value::Array(Vec::new());
        for wrong in ["out", "spilt", "pale"] {
            assert_eq!(page[wrong], empty, "{wrong}: {page:#}");
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
        // The chart, and that every part of each of its bars is to be seen.
        assert!(
            number(&page, "charts") >= 1 && number(&page, "bars") >= 2,
            "{page:#}"
        );
        assert_eq!(page["bars"], page["filled"], "{page:#}");
        // Ladders, each with the sign of each step beside its rails.
        let flows = number(&page, "flows");
        assert!(flows >= if is_nasty { 8 } else { 2 }, "{page:#}");
        assert_eq!(page["flows"], page["ladders"], "{page:#}");
        assert!(number(&page, "steps") > 30, "{page:#}");
        assert_eq!(page["steps"], page["marks"], "{page:#}");
        assert_eq!(number(&page, "shut"), flows - 1, "{page:#}");
        // The policy lets the script run, and the script does what it is for.
        assert_eq!(number(&page, "copies"), 1, "{page:#}");
        assert_eq!(number(&page, "hidden"), flows, "{page:#}");
    }
}

#[test]
#[ignore = "needs a browser: cargo xtask test runs it"]
fn by_day_everything_is_there_and_nothing_lies_outside_of_the_window() {
    holds(Scheme::Light, &WIDTHS);
}

#[test]
#[ignore = "needs a browser: cargo xtask test runs it"]
fn at_night_everything_is_there_and_can_be_read() {
    // Colours are all that differs.
    holds(Scheme::Dark, &WIDTHS[..1]);
}

#[test]
#[ignore = "needs a browser: cargo xtask test runs it"]
fn a_picture_shows_something() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = written(folder.path());
    let keep = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (scheme, size, page, name) in [
        (Scheme::Light, "1280,2000", &pages[0], "report-light.png"),
        (Scheme::Dark, "500,2000", &pages[0], "report-dark.png"),
    ] {
        let picture = keep.join(name);
        fs::remove_file(&picture).ok();
        let (_, complaints) = browse(
            folder.path(),
            scheme,
            &[
                &format!("--window-size={size}"),
                &format!("--screenshot={}", picture.display()),
                &address(&folder.path().join(page)),
            ],
        );
        assert_eq!(complaints, [""; 0]);
        // One colour all over would be a few kilobytes.
        let length = fs::metadata(&picture).expect("a picture").len();
        assert!(length > 40_000, "{} has {length} bytes", picture.display());
    }
}
