//! Runs all scenarios of a job, each with a watchdog.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cancel::Cancel;
use super::leftovers::Inventory;
use super::port::Port;
use super::scenario_run::ScenarioRun;
use crate::protocol::{CLEAN_UP, Job, Message, SCENARIOS_DIR};
use crate::scenario::{Family, Scenario};

/// Runs them in order. A failed scenario does not stop the following ones. After a scenario that cannot be
/// stopped none is run: the node may not be empty any more, and the host has to boot another guest.
pub(super) fn run_all(job: &Job, port: &Port) {
    let before = Inventory::take()
        .map(Arc::new)
        .map_err(|error| format!("{error:#}"));
    for name in &job.scenarios {
        port.send(&Message::Begin {
            scenario: name.clone(),
        });
        println!("--- {name}");
        let (outcome, stuck) = match &before {
            Err(error) => (
                Err(format!("not run: cannot take the node's inventory: {error}")),
                false,
            ),
            Ok(before) => match run(name, job, port, before) {
                Ending::Finished(outcome) => (outcome.map_err(|error| format!("{error:#}")), false),
                Ending::Stuck(what) => (Err(what), true),
            },
        };
        port.send(&Message::End {
            scenario: name.clone(),
            ok: outcome.is_ok(),
            why: outcome.err(),
        });
        if stuck {
            break;
        }
    }
}

/// How a scenario ended.
enum Ending {
    Finished(Result<()>),
    /// It did not stop when it was cancelled.
    Stuck(String),
}

fn run(name: &str, job: &Job, port: &Port, before: &Arc<Inventory>) -> Ending {
    let scenario = match load(name) {
        Ok(scenario) => scenario,
        Err(error) => return Ending::Finished(Err(error)),
    };
    let limit = scenario.limit();
    let cancel = Cancel::default();
    let scenario_run = ScenarioRun {
        job: job.clone(),
        port: port.clone(),
        cancel: cancel.clone(),
        before: Arc::clone(before),
    };
    let (over, is_over) = mpsc::channel();
    thread::spawn(move || {
        let _ = over.send(scenario_run.run(&scenario));
    });

    match is_over.recv_timeout(limit) {
        Ok(outcome) => return Ending::Finished(outcome),
        Err(RecvTimeoutError::Disconnected) => return Ending::Finished(Err(anyhow!("lab-guest panicked"))),
        Err(RecvTimeoutError::Timeout) => {}
    }
    let why = format!("timed out after {} s, in: {}", limit.as_secs(), cancel.current());
    cancel.cancel();
    // All processes but this one are tools and tracer, and one of them may be what hangs.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    match is_over.recv_timeout(CLEAN_UP) {
        Ok(_) => Ending::Finished(Err(anyhow!(why))),
        Err(_) => Ending::Stuck(format!("{why}; it could not be stopped")),
    }
}

/// Reads a scenario of the guest.
pub(super) fn load(name: &str) -> Result<Scenario> {
    let (file, family) = Family::of(name);
    let path = Path::new(SCENARIOS_DIR).join(format!("{file}.toml"));
    if !path.exists() {
        bail!("no scenario {file} in the guest");
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let scenario = Scenario::from_toml(&text).with_context(|| path.display().to_string())?;
    Ok(scenario.in_family(family))
}
