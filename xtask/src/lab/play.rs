//! Boots a kernel and plays scenarios on it, keeping what was said about each.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use tracer_lab::expect::{self, Matrix};
use tracer_lab::packages::{self, Cache, Dependencies, Suite};
use tracer_lab::protocol::{CLEAN_UP, Job, Message, Terminal, Traffic};
use tracer_lab::scenario::{Flavour, KernelName, Named};
use tracer_lab::vm::initramfs::{self, Parts};
use tracer_lab::vm::kernels::{Build, Ipvs, Kernel};
use tracer_lab::vm::qemu::Qemu;
use tracer_lab::vm::run::{Boot, Limits};

use super::screen;
use crate::static_build::{self, Programs};
use crate::system;

/// How guests are to be run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manner {
    /// tracer speaks its plain lines, and nothing is judged.
    pub(crate) demo: bool,
    /// The scenarios are played without tracer; only the traffic is judged.
    pub(crate) without_tracer: bool,
    /// tracer shows its screen on this terminal, and nothing is judged.
    pub(crate) screen: Option<Terminal>,
    /// Everything that there is to say is said.
    pub(crate) verbose: bool,
    /// Where what tracer recorded is kept.
    pub(crate) recordings: Option<PathBuf>,
    /// Which of Debian's builds of a kernel is booted.
    pub(crate) build: Build,
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
    /// Its flows by true and told cause, where there are thousands.
    pub(crate) matrix: Option<Matrix>,
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
    /// How many processors the guest has.
    pub(crate) cpus: u8,
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
            initramfs::TOOL_PACKAGES,
            Dependencies::All,
        )?;
        Ok(Self {
            tools: tools.root,
            cache,
            programs,
            manner,
        })
    }

    /// Boots a kernel, and shows tracer's screen there until the user ends it. Gives what the guest had to say about it.
    pub(crate) fn show(&self, qemu: &Qemu, programme: &Programme<'_>) -> (Result<()>, Vec<String>) {
        let mut notes = Vec::new();
        // Whatever is said meanwhile would go across the screen.
        let booted = self.boot(qemu, programme, &programme.scenarios, |message| {
            if let Message::ScreenFailed { text } = message {
                notes.push(text);
            }
        });
        (booted, notes)
    }

    /// Where downloads are kept.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Has the files of a kernel in the cache.
    pub(crate) fn kernel(&self, name: &KernelName) -> Result<Kernel> {
        let ipvs = match name.flavour {
            Flavour::Stock => Ipvs::Packaged,
            Flavour::Pre59 => Ipvs::Pre59,
        };
        Kernel::fetch(&self.cache, name.series.parse()?, self.manner.build, ipvs)
            .with_context(|| format!("cannot get the kernel {name}"))
    }

    /// Boots a kernel and plays its scenarios. Whatever goes wrong: each of them is in the answer. A scenario that
    /// takes the guest down with it has failed; those after it get another guest.
    pub(crate) fn play(
        &self,
        qemu: &Qemu,
        programme: &Programme<'_>,
        audience: &mut dyn Audience,
    ) -> Vec<Played> {
        let mut stage = Stage::new(programme, self.manner.clone());
        loop {
            let left = stage.left();
            if left.is_empty() {
                return stage.over;
            }
            let booted = self.boot(qemu, programme, &left, |message| stage.on(&message, audience));
            let why = match booted {
                Ok(()) => "the guest ended and left it out".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            stage.guest_is_gone(&left, &why, audience);
        }
    }

    fn boot(
        &self,
        qemu: &Qemu,
        programme: &Programme<'_>,
        scenarios: &[&Named],
        on_message: impl FnMut(Message),
    ) -> Result<()> {
        let runs = self.cache.root().join("runs");
        fs::create_dir_all(&runs).with_context(|| format!("cannot create {}", runs.display()))?;
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}-", programme.kernel.release))
            .tempdir_in(&runs)
            .with_context(|| format!("cannot create a folder in {}", runs.display()))?;
        let initramfs = folder.path().join("initramfs");
        let job = self.job(scenarios);
        let files: BTreeSet<PathBuf> = scenarios.iter().map(|named| named.file.clone()).collect();
        let files: Vec<PathBuf> = files.into_iter().collect();
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
            cpus: programme.cpus,
            initramfs: &initramfs,
            console: &folder.path().join("console"),
            screen: self.manner.screen.as_ref().map(|_| Path::new(screen::TERMINAL)),
            limits: if self.manner.screen.is_some() {
                screen::LIMITS
            } else {
                limits(scenarios)
            },
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

    fn job(&self, scenarios: &[&Named]) -> Job {
        Job {
            scenarios: scenarios.iter().map(|named| named.name.clone()).collect(),
            keep_path: self.manner.verbose,
            without_tracer: self.manner.without_tracer,
            demo: self.manner.demo,
            verbose: self.manner.verbose,
            recordings: self.manner.recordings.is_some(),
            screen: self.manner.screen.clone(),
            modules: Vec::new(),
        }
    }
}

/// The bytes that these hexadecimal digits stand for, up to the first that is none.
fn bytes(hex: &str) -> impl Iterator<Item = u8> {
    let pairs = hex.as_bytes().chunks_exact(2);
    pairs.map_while(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
}

/// The guest watches over each scenario itself, so these are for guests that cannot.
fn limits(scenarios: &[&Named]) -> Limits {
    let each = || scenarios.iter().map(|named| named.scenario.limit() + CLEAN_UP);
    Limits {
        ready: Duration::from_secs(90),
        silence: each().max().unwrap_or_default() + Duration::from_secs(30),
        total: Duration::from_mins(3) + each().sum::<Duration>(),
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
    recording: Vec<u8>,
    troubles: Vec<String>,
}

impl<'a> Act<'a> {
    fn new(named: &'a Named) -> Self {
        Self {
            named,
            began: Instant::now(),
            told: Vec::new(),
            traffic: Vec::new(),
            recording: Vec::new(),
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
            Message::Recording { hex } => act.recording.extend(bytes(hex)),
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
        if let Some(folder) = self
            .manner
            .recordings
            .as_ref()
            .filter(|_| !act.recording.is_empty())
        {
            let name = format!("{}-{}.trace", act.named.name, self.programme.name).replace(['/', ' '], "-");
            let kept =
                fs::create_dir_all(folder).and_then(|()| fs::write(folder.join(&name), &act.recording));
            if let Err(error) = kept {
                act.troubles
                    .push(format!("its recording {name} cannot be kept: {error}"));
            }
        }
        let has_matrix = scenario.expect.matrix && !(self.manner.without_tracer || self.manner.demo);
        let played = Played {
            matrix: has_matrix.then(|| Matrix::of(scenario, &act.told, &act.traffic)),
            kernel: self.programme.name.clone(),
            scenario: act.named.name.clone(),
            took: act.began.elapsed(),
            traffic: act.traffic,
            troubles: act.troubles,
        };
        audience.end(&played);
        self.over.push(played);
    }

    /// What is not over yet.
    fn left(&self) -> Vec<&'a Named> {
        let is_over = |named: &&Named| self.over.iter().any(|played| played.scenario == named.name);
        self.programme
            .scenarios
            .iter()
            .copied()
            .filter(|named| !is_over(named))
            .collect()
    }

    /// The guest that was to play `tried` is gone: what was being played has failed. If it has played none of them,
    /// another guest would not either, and all have.
    fn guest_is_gone(&mut self, tried: &[&'a Named], why: &str, audience: &mut dyn Audience) {
        if let Some(act) = &mut self.current {
            act.troubles.push(why.to_owned());
            self.close(audience);
        }
        if self.left().len() < tried.len() {
            return;
        }
        for named in tried {
            audience.begin(named);
            let mut act = Act::new(named);
            act.troubles.push(why.to_owned());
            self.current = Some(act);
            self.close(audience);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_lab::scenario::Scenario;

    struct Nobody;

    impl Audience for Nobody {
        fn begin(&mut self, _: &Named) {}
        fn message(&mut self, _: &Message) {}
        fn end(&mut self, _: &Played) {}
    }

    const SMALL: &str = r#"
title = "One connection"
story = "For these tests."
kernels = ["6.12"]
[topology]
clients = [{ name = "client-a", address = "10.0.0.2" }]
services = [{ name = "web", node_port = 30080 }]
[[steps]]
connect = { client = "client-a", source_port = 41000 }
[expect]
default = { fate = "refused" }
"#;

    fn named(name: &str) -> Named {
        Named {
            name: name.to_owned(),
            file: PathBuf::new(),
            scenario: Scenario::from_toml(SMALL).unwrap(),
        }
    }

    fn programme<'a>(scenarios: &[&'a Named]) -> Programme<'a> {
        Programme {
            name: "6.12".parse().unwrap(),
            kernel: Kernel {
                name: "6.12".to_owned(),
                release: "6.12.0".to_owned(),
                vmlinuz: PathBuf::new(),
                modules_dir: Path::new("").to_owned(),
                overrides: Vec::new(),
            },
            cpus: 1,
            scenarios: scenarios.to_vec(),
        }
    }

    fn begin(scenario: &str) -> Message {
        Message::Begin {
            scenario: scenario.to_owned(),
        }
    }

    #[test]
    fn what_takes_its_guest_down_is_named_and_the_rest_is_left_to_another_guest() {
        let all = [named("a"), named("b"), named("c")];
        let programme = programme(&[&all[0], &all[1], &all[2]]);
        let mut stage = Stage::new(&programme, Manner::default());
        let tried = stage.left();
        stage.on(&begin("a"), &mut Nobody);
        let why = Some("it took more than 120 s, in: step 1; and it could not be stopped".to_owned());
        let (scenario, ok) = ("a".to_owned(), false);
        stage.on(&Message::End { scenario, ok, why }, &mut Nobody);
        stage.on(&begin("b"), &mut Nobody);
        stage.guest_is_gone(&tried, "Kernel panic", &mut Nobody);

        let told: Vec<(&str, &str)> = stage
            .over
            .iter()
            .map(|played| (&*played.scenario, &*played.troubles[0]))
            .collect();
        assert_eq!(
            told,
            [
                (
                    "a",
                    "it could not be played: it took more than 120 s, in: step 1; and it could not be stopped"
                ),
                ("b", "Kernel panic"),
            ]
        );
        assert_eq!(stage.left(), [&all[2]]);
    }

    #[test]
    fn a_guest_that_plays_nothing_is_the_end_of_all_that_it_was_to_play() {
        let all = [named("a"), named("b")];
        let programme = programme(&[&all[0], &all[1]]);
        let mut stage = Stage::new(&programme, Manner::default());
        let tried = stage.left();
        stage.guest_is_gone(&tried, "it does not boot", &mut Nobody);
        assert_eq!(stage.left(), [] as [&Named; 0]);
        assert!(
            stage
                .over
                .iter()
                .all(|played| played.troubles == ["it does not boot"])
        );
    }
}
