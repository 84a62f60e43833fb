//! Errors of the argument parser, on one line.

use std::ffi::OsString;

use super::args;

/// The name of the command on the command line, with `tracer` before it.
pub(super) fn command_of(arguments: &[OsString]) -> String {
    let name = arguments
        .get(1)
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let command = args::command();
    let found = command.find_subcommand(name);
    found.map_or_else(
        || "tracer".to_owned(),
        |found| format!("tracer {}", found.get_name()),
    )
}

/// The error message on one line, and the command whose help to read.
pub(super) fn one_line(error: &clap::Error, command: &str) -> String {
    let text = error.to_string();
    let mut out = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        let line = line.trim_start_matches("error: ").trim_start_matches("tip: ");
        if line.is_empty() {
            continue;
        }
        let is_list = out.contains(":\u{0}");
        match out.chars().last() {
            None => {}
            // A list follows, such as that of required arguments.
            Some(':') => out.push_str("\u{0} "),
            Some(_) if is_list => out.push_str(", "),
            Some(_) => out.push_str("; "),
        }
        out.push_str(line);
    }
    let out = out.replace('\u{0}', "");
    format!("{out}; try `{command} --help`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(arguments: &[&str]) -> String {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let error = args::command()
            .try_get_matches_from(&arguments)
            .expect_err("an error");
        one_line(&error, &command_of(&arguments))
    }

    #[test]
    fn an_error_keeps_its_punctuation_and_names_the_command() {
        assert_eq!(
            error(&["tracer", "export", "a.trace"]),
            "the following required arguments were not provided: --to <FORMAT>; try `tracer export --help`"
        );
        assert_eq!(
            error(&["tracer", "report", "--jsn", "a.trace"]),
            "unexpected argument '--jsn' found; a similar argument exists: '--json'; try `tracer report --help`"
        );
        assert_eq!(
            error(&["tracer", "recrod"]),
            "unrecognized subcommand 'recrod'; a similar subcommand exists: 'record'; try `tracer --help`"
        );
        assert_eq!(
            error(&["tracer", "live", "--fate", "stalld"]),
            "invalid value 'stalld' for '--fate <FATE>': not a fate; did you mean `stalled`?; try `tracer live --help`"
        );
        assert_eq!(
            error(&["tracer", "show"]),
            "the following required arguments were not provided: <FILE>..., <FLOW>; try `tracer show --help`"
        );
    }
}
