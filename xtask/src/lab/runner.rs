//! Boots guests and runs their scenarios.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tracer_lab::packages::{self, Cache, Dependencies, Suite};
use tracer_lab::protocol::{CLEAN_UP, Job, Message};
use tracer_lab::scenario::{Flavour, KernelName, Named};
use tracer_lab::vm::initramfs::{self, Parts};
use tracer_lab::vm::kernels::{Build, Ipvs, Kernel};
use tracer_lab::vm::kubernetes::Kubernetes;
use tracer_lab::vm::qemu::Qemu;
use tracer_lab::vm::run::{Boot, Limits};

use super::observer::Observer;
use super::options::Options;
use super::plan::GuestPlan;
use super::result::ScenarioResult;
use super::session::Session;
use crate::priority::Priority;
use crate::static_build::{self, Programs};
use crate::system;

/// The user's terminal, where a guest shows tracer's screen.
const TERMINAL: &str = "/dev/tty";

/// Limits of a guest that shows tracer's screen: the user ends it.
const SCREEN_LIMITS: Limits = Limits {
    ready: Duration::from_secs(90),
    silence: Duration::from_hours(24),
    total: Duration::from_hours(24),
};

/// Everything that guests share: programs, packages and the cache.
#[derive(Debug)]
pub(crate) struct Lab {
    cache: Cache,
    tools: PathBuf,
    programs: Programs,
}

/// A guest that is ready to boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest<'a> {
    /// The QEMU that runs it.
    pub(crate) qemu: &'a Qemu,
    /// Its kernel's files.
    pub(crate) kernel: &'a Kernel,
    /// Its scenarios.
    pub(crate) plan: &'a GuestPlan<'a>,
}

impl Lab {
    /// Installs missing programs, builds tracer and the guest's init statically, and fetches the guest's tools.
    pub(crate) fn prepare(priority: Priority) -> Result<Self> {
        system::ensure_lab()?;
        let programs = static_build::build(priority)?;
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
        })
    }

    /// The folder for downloads.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The unpacked tree of the guest's tools.
    pub(crate) fn tools(&self) -> &Path {
        &self.tools
    }

    /// The programs of a guest.
    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Fetches a kernel into the cache, if it is not there yet.
    pub(crate) fn kernel(&self, name: &KernelName, build: Build) -> Result<Kernel> {
        let ipvs = match name.flavour {
            Flavour::Stock => Ipvs::Packaged,
            Flavour::Pre59 => Ipvs::Pre59,
        };
        Kernel::fetch(&self.cache, name.series.parse()?, build, ipvs)
            .with_context(|| format!("cannot get the kernel {name}"))
    }

    /// Builds or fetches the control plane that a plan needs, if it is not in the cache yet.
    pub(crate) fn control_plane(&self, plan: &GuestPlan<'_>) -> Result<Option<Kubernetes>> {
        let needed = plan.has_control_plane();
        needed.then(|| Kubernetes::fetch(&self.cache)).transpose()
    }

    /// Boots a guest and runs its scenarios. Each of them has a result, whatever fails. A scenario that crashes its guest
    /// has failed; the rest continue in a new guest.
    pub(crate) fn run(
        &self,
        guest: Guest<'_>,
        options: &Options,
        observer: &mut dyn Observer,
    ) -> Vec<ScenarioResult> {
        let mut session = Session::new(guest.plan, options);
        loop {
            let scenarios = session.next_boot();
            if scenarios.is_empty() {
                return session.into_results();
            }
            let booted = self.boot(guest, &scenarios, options, |message| {
                session.handle(&message, observer);
            });
            let reason = match booted {
                Ok(()) => "the guest ended without running it".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            session.guest_ended(&scenarios, &reason, observer);
        }
    }

    /// Boots a guest that shows tracer's screen until the user quits. Returns what the guest reported at its end.
    pub(crate) fn show_screen(&self, guest: Guest<'_>, options: &Options) -> (Result<()>, Vec<String>) {
        let mut notes = Vec::new();
        // Anything printed before the end would overwrite the screen.
        let booted = self.boot(guest, &guest.plan.scenarios, options, |message| {
            if let Message::ScreenFailed { text } = message {
                notes.push(text);
            }
        });
        (booted, notes)
    }

    fn boot(
        &self,
        guest: Guest<'_>,
        scenarios: &[&Named],
        options: &Options,
        on_message: impl FnMut(Message),
    ) -> Result<()> {
        let Guest { qemu, kernel, plan } = guest;
        let runs = self.cache.root().join("runs");
        fs::create_dir_all(&runs).with_context(|| format!("cannot create {}", runs.display()))?;
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}-", kernel.release))
            .tempdir_in(&runs)
            .with_context(|| format!("cannot create a folder in {}", runs.display()))?;
        let initramfs = folder.path().join("initramfs");
        let files: BTreeSet<PathBuf> = scenarios.iter().map(|named| named.file.clone()).collect();
        let files: Vec<PathBuf> = files.into_iter().collect();
        let kubernetes = self.control_plane(plan)?;
        let parts = Parts {
            cache: &self.cache.root().join("initramfs"),
            kernel,
            tools: &self.tools,
            init: &self.programs.guest,
            tracer: &self.programs.tracer,
            kubernetes: kubernetes.as_ref(),
            pwru: None,
            scenarios: &files,
            job: &job(scenarios, options),
        };
        initramfs::build(parts, &initramfs)?;

        let boot = Boot {
            qemu,
            kernel,
            machine: plan.machine(),
            initramfs: &initramfs,
            console: &folder.path().join("console"),
            screen: options.screen.as_ref().map(|_| Path::new(TERMINAL)),
            limits: if options.screen.is_some() {
                SCREEN_LIMITS
            } else {
                limits(scenarios)
            },
        };
        boot.run(on_message).inspect_err(|_| {
            let kept = folder.keep();
            eprintln!(
                "    Kept  {}: initramfs and console of {}",
                kept.display(),
                plan.kernel
            );
        })
    }
}

fn job(scenarios: &[&Named], options: &Options) -> Job {
    Job {
        scenarios: scenarios.iter().map(|named| named.name.clone()).collect(),
        keep_path: options.verbose,
        without_tracer: options.without_tracer,
        depth: options.depth.clone(),
        demo: options.demo,
        verbose: options.verbose,
        recordings: options.recordings.is_some(),
        screen: options.screen.clone(),
        bench: None,
        modules: Vec::new(),
    }
}

/// Limits for a guest that hangs. The guest itself watches the limit of each scenario.
fn limits(scenarios: &[&Named]) -> Limits {
    let each = || scenarios.iter().map(|named| named.scenario.limit() + CLEAN_UP);
    Limits {
        ready: Duration::from_secs(90),
        silence: each().max().unwrap_or_default() + Duration::from_secs(30),
        total: Duration::from_mins(3) + each().sum::<Duration>(),
    }
}
