//! The reader on small trees whose arrows are known.

use crate::modules::Modules;
use crate::report::report;
use crate::rooms::is_impure;
use crate::tree::Tree;
use crate::uses;

const TRACER: &str = "[package]\nname = \"tracer\"\n";

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::from([("tracer/Cargo.toml".to_owned(), TRACER.to_owned())]);
    tree.extend(
        files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned())),
    );
    tree
}

/// The arrows as `user -> used: names`, without `tracer/src/` and `.rs`.
fn arrows(files: &[(&str, &str)]) -> Vec<String> {
    let modules = Modules::parse(&tree(files)).expect("the tree parses");
    let short = |file: usize| {
        modules.files[file]
            .path
            .trim_start_matches("tracer/src/")
            .trim_end_matches(".rs")
    };
    let arrows = uses::arrows(&modules).between;
    let texts = arrows.iter().map(|((from, to), names)| {
        let names: Vec<&str> = names.keys().map(String::as_str).collect();
        format!("{} -> {}: {}", short(*from), short(*to), names.join(" "))
    });
    texts.collect()
}

fn wrong(files: &[(&str, &str)]) -> Vec<String> {
    report(&tree(files)).expect("the tree parses")
}

#[test]
fn nested_renamed_and_nameless_imports_lead_to_the_defining_files() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "mod a; mod b; mod c;"),
        (
            "tracer/src/a.rs",
            "use crate::{b::{self, One, Two as Second}, c::Three as _}; use super::c::Four;",
        ),
        ("tracer/src/b.rs", "pub struct One; pub struct Two;"),
        ("tracer/src/c.rs", "pub trait Three {} pub enum Four { X }"),
    ]);
    assert_eq!(found, ["a -> b: One Two crate::b", "a -> c: Four Three"]);
}

#[test]
fn a_reexport_is_no_arrow_and_its_users_lead_past_it() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "mod a; mod b;"),
        (
            "tracer/src/a.rs",
            "use crate::b::Deep; fn f() { crate::b::deep(); }",
        ),
        (
            "tracer/src/b.rs",
            "mod inner; pub use inner::deep; pub(crate) use self::inner::below::*;",
        ),
        ("tracer/src/b/inner.rs", "pub mod below; pub fn deep() {}"),
        ("tracer/src/b/inner/below.rs", "pub struct Deep;"),
    ]);
    assert_eq!(found, ["a -> b/inner: deep", "a -> b/inner/below: Deep"]);
}

#[test]
fn a_reexported_name_that_the_file_itself_uses_is_an_arrow() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "mod a;"),
        (
            "tracer/src/a.rs",
            "mod b; pub use b::{Thing, unused}; fn f(_: Thing) {}",
        ),
        ("tracer/src/a/b.rs", "pub struct Thing; pub fn unused() {}"),
    ]);
    assert_eq!(found, ["a -> a/b: Thing"]);
}

#[test]
fn an_imported_module_counts_for_what_is_used_through_it() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "mod a; mod b; mod c; mod d;"),
        (
            "tracer/src/a.rs",
            "use crate::{b, c, d}; fn f() { b::inner(); let _ = c::MADE; }",
        ),
        ("tracer/src/b.rs", "mod deep; pub use deep::inner;"),
        ("tracer/src/b/deep.rs", "pub fn inner() {}"),
        ("tracer/src/c.rs", "make! { MADE }"),
        ("tracer/src/d.rs", ""),
    ]);
    assert_eq!(found, ["a -> b/deep: inner", "a -> c: MADE", "a -> d: crate::d"]);
}

#[test]
fn what_a_star_brings_in_is_found_where_it_is_used() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "mod a; mod b; mod c;"),
        (
            "tracer/src/a.rs",
            "use crate::b::*; fn f(_: Used) { if let Some(free) = g() { free; } helper(); }",
        ),
        (
            "tracer/src/b.rs",
            "pub use crate::c::*; pub struct Used; pub struct Unused; pub fn free() {}",
        ),
        ("tracer/src/c.rs", "pub use crate::b::*; pub fn helper() {}"),
    ]);
    assert_eq!(found, ["a -> b: Used", "a -> c: helper"]);
}

#[test]
fn imports_inside_a_function_hold_there() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "mod a; mod b; mod c;"),
        (
            "tracer/src/a.rs",
            "fn f() { use crate::b as x; x::one(); } fn g() { use crate::c as x; x::two(); }",
        ),
        ("tracer/src/b.rs", "pub fn one() {}"),
        ("tracer/src/c.rs", "pub fn two() {}"),
    ]);
    assert_eq!(found, ["a -> b: one", "a -> c: two"]);
}

#[test]
fn code_for_tests_is_left_out() {
    let files = [
        ("tracer/src/lib.rs", "mod a; mod b;"),
        (
            "tracer/src/a.rs",
            "#[cfg(test)] use crate::b::One; #[cfg(test)] mod tests;
             #[cfg(all(test, unix))] fn f() { crate::b::two(); }
             #[cfg(test)] mod more { use crate::b::One; }
             struct S { #[cfg(test)] field: crate::b::One }
             impl S { #[cfg(test)] fn f(_: crate::b::One) {} }",
        ),
        ("tracer/src/a/tests.rs", "use crate::b::One;"),
        ("tracer/src/b.rs", "pub struct One; pub fn two() {}"),
    ];
    assert_eq!(arrows(&files), [""; 0]);
    assert_eq!(
        wrong(&files)[..2],
        [UNKNOWN_A, UNKNOWN_B],
        "and `a/tests.rs` is not an unreached file"
    );
}

const UNKNOWN_A: &str = "tracer/src/a is not a known room: move its files into one, or give it a floor in \
    xtask/tests/house/rooms.rs and ARCHITECTURE.md.";
const UNKNOWN_B: &str = "tracer/src/b is not a known room: move its files into one, or give it a floor in \
    xtask/tests/house/rooms.rs and ARCHITECTURE.md.";

#[test]
fn other_conditions_are_normal_code() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "mod a; mod b;"),
        (
            "tracer/src/a.rs",
            "#[cfg(fuzzing)] use crate::b::One; #[cfg(not(test))] use crate::b::Two;
             #[cfg(any(test, fuzzing))] use crate::b::Three; #[cfg(not(unix))] use crate::b::Four;",
        ),
        (
            "tracer/src/b.rs",
            "pub struct One; pub struct Two; pub struct Three; pub struct Four;",
        ),
    ]);
    assert_eq!(found, ["a -> b: Four One Three Two"]);
}

#[test]
fn an_inline_module_belongs_to_its_file() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "mod a; mod b;"),
        (
            "tracer/src/a.rs",
            "pub mod inner { use super::Own; use super::super::b::One; pub struct Mine; mod far; } struct Own;",
        ),
        ("tracer/src/a/inner/far.rs", "use super::Mine;"),
        ("tracer/src/b.rs", "use crate::a::inner::Mine; pub struct One;"),
    ]);
    assert_eq!(found, ["a -> b: One", "a/inner/far -> a: Mine", "b -> a: Mine"]);
}

#[test]
fn path_attributes_are_followed() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "#[path = \"odd/place.rs\"] mod a; mod b;"),
        (
            "tracer/src/odd/place.rs",
            "use crate::b::One; mod near; use near::Two;",
        ),
        ("tracer/src/odd/near.rs", "pub struct Two;"),
        ("tracer/src/b.rs", "pub struct One;"),
    ]);
    assert_eq!(found, ["odd/place -> odd/near: Two", "odd/place -> b: One"]);
}

#[test]
fn macros_and_attributes_are_read_for_paths() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "mod a; mod b; mod c;"),
        (
            "tracer/src/a.rs",
            "use super::b; #[arg(value_parser = crate::c::parse)] struct S;
             fn f() { println!(\"{}\", b::name(&[super::c::Two::new()])); x.b.go(); local!(); crate::exported!(); }
             macro_rules! m { () => { $crate::c::by_macro() } }",
        ),
        ("tracer/src/b.rs", "pub fn name() {}"),
        ("tracer/src/c.rs", "pub struct Two; pub fn parse() {} pub fn by_macro() {} #[macro_export] macro_rules! exported { () => {} }"),
    ]);
    assert_eq!(found, ["a -> b: name", "a -> c: Two by_macro exported parse"]);
}

#[test]
fn a_macro_of_a_surrounding_module_is_found() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "mod a;"),
        ("tracer/src/a.rs", "macro_rules! made { () => {} } mod b;"),
        ("tracer/src/a/b.rs", "made!();"),
    ]);
    assert_eq!(found, ["a/b -> a: made"]);
}

#[test]
fn visibilities_variables_and_generics_are_no_arrows() {
    let found = arrows(&[
        ("tracer/src/lib.rs", "mod a; mod b;"),
        (
            "tracer/src/a.rs",
            "pub use crate::b::{name, other}; pub(in crate::a) fn f<T: Default>(name: u8) { name; T::default(); }
             pub(super) fn g() { let other = 1; h(other); }",
        ),
        ("tracer/src/b.rs", "pub fn name() {} pub fn other() {}"),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn crates_of_the_workspace_are_known_by_their_names() {
    let found = arrows(&[
        ("common/Cargo.toml", "[package]\nname = \"tracer-common\"\n"),
        ("common/src/lib.rs", "pub mod tuple; pub use tuple::Tuple;"),
        ("common/src/tuple.rs", "pub struct Tuple; pub fn parse() {}"),
        ("tracer/src/lib.rs", "pub mod cli;"),
        (
            "tracer/src/cli.rs",
            "use tracer_common::{Tuple, tuple}; fn f() { ::tracer_common::tuple::parse(); }",
        ),
        ("tracer/src/main.rs", "fn main() { tracer::cli::run() }"),
    ]);
    assert_eq!(
        found,
        ["cli -> common/src/tuple: Tuple parse", "main -> cli: run"]
    );
}

#[test]
fn a_tree_in_order_has_nothing_wrong() {
    let found = wrong(&[
        ("tracer/src/lib.rs", "pub mod cli; mod diagnose; mod flow;"),
        ("tracer/src/main.rs", "fn main() { tracer::cli::run() }"),
        (
            "tracer/src/cli.rs",
            "use crate::{diagnose, flow::Flow}; pub fn run() { diagnose::judge(Flow); }",
        ),
        (
            "tracer/src/diagnose.rs",
            "use crate::flow::Flow; use std::time::Duration; pub fn judge(_: Flow) {}",
        ),
        ("tracer/src/flow.rs", "use std::net::IpAddr; pub struct Flow;"),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_circle_is_reported_with_its_shortest_loop_and_names() {
    let found = wrong(&[
        ("tracer/src/lib.rs", "mod flow;"),
        ("tracer/src/flow.rs", "mod a; mod b; mod c; pub use a::A;"),
        ("tracer/src/flow/a.rs", "use super::b::{B, Other}; pub struct A;"),
        (
            "tracer/src/flow/b.rs",
            "use super::c::{C, Third}; pub struct B; pub struct Other;",
        ),
        (
            "tracer/src/flow/c.rs",
            "\nuse super::A; pub struct C; pub struct Third;",
        ),
    ]);
    let text = "3 files form an import cycle: tracer/src/flow/a.rs tracer/src/flow/b.rs tracer/src/flow/c.rs
  - tracer/src/flow/a.rs:1 uses `B`, `Other` of tracer/src/flow/b.rs
    tracer/src/flow/b.rs:1 uses `C`, `Third` of tracer/src/flow/c.rs
    tracer/src/flow/c.rs:2 uses `A` of tracer/src/flow/a.rs
    Shortest cut: move `A` out of tracer/src/flow/a.rs into a file below both, or hand it to tracer/src/flow/c.rs as an argument.";
    assert_eq!(found, [text]);
}

#[test]
fn two_loops_through_one_file_are_one_circle_with_two_cuts() {
    let found = wrong(&[
        ("tracer/src/lib.rs", "mod flow;"),
        (
            "tracer/src/flow.rs",
            "mod a; mod b; pub struct Shared; fn f() { a::f(); b::f(); }",
        ),
        ("tracer/src/flow/a.rs", "use super::Shared; pub fn f() {}"),
        ("tracer/src/flow/b.rs", "use super::Shared; pub fn f() {}"),
    ]);
    assert_eq!(found.len(), 1);
    let cuts = found[0]
        .matches("move `Shared` out of tracer/src/flow.rs")
        .count();
    assert_eq!(cuts, 2, "{}", found[0]);
}

#[test]
fn an_arrow_that_runs_up_is_reported() {
    let found = wrong(&[
        ("tracer/src/lib.rs", "mod cli; mod flow;"),
        ("tracer/src/cli/mod.rs", "pub mod lines;"),
        ("tracer/src/cli/lines.rs", "pub struct Line;"),
        ("tracer/src/flow.rs", "fn f() { crate::cli::lines::Line; }"),
    ]);
    let text = "`flow` is below `cli` and must not import it:
    tracer/src/flow.rs:1 uses `Line` of tracer/src/cli/lines.rs
    Move what is used to a room below both, or the code that uses it up.";
    assert_eq!(found, [text]);
}

#[test]
fn rooms_of_one_floor_keep_apart() {
    let found = wrong(&[
        ("tracer/src/lib.rs", "mod facts; mod flow; mod tui; mod report;"),
        ("tracer/src/facts.rs", "use crate::flow::Flow;"),
        ("tracer/src/flow.rs", "pub struct Flow;"),
        ("tracer/src/tui.rs", "use crate::report::Page;"),
        ("tracer/src/report.rs", "pub struct Page;"),
    ]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("`facts` is beside `flow` and must not import it:"),
        "{}",
        found[0]
    );
}

#[test]
fn io_in_a_pure_room_is_reported_and_elsewhere_not() {
    let code = "use std::{fs, net::{IpAddr, TcpStream}}; use jiff::Timestamp;
        fn f() { fs::read(\"x\"); println!(\"x\"); let t = Timestamp::now(); } fn g(_: std::time::Instant) {}";
    let files = [
        ("tracer/src/lib.rs", "mod flow; mod cli;"),
        ("tracer/src/flow.rs", code),
        ("tracer/src/cli.rs", code),
    ];
    let found = wrong(&files);
    let paths: Vec<&str> = found.iter().filter_map(|text| text.split('`').nth(1)).collect();
    assert_eq!(
        paths,
        [
            "jiff::Timestamp::now",
            "std::fs",
            "std::fs::read",
            "std::net::TcpStream",
            "std::println",
            "std::time::Instant"
        ]
    );
    assert!(
        found.iter().all(|text| text.starts_with("tracer/src/flow.rs:")),
        "{found:?}"
    );
}

#[test]
fn constants_are_pure_and_a_star_over_io_is_not() {
    for (path, expected) in [
        ("libc::AF_INET", false),
        ("libc::socket", true),
        ("nix::libc", false),
        ("nix::libc::getsockopt", true),
        ("nix::errno::Errno", false),
        ("nix::unistd::getpid", true),
        ("std::net::SocketAddr", false),
        ("std::net::*", true),
        ("std::fmt::*", false),
        ("std::fs::*", true),
        ("std::io::Read", false),
        ("std::processor", false),
    ] {
        assert_eq!(is_impure(path), expected, "{path}");
    }
}

#[test]
fn a_fuzz_target_that_imports_a_command_is_reported() {
    let found = wrong(&[
        (
            "tracer/fuzz/Cargo.toml",
            "[package]\nname = \"tracer-fuzz\"\n[[bin]]\nname = \"x\"\npath = \"targets/x.rs\"\n",
        ),
        ("tracer/fuzz/targets/x.rs", "use tracer::cli::play;"),
        ("tracer/src/lib.rs", "pub mod cli;"),
        ("tracer/src/cli.rs", "pub fn play() {}"),
    ]);
    assert_eq!(
        found,
        ["tracer/fuzz/ must not import `cli`: tracer/fuzz/targets/x.rs:1 uses `play` of tracer/src/cli.rs"]
    );
}

#[test]
fn a_file_that_no_module_declares_is_reported() {
    let found = wrong(&[
        ("tracer/src/lib.rs", "mod flow;"),
        ("tracer/src/flow.rs", ""),
        ("tracer/src/flow/left.rs", ""),
    ]);
    assert_eq!(
        found,
        ["No `mod` leads to tracer/src/flow/left.rs: declare it or delete it."]
    );
}
