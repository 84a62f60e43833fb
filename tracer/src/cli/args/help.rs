//! The help: one screen for each command, with examples, exit statuses and where to read on.

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::Args;

/// Examples of the commands, and of the program itself under its own name.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "tracer",
        "  tracer live --fate failed        failures as they happen
  tracer record -o node.trace      record until Ctrl-C
  tracer report node.trace         what happened, for the ticket
  tracer causes ipvs               the causes of a family",
    ),
    (
        "live",
        "  tracer live --port 30500 --json --until failed --fail-on failed",
    ),
    (
        "record",
        "  tracer record -o node.trace --duration 15m
  tracer record -o node.trace --ring 64MiB --until ipvs --after 10",
    ),
    (
        "replay",
        "  tracer replay node.trace
  tracer replay node.trace --fate failed -v",
    ),
    (
        "report",
        "  tracer report node-a.trace node-b.trace
  tracer report node.trace --html report.html",
    ),
    (
        "diff",
        "  tracer diff before.trace after.trace
  tracer diff before.trace after.trace --html diff.html",
    ),
    (
        "show",
        "  tracer show node.trace 17
  tracer show node.trace 10.0.0.2:40001
  tracer show node-a.trace node-b.trace 17",
    ),
    (
        "export",
        "  tracer export node.trace --to pcapng -o node.pcapng
  tracer export node.trace --to jsonl --fate failed",
    ),
    (
        "check",
        "  tracer check -v
  tracer check --fail-on armed
  tracer check node.trace",
    ),
    (
        "completions",
        "  tracer completions bash > /usr/share/bash-completion/completions/tracer",
    ),
    ("man", "  tracer man live | man -l -"),
    (
        "causes",
        "  tracer causes ipvs
  tracer causes ipvs.reuse-dropped",
    ),
];

/// The exit statuses, by the command that can have them.
const STATUS: &str = "Exit status: 0 success, 1 failure, 2 usage";
const STATUS_FAIL_ON: &str = "3 --fail-on matched";
const STATUS_TRACING: &str = "69 this kernel cannot trace, 77 privilege missing";

/// The command line with all options of `live` under its own name too: for completion.
#[must_use]
pub fn full_command() -> Command {
    Args::command()
}

/// The command line. Options of `live` are accepted without `live`, and listed only there.
#[must_use]
pub fn command() -> Command {
    let command = Args::command()
        .mut_args(|arg| arg.hide(true))
        .mut_subcommands(|command| {
            let name = command.get_name().to_owned();
            match EXAMPLES.iter().find(|(of, _)| *of == name) {
                Some((_, examples)) => with_help_flag(command).after_help(after(&name, examples)),
                None => with_help_flag(command).after_help(after(&name, "")),
            }
        })
        .override_usage("tracer [live] [OPTIONS]\n       tracer <COMMAND> [OPTIONS]");
    let examples = EXAMPLES.first().map_or("", |(_, examples)| examples);
    command.after_help(after("tracer", examples))
}

/// Accepts `--help` without listing it.
fn with_help_flag(command: Command) -> Command {
    let help = Arg::new("help").short('h').long("help");
    command
        .disable_help_flag(true)
        .arg(help.action(ArgAction::Help).hide(true))
}

fn after(name: &str, examples: &str) -> String {
    let is_tracing = matches!(name, "tracer" | "live" | "record" | "hooks");
    let mut status = vec![STATUS];
    if matches!(name, "tracer" | "live" | "record" | "replay" | "check") {
        status.push(STATUS_FAIL_ON);
    }
    let mut status = status.join(", ");
    if is_tracing {
        status.push_str(",\n  ");
        status.push_str(STATUS_TRACING);
    }
    let see = match name {
        "tracer" => "tracer COMMAND --help, tracer causes, tracer man",
        "hooks" | "causes" => "docs/causes.md",
        "check" => "docs/hazards.md, docs/schema.md",
        "export" => "docs/export.md, docs/schema.md",
        "live" | "replay" => "tracer causes, docs/schema.md, docs/screens.md",
        "record" => "tracer causes, docs/recording.md",
        "report" | "diff" => "tracer causes, docs/report.md",
        _ => "tracer --help",
    };
    let examples = match examples {
        "" => String::new(),
        lines => format!("Examples:\n{lines}\n\n"),
    };
    format!("{examples}{status}\nSee also: {see}")
}
