//! Boots a kernel and plays scenarios on it, keeping what was said about each.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use tracer_lab::expect;
use tracer_lab::packages::{self, Cache, Dependencies, Suite};
use tracer_lab::protocol::{Job, Message, Traffic};
use tracer_lab::scenario::{KernelName, Named};
use tracer_lab::vm::initramfs::{self, Parts};
use tracer_lab::vm::kernels::Kernel;
use tracer_lab::vm::qemu::Qemu;
use tracer_lab::vm::run::{Boot, Limits};

use crate::static_build::{self, Programs};
use crate::{system, workspace};

/// After this time a scenario has failed. An emulated kernel takes its time to attach a tracer.
const SCENARIO: Duration = Duration::from_mins(2);

/// How guests are to be run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// tracer speaks its plain lines, and nothing is judged.
    pub(crate) demo: bool,
    /// The scenarios are played without tracer; only the traffic is judged.
    pub(crate) without_tracer: bool,
    /// Everything that there is to say is said.
    pub(crate) verbose: bool,
}

/// Someone who wants to know at once.
pub(crate) trait Audience {
    /// A scenario starts.
    fn begin(&mut self, scenario: &Named);
    /// Something was said in the course of it.
    fn message(&mut self, message: &Message);
    /// It is over.
    fn end(&mut self, played: &Played);
}

/// A scenario that was played, or should have been.
#[derive(Debug)]
pub(crate) struct Played {
    /// On which kernel.
    pub(crate) kernel: KernelName,
    /// Its name.
    pub(crate) scenario: String,
    /// How long it took.
    pub(crate) took: Duration,
    /// What the clients lived through.
    pub(crate) traffic: Vec<Traffic>,
    /// What is not as it must be; empty: it passed.
    pub(crate) troubles: Vec<String>,
}

impl Played {
    /// Whether all was as it must be.
    pub(crate) fn passed(&self) -> bool {
        self.troubles.is_empty()
    }
}

/// All that guests are made of, apart from their kernels.
#[derive(Debug)]
pub(crate) struct Lab {
    cache: Cache,
    tools: PathBuf,
    programs: Programs,
    manner: Manner,
}

/// A kernel that is ready to boot, and what will be played on it.
#[derive(Debug)]
pub(crate) struct Programme<'a> {
    /// What it is called.
    pub(crate) name: KernelName,
    /// Its files.
    pub(crate) kernel: Kernel,
    /// What is played, in order.
    pub(crate) scenarios: Vec<&'a Named>,
}

impl Lab {
    /// Sees to programs, packages and builds.
    pub(crate) fn prepare(manner: Manner) -> Result<Self> {
        system::ensure_lab()?;
        let programs = static_build::build()?;
        let cache = Cache::open()?;
        let tools = packages::unpack(
            &cache,
            &[Suite::BOOKWORM],
            &initramfs::TOOL_PACKAGES,
            Dependencies::All,
        )?;
        Ok(Self {
            tools: tools.root,
            cache,
            programs,
            manner,
        })
    }

    /// Where downloads are kept.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Boots a kernel and plays its scenarios. Whatever goes wrong: each of them is in the answer.
    pub(crate) fn play(
        &self,
        qemu: &Qemu,
        programme: &Programme<'_>,
        audience: &mut dyn Audience,
    ) -> Vec<Played> {
        let mut stage = Stage::new(programme, self.manner);
        if let Err(error) = self.boot(qemu, programme, |message| stage.on(&message, audience)) {
            stage.give_up(&format!("{error:#}"), audience);
        }
        stage.over
    }

    fn boot(&self, qemu: &Qemu, programme: &Programme<'_>, on_message: impl FnMut(Message)) -> Result<()> {
        let runs = self.cache.root().join("runs");
        fs::create_dir_all(&runs).with_context(|| format!("cannot create {}", runs.display()))?;
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}-", programme.kernel.release))
            .tempdir_in(&runs)
            .with_context(|| format!("cannot create a folder in {}", runs.display()))?;
        let initramfs = folder.path().join("initramfs");
        let job = self.job(programme);
        let names: BTreeSet<&str> = programme.scenarios.iter().map(|named| &*named.file).collect();
        let folder_of_all = workspace::scenarios();
        let files: Vec<PathBuf> = names.into_iter().map(|name| folder_of_all.join(name)).collect();
        let parts = Parts {
            cache: &self.cache.root().join("initramfs"),
            kernel: &programme.kernel,
            tools: &self.tools,
            init: &self.programs.guest,
            tracer: &self.programs.tracer,
            scenarios: &files,
            job: &job,
        };
        initramfs::build(parts, &initramfs)?;

        let boot = Boot {
            qemu,
            kernel: &programme.kernel,
            initramfs: &initramfs,
            console: &folder.path().join("console"),
            limits: limits(programme.scenarios.len()),
        };
        boot.run(on_message).inspect_err(|_| {
            let kept = folder.keep();
            eprintln!(
                "    Kept  {}: initramfs and console of {}",
                kept.display(),
                programme.name
            );
        })
    }

    fn job(&self, programme: &Programme<'_>) -> Job {
        Job {
            scenarios: programme
                .scenarios
                .iter()
                .map(|named| named.name.clone())
                .collect(),
            keep_path: self.manner.verbose,
            without_tracer: self.manner.without_tracer,
            demo: self.manner.demo,
            verbose: self.manner.verbose,
            modules: Vec::new(),
            seconds_per_scenario: u32::try_from(SCENARIO.as_secs()).unwrap_or(u32::MAX),
        }
    }
}

fn limits(scenarios: usize) -> Limits {
    let scenarios = u32::try_from(scenarios).unwrap_or(u32::MAX);
    Limits {
        ready: Duration::from_secs(90),
        silence: SCENARIO + Duration::from_secs(30),
        total: Duration::from_mins(3) + SCENARIO.saturating_mul(scenarios),
    }
}

/// Follows the guest's messages from one scenario to the next.
struct Stage<'a> {
    programme: &'a Programme<'a>,
    manner: Manner,
    current: Option<Act<'a>>,
    over: Vec<Played>,
}

/// The scenario that is being played.
struct Act<'a> {
    named: &'a Named,
    began: Instant,
    told: Vec<Value>,
    traffic: Vec<Traffic>,
    troubles: Vec<String>,
}

impl<'a> Act<'a> {
    fn new(named: &'a Named) -> Self {
        Self {
            named,
            began: Instant::now(),
            told: Vec::new(),
            traffic: Vec::new(),
            troubles: Vec::new(),
        }
    }
}

impl<'a> Stage<'a> {
    fn new(programme: &'a Programme<'a>, manner: Manner) -> Self {
        Self {
            programme,
            manner,
            current: None,
            over: Vec::new(),
        }
    }

    fn on(&mut self, message: &Message, audience: &mut dyn Audience) {
        if let Message::Begin { scenario } = message {
            let named = self
                .programme
                .scenarios
                .iter()
                .find(|named| named.name == *scenario);
            self.current = named.map(|named| Act::new(named));
            if let Some(named) = named {
                audience.begin(named);
            }
            return;
        }
        audience.message(message);
        let Some(act) = &mut self.current else {
            return;
        };
        match message {
            Message::Tracer { line } if !self.manner.demo => match serde_json::from_str(line) {
                Ok(value) => act.told.push(value),
                Err(error) => act
                    .troubles
                    .push(format!("tracer printed what is no JSON ({error}): {line}")),
            },
            Message::Traffic(truth) => act.traffic.push(truth.clone()),
            Message::End { ok, why, .. } => {
                if !ok {
                    let why = why.as_deref().unwrap_or("for no reason given");
                    act.troubles.push(format!("it could not be played: {why}"));
                }
                self.close(audience);
            }
            _ => {}
        }
    }

    fn close(&mut self, audience: &mut dyn Audience) {
        let Some(mut act) = self.current.take() else {
            return;
        };
        let scenario = &act.named.scenario;
        // What is missing in a scenario that was cut short has no other reason than that.
        if act.troubles.is_empty() {
            let mismatches = if self.manner.without_tracer || self.manner.demo {
                expect::judge_traffic(scenario, &act.traffic)
            } else {
                expect::judge(scenario, &act.told, &act.traffic)
            };
            act.troubles.extend(mismatches.iter().map(ToString::to_string));
        }
        let played = Played {
            kernel: self.programme.name.clone(),
            scenario: act.named.name.clone(),
            took: act.began.elapsed(),
            traffic: act.traffic,
            troubles: act.troubles,
        };
        audience.end(&played);
        self.over.push(played);
    }

    /// The guest is gone: what was being played has failed, and so has what was not played at all.
    fn give_up(&mut self, why: &str, audience: &mut dyn Audience) {
        if let Some(act) = &mut self.current {
            act.troubles.push(why.to_owned());
            self.close(audience);
        }
        for named in &self.programme.scenarios {
            if self.over.iter().any(|played| played.scenario == named.name) {
                continue;
            }
            let first = self.over.iter().all(Played::passed);
            let trouble = if first {
                why
            } else {
                "it was not played: the guest was gone"
            };
            audience.begin(named);
            self.current = Some(Act::new(named));
            if let Some(act) = &mut self.current {
                act.troubles.push(trouble.to_owned());
            }
            self.close(audience);
        }
    }
}
