//! docs/screens.md shows what the screen looks like, and no other screen than the one there is.

use std::{env, fmt::Write as _, fs, path::Path};

use tracer::tui::theme::{Depth, Theme};

use super::show::{busy, press, shown};

const UNICODE: Theme = Theme {
    depth: Depth::Mono,
    is_ascii: false,
};

/// Views: heading, keys that lead there, columns and lines, and what there is to say.
const VIEWS: [(&str, &str, (u16, u16), &str); 5] = [
    (
        "Overview",
        "",
        (80, 24),
        "What goes wrong, the worst first. Enter shows the connections of the selected cause or service.",
    ),
    (
        "Flows",
        "2t",
        (100, 15),
        "Every connection, also while nothing is decided (`pending`); here only those that went wrong (`t`). `/` filters with the words of the command line.",
    ),
    (
        "Flow",
        "2/cause:ipvs.reuse\n\n",
        (100, 40),
        "One connection: why, what to do, and its way through the kernel with a column for each network namespace.",
    ),
    ("Drops", "4", (100, 15), "Where this node discards packets."),
    (
        "Hooks",
        "5",
        (100, 15),
        "Where tracer looks, and where it cannot.",
    ),
];

#[test]
fn the_documentation_shows_the_screen() {
    let mut text = "# Screens\n\nMade from the same code as the screen, by `TRACER_WRITE_SCREENS=1 cargo test -p tracer --test tui`.\n".to_owned();
    for (title, keys, (width, height), says) in VIEWS {
        let mut model = busy(UNICODE, width, height);
        press(&mut model, keys);
        // Writing to a string cannot fail.
        let _ = write!(text, "\n## {title}\n\n{says}\n\n```\n{}```\n", shown(&mut model));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/screens.md");
    if env::var_os("TRACER_WRITE_SCREENS").is_some() {
        fs::write(&path, &text).expect("docs/screens.md can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, text, "TRACER_WRITE_SCREENS=1 writes it anew");
}
