//! Exit status and error line of invalid commands.

use std::process::{Command, Output};

fn tracer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .output()
        .expect("the command runs")
}

/// Exit status and the single line on stderr. Asserts that stdout is empty.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = tracer(arguments);
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(error.lines().count(), 1, "{arguments:?}: {error:?}");
    assert!(output.stdout.is_empty());
    (output.status.code(), error)
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
        (&["live", "--fate", "lost"], "not a fate; give established"),
        (
            &["live", "--cause", "ipvs.reuse-droped"],
            "did you mean `ipvs.reuse-dropped`?",
        ),
        (&["live", "--until", "stalld"], "did you mean `stalled`?"),
        (&["record", "-o", "x", "--duration", "0"], "--duration"),
        (&["live", "--count", "0"], "--count"),
        (&["causes", "ipsv"], "did you mean `ipvs`?"),
        (&["live", "--patience", "0"], "--patience"),
        (&["live", "--plain", "--json"], "cannot be used with"),
        (&["nonsense"], "nonsense"),
    ] {
        let (status, error) = refused(arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {error}");
        assert!(error.contains(named), "{arguments:?}: {error}");
        assert!(error.contains("--help"), "{arguments:?}: {error}");
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
fn a_kernel_without_kprobes_ends_with_69_and_advice() {
    if tracer::probe::attach::has_kprobes() {
        eprintln!("this kernel has kprobes: nothing to test");
        return;
    }
    let (status, error) = refused(&["live", "--json"]);
    assert_eq!(status, Some(69), "{error}");
    assert!(error.contains("kprobes") && error.contains("ipvsadm"), "{error}");
}
