//! The lab's own test: scenarios that must fail, each for the reason that is known, in one boot.
//!
//! A lab that lets everything pass, or that one hanging scenario stops, proves nothing. tracer has no part in this.

use anyhow::Result;
use tracer_lab::scenario::{self, KernelName};
use tracer_lab::vm::qemu::Qemu;

use crate::lab::CPUS;
use crate::lab::play::{Lab, Manner, Played, Programme};
use crate::lab::tell::{Detail, Tally, Teller};
use crate::workspace;

/// The name of each drill, and what must be said of it; nothing: it must pass.
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

/// Plays the drills on a kernel and returns what is not as it must be.
pub(super) fn run(name: &KernelName) -> Result<Vec<String>> {
    let catalogue = scenario::load(&workspace::root().join("tests/drills"))?;
    let lab = Lab::prepare(Manner {
        without_tracer: true,
        ..Manner::default()
    })?;
    let kernel = lab.kernel(name)?;
    let qemu = Qemu::find(lab.cache(), &kernel)?;
    let programme = Programme {
        name: name.clone(),
        kernel,
        cpus: CPUS,
        scenarios: catalogue.iter().collect(),
    };
    let tally = Tally::of(1);
    let mut teller = Teller::new(name, Detail::Nothing, false, &tally);
    let played = lab.play(&qemu, &programme, &mut teller);
    Ok(wrong(&played))
}

/// What is not as it must be.
fn wrong(played: &[Played]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, must) in DRILLS {
        let Some(drill) = played.iter().find(|drill| drill.scenario == name) else {
            wrong.push(format!("{name} was not played"));
            continue;
        };
        let said = drill.troubles.join("; ");
        let as_it_must = match must {
            Some(must) => said.contains(must),
            None => drill.passed(),
        };
        // What is left behind on the node is a failure of its own, whatever else there is to say.
        if !as_it_must || said.contains("left behind") || said.contains("could not be stopped") {
            let must = must.unwrap_or("nothing");
            wrong.push(format!("of {name} it must be said: {must}; what is said: {said}"));
        }
    }
    if played.len() != DRILLS.len() {
        wrong.push(format!(
            "{} drills were played, not {}",
            played.len(),
            DRILLS.len()
        ));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "boots a guest"]
    fn the_lab_tells_what_fails_from_what_does_not() {
        let wrong = run(&"6.12".parse().unwrap()).unwrap();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_drill_that_is_not_played_is_wrong() {
        assert_eq!(wrong(&[]).len(), DRILLS.len() + 1);
    }

    #[test]
    fn every_drill_is_a_file_and_every_file_a_drill() {
        let catalogue = scenario::load(&workspace::root().join("tests/drills")).unwrap();
        let files: Vec<&str> = catalogue.iter().map(|named| &*named.name).collect();
        assert_eq!(files, DRILLS.map(|(name, _)| name));
    }
}
