//! Tests the lab itself with scenarios that must fail, each for a known reason.
//!
//! A lab that passes everything, or that stops at a hanging scenario, proves nothing. tracer does not run here.

use anyhow::Result;
use tracer_lab::scenario::{self, KernelName};
use tracer_lab::vm::qemu::Qemu;

use crate::lab::options::Options;
use crate::lab::plan::{GUEST_CPUS, GuestPlan};
use crate::lab::printer::{PrintMode, Printer, ScenarioCounter};
use crate::lab::result::ScenarioResult;
use crate::lab::runner::{Guest, Lab};
use crate::workspace;

/// The name of each drill and a part of its failure; `None` if it must pass.
const DRILLS: [(&str, Option<&str>); 4] = [
    (
        "a-hanging-tool",
        Some("timed out after 20 s, in: step 2: nft: include \"/sys/kernel/tracing/trace_pipe\""),
    ),
    (
        "b-hanging-client",
        Some("timed out after 20 s, in: step 1: client-a connects from port 41000"),
    ),
    (
        "c-contradiction",
        Some("expected dropped, but the client was connected"),
    ),
    ("d-nothing-wrong", None),
];

/// Runs the drills in one guest and returns each unexpected result.
pub(super) fn run(lab: &Lab, kernel: &KernelName) -> Result<Vec<String>> {
    let catalogue = scenario::load(&workspace::root().join("tests/drills"))?;
    let options = Options {
        without_tracer: true,
        ..Options::default()
    };
    let files = lab.kernel(kernel, options.build)?;
    let qemu = Qemu::find(lab.cache(), &files)?;
    let plan = GuestPlan {
        kernel: kernel.clone(),
        cpus: GUEST_CPUS,
        scenarios: catalogue.iter().collect(),
    };
    let guest = Guest {
        qemu: &qemu,
        kernel: &files,
        plan: &plan,
    };
    let counter = ScenarioCounter::new(DRILLS.len());
    let mut printer = Printer::new(kernel, PrintMode::Silent, false, &counter);
    Ok(unexpected(&lab.run(guest, &options, &mut printer)))
}

/// The results that differ from what [`DRILLS`] says.
fn unexpected(results: &[ScenarioResult]) -> Vec<String> {
    let mut unexpected = Vec::new();
    for (name, expected) in DRILLS {
        let Some(result) = results.iter().find(|result| result.scenario == name) else {
            unexpected.push(format!("{name} did not run"));
            continue;
        };
        let failures = result.failures.join("; ");
        let is_expected = match expected {
            Some(expected) => failures.contains(expected),
            None => result.passed(),
        };
        // Anything left behind on the node is a failure of its own.
        if !is_expected || failures.contains("left behind") || failures.contains("could not be stopped") {
            let expected = expected.unwrap_or("no failure");
            unexpected.push(format!("{name}: expected {expected}, got: {failures}"));
        }
    }
    if results.len() != DRILLS.len() {
        unexpected.push(format!("{} drills ran, not {}", results.len(), DRILLS.len()));
    }
    unexpected
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::priority::Priority;

    #[test]
    #[ignore = "boots a guest"]
    fn each_drill_has_its_expected_result() {
        let lab = Lab::prepare(Priority::Normal).unwrap();
        let unexpected = run(&lab, &"6.12".parse().unwrap()).unwrap();
        assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    }

    #[test]
    fn a_drill_that_did_not_run_is_unexpected() {
        assert_eq!(unexpected(&[]).len(), DRILLS.len() + 1);
    }

    #[test]
    fn every_drill_has_a_file_and_every_file_is_a_drill() {
        let catalogue = scenario::load(&workspace::root().join("tests/drills")).unwrap();
        let files: Vec<&str> = catalogue.iter().map(|named| &*named.name).collect();
        assert_eq!(files, DRILLS.map(|(name, _)| name));
    }
}
