//! Enforces the architecture: no import cycle between files, arrows between rooms only downwards, no I/O in the pure rooms.
//!
//! It reads the imports of every crate of the workspace as the compiler would: from each crate's root along its `mod`
//! declarations ([`modules`]), every `use` and every path in the code ([`uses`]) to the file that defines the item
//! ([`resolve`]). `mod`, re-exports and code for tests are not arrows. [`rooms`] has the table of rooms.
//!
//! To run only this: `cargo test -p xtask --test house`.

mod arrows;
mod cfg;
mod circles;
mod imported;
mod modules;
mod report;
mod resolve;
mod rooms;
mod small_trees;
mod tree;
mod uses;

use std::path::Path;

#[test]
fn imports_run_down_and_never_in_a_circle() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tree = tree::read(&workspace).expect("the workspace is readable");
    let wrong = report::report(&tree).expect("the workspace parses");
    assert!(
        wrong.is_empty(),
        "\n\n{}\n\n{} in all\n",
        wrong.join("\n\n"),
        wrong.len()
    );
}
