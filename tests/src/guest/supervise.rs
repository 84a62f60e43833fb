//! All scenarios of a job, each with a watchdog.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cancel::Cancel;
use super::leftovers::Inventory;
use super::play::Stage;
use super::port::Port;
use crate::protocol::{CLEAN_UP, Job, Message, SCENARIOS_DIR};
use crate::scenario::{Family, Scenario};

/// Plays them in order. One that fails does not keep the next from being played. After one that cannot even be stopped
/// none is played: the node is no longer known to be empty, and whoever gave the job has to boot another guest.
pub(super) fn play_all(job: &Job, port: &Port) {
    let before = Inventory::take()
        .map(Arc::new)
        .map_err(|error| format!("{error:#}"));
    for name in &job.scenarios {
        port.send(&Message::Begin {
            scenario: name.clone(),
        });
        println!("--- {name}");
        let (outcome, stuck) = match &before {
            Err(error) => (Err(format!("not played: the node is unknown: {error}")), false),
            Ok(before) => match play(name, job, port, before) {
                Played::Over(outcome) => (outcome.map_err(|error| format!("{error:#}")), false),
                Played::Stuck(what) => (Err(what), true),
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

/// What became of a scenario.
enum Played {
    Over(Result<()>),
    /// It did not even stop when it was told to.
    Stuck(String),
}

fn play(name: &str, job: &Job, port: &Port, before: &Arc<Inventory>) -> Played {
    let scenario = match read(name) {
        Ok(scenario) => scenario,
        Err(error) => return Played::Over(Err(error)),
    };
    let limit = scenario.limit();
    let cancel = Cancel::default();
    let stage = Stage {
        job: job.clone(),
        port: port.clone(),
        cancel: cancel.clone(),
        before: Arc::clone(before),
    };
    let (over, when_over) = mpsc::channel();
    thread::spawn(move || {
        let _ = over.send(stage.play(&scenario));
    });

    match when_over.recv_timeout(limit) {
        Ok(outcome) => return Played::Over(outcome),
        Err(RecvTimeoutError::Disconnected) => return Played::Over(Err(anyhow!("lab-guest panicked"))),
        Err(RecvTimeoutError::Timeout) => {}
    }
    let why = format!("it took more than {} s, in: {}", limit.as_secs(), cancel.what());
    cancel.cancel();
    // All processes but this one are tools and tracer, and one of them may be what does not come to its end.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    match when_over.recv_timeout(CLEAN_UP) {
        Ok(_) => Played::Over(Err(anyhow!(why))),
        Err(_) => Played::Stuck(format!("{why}; and it could not be stopped")),
    }
}

fn read(name: &str) -> Result<Scenario> {
    let (file, family) = Family::of(name);
    let path = Path::new(SCENARIOS_DIR).join(format!("{file}.toml"));
    if !path.exists() {
        bail!("the guest has no scenario of this name");
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let scenario = Scenario::from_toml(&text).with_context(|| path.display().to_string())?;
    Ok(scenario.in_family(family))
}
