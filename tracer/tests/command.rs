//! How the command ends when it is asked for something that cannot be.

use std::process::{Command, Output};

fn tracer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .output()
        .expect("the command runs")
}

/// Status and the one line on stderr; nothing may be on stdout.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = tracer(arguments);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(said.lines().count(), 1, "{arguments:?} said {said:?}");
    assert!(output.stdout.is_empty());
    (output.status.code(), said)
}

#[test]
fn bad_arguments_end_with_2_and_one_line_that_names_them() {
    for (arguments, named) in [
        (&["live", "--port", "http"][..], "`http` is not a port"),
        (&["live", "--port", "30100-30000"], "runs backwards"),
        (
            &["live", "--client", "10.0.0.0/40"],
            "`10.0.0.0/40` is not a network",
        ),
        (&["live", "--fate", "lost"], "possible values"),
        (&["live", "--patience", "0"], "--patience"),
        (&["live", "--plain", "--json"], "cannot be used with"),
        (&["nonsense"], "nonsense"),
    ] {
        let (status, said) = refused(arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(named), "{arguments:?}: {said}");
        assert!(said.contains("--help"), "{arguments:?}: {said}");
    }
}

#[test]
fn help_and_version_need_no_privilege() {
    for arguments in [
        &["--help"][..],
        &["live", "--help"],
        &["hooks", "--help"],
        &["--version"],
    ] {
        let output = tracer(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_kernel_without_kprobes_ends_with_69_and_says_what_to_do() {
    if tracer::probe::attach::has_kprobes() {
        eprintln!("this kernel has kprobes: nothing to see here");
        return;
    }
    let (status, said) = refused(&["live", "--json"]);
    assert_eq!(status, Some(69), "{said}");
    assert!(said.contains("kprobes") && said.contains("ipvsadm"), "{said}");
}
