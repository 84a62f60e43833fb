//! Counts checks in the output of test programs.

use super::tally::Tally;

/// Counts lines in this project's own format, for example `passed  counts_by_fate_in_duckdb`. `prefix` goes in front of a
/// failure.
pub(super) fn own_lines(output: &str, prefix: &str) -> Tally {
    let mut tally = Tally::default();
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("passed  ") {
            tally.count(name, true);
        } else if let Some(name) = line.strip_prefix("FAILED  ") {
            tally.count(&format!("{prefix}{name}"), false);
        }
    }
    tally
}

/// Counts the result lines of Rust's test programs:
/// `test result: ok. 43 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.04s`.
pub(super) fn libtest(output: &str) -> Tally {
    let mut tally = Tally::default();
    for line in output.lines() {
        let Some(result) = line.strip_prefix("test result: ") else {
            continue;
        };
        let number_of = |word: &str| -> usize {
            result
                .split([';', '.'])
                .filter_map(|part| part.trim().strip_suffix(word))
                .find_map(|number| number.trim().parse().ok())
                .unwrap_or_default()
        };
        tally.passed += number_of("passed");
        for _ in 0..number_of("failed") {
            tally.failures.push("a unit test".to_owned());
        }
    }
    name_failures(output, &mut tally.failures);
    tally
}

/// Names the failures. Failed tests are listed below `failures:`, in indented lines up to an empty one.
fn name_failures(output: &str, failures: &mut [String]) {
    let mut in_list = false;
    let mut names = output.lines().filter_map(|line| {
        if line == "failures:" {
            in_list = true;
            return None;
        }
        in_list &= line.starts_with("    ");
        in_list.then(|| line.trim())
    });
    for failure in failures {
        if let Some(name) = names.next() {
            *failure = format!("unit test {name}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_tests_are_counted_and_failures_named() {
        let output = "\nrunning 3 tests\n..F\nfailures:\n\n---- vm::cpio::tests::order stdout ----\nassertion failed\n\n\
                      \nfailures:\n    help_needs_no_privilege\n    vm::cpio::tests::order\n\n\
                      test result: FAILED. 2 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                      \nrunning 4 tests\n....\ntest result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered \
                      out; finished in 0.04s\n";
        let tally = libtest(output);
        assert_eq!(tally.passed, 6);
        assert_eq!(
            tally.failures,
            [
                "unit test help_needs_no_privilege",
                "unit test vm::cpio::tests::order"
            ]
        );
    }

    #[test]
    fn lines_of_our_own_programs_are_counted_by_name() {
        let output = "passed  types\nFAILED  times\nTraceback: …\npassed  steps\n2 passed, 1 failed\n";
        let tally = own_lines(output, "table: ");
        assert_eq!(
            (tally.passed, tally.failures),
            (2, vec!["table: times".to_owned()])
        );
    }

    #[test]
    fn output_without_result_lines_counts_nothing() {
        assert_eq!(libtest("error: could not compile").passed, 0);
    }
}
