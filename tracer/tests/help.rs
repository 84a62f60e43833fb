//! The help texts of all commands, as printed.

use std::process::{Command, Stdio};

/// The lines of a large terminal.
const SCREEN: usize = 40;

/// The output of `tracer ARGUMENTS`, wrapped at 80 columns.
fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .env("COLUMNS", "80")
        .env_remove("CLICOLOR_FORCE")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("tracer runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// The commands that `tracer --help` lists. A wrapped description is indented deeper than a name.
fn commands(help: &str) -> Vec<&str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    list.take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

#[test]
fn help_texts() {
    let all = help(&["--help"]);
    insta::assert_snapshot!("tracer", all);
    let commands = commands(&all);
    assert!(commands.contains(&"live"), "{all}");
    for name in commands {
        let help = help(&[name, "--help"]);
        let lines = help.lines().count();
        assert!(lines <= SCREEN, "{name}: {lines} lines do not fit a screen");
        insta::assert_snapshot!(name, help);
    }
}

#[test]
fn short_and_long_help_list_the_same_commands() {
    assert_eq!(commands(&help(&["-h"])), commands(&help(&["--help"])));
}
