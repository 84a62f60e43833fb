//! A live run: from the kernel's records to the observer, and into a recording.

mod depth;
mod head;
mod health;
mod hooks;
mod node;
mod settings;

use std::{io, path::PathBuf, time::Duration};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval},
};
use tracer_common::{hook::When, record::HeaderVersion};

pub use self::settings::Settings;
use self::{
    hooks::{absent, count_attached, print_disabled},
    node::Node,
};
use super::{
    diagnosis,
    error::PipelineError,
    preflight::{self, Unreadable},
    signals::Signals,
};
use crate::{
    confine::{self, denied},
    decode::record,
    diagnose::words,
    finding::{
        Clock, Observer, depth::Depth, head::Head, observer::Progress, run::Hooks, selection::Selection,
        sink::RecordSink,
    },
    flow::{engine::Engine, fate::Fate, model::Flow},
    node::{collect::Collector, host::Host, state},
    probe::{
        attach::Probe,
        demand::Demand,
        kernel_watch::{KernelUpdate, KernelWatch},
        plan::{self, Planned},
        ring::Ring,
    },
    report::escape::note,
};

/// The interval at which flows are judged.
const TICK: Duration = Duration::from_millis(50);
/// The interval at which the loss counters are read.
const HEALTH: Duration = Duration::from_secs(1);
/// The interval of checks for modules that were loaded or unloaded.
const MODULES: Duration = Duration::from_millis(100);

/// Attaches, traces until a signal arrives or the observer is done, and detaches. `on_second_signal` is called before a
/// second signal ends the process.
///
/// Once everything is attached, the process gives up what it does not need any more. Files may still be created, renamed and
/// removed in `folders`.
pub fn run(
    selection: &Selection,
    settings: &Settings,
    observer: &mut dyn Observer,
    sink: Option<Box<dyn RecordSink>>,
    folders: &[PathBuf],
    on_second_signal: fn(),
) -> Result<(), PipelineError> {
    let &Settings {
        patience,
        limits,
        depth,
        deep_for,
    } = settings;
    let preflight::Ready { kernel, module_watch } = preflight::prepare()?;
    let mut unreadable = Unreadable::default();
    unreadable.count(&kernel.offsets);
    let kernel_selection = preflight::selection(selection, limits.flows);
    let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        // Before anything is attached, so that every signal finds a handler.
        let mut signals = Signals::listen(on_second_signal).context("cannot handle signals")?;
        let write_out = signal(SignalKind::user_defined1()).context("cannot handle signals")?;
        let plan = plan::begin_at(kernel.plan(), depth == Depth::Full);
        let mut collector = Collector::new(kernel.symbols, kernel.offsets.drop_reasons());
        let offsets = head::offsets(&kernel.offsets);
        let (mut probe, ring) =
            Probe::attach(plan, kernel.offsets, &kernel_selection).map_err(preflight::cannot_attach)?;
        if depth == Depth::Auto {
            probe.preload(When::OnSuspicion);
        }
        collector.set_absent(absent(probe.hooks()));
        if depth != Depth::Full {
            collector.set_watched(false, 0);
        }
        // For the hazards of the node, which only readers of recordings look for.
        if sink.is_some()
            && let Ok(node) = state::read_once(&Host::this())
        {
            collector.set_node(node);
        }
        let ring = Ring::new(ring).context("cannot watch the ring buffer")?;
        let confined = confine::tracing::begin(folders);
        for why in &confined.missing {
            note(why);
        }
        let head = Head {
            patience_ns,
            limits,
            depth: Some(depth),
            sandbox: Some(confined.sandbox),
            hooks: plan::states(probe.hooks()),
            offsets,
            ..head::of(&kernel_selection, collector.facts(), monotonic_ns()?)
        };
        let clock = Clock::new(head.wall, head.monotonic_ns);
        let mut engine = Engine::new(patience_ns, limits);
        if depth == Depth::Auto {
            engine.keep_suspicions();
        }
        let mut session = Session {
            reported: probe.hooks().to_vec(),
            probe,
            ring,
            module_watch,
            unreadable,
            demand: Demand::new(depth, deep_for),
            collector,
            recorder: sink,
            write_out,
            observer,
            engine,
            clock,
            events: 0,
            received: 0,
            unreadable_records: 0,
            lost: 0,
            evicted: 0,
        };
        session.announce(&head)?;
        if let Some(recorder) = &mut session.recorder {
            recorder.begin(head).map_err(cannot_record)?;
        }
        session.trace(&mut signals).await
    })
}

/// The error for a recording that cannot be written. The reader of a pipe may have closed it.
fn cannot_record(error: io::Error) -> PipelineError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return PipelineError::Output(error);
    }
    let error = anyhow::Error::from(error);
    PipelineError::Failed(error.context("cannot continue recording"))
}

/// The state of a live run.
struct Session<'a> {
    observer: &'a mut dyn Observer,
    probe: Probe,
    ring: Ring,
    module_watch: KernelWatch,
    unreadable: Unreadable,
    demand: Demand,
    collector: Collector,
    recorder: Option<Box<dyn RecordSink>>,
    /// SIGUSR1: print the state of the run, and write what is recorded only in memory.
    write_out: Signal,
    engine: Engine,
    clock: Clock,
    /// Records so far, those of them that could not be decoded, and those that were lost.
    events: u64,
    /// Packets among them that arrived from a device.
    received: u64,
    unreadable_records: u64,
    lost: u64,
    /// Evicted flows reported so far.
    evicted: u64,
    /// The hooks as they were last reported.
    reported: Vec<Planned>,
}

impl Session<'_> {
    /// Reports that every hook that will attach is attached.
    fn announce(&mut self, head: &Head) -> Result<(), PipelineError> {
        let hooks = self.probe.hooks();
        if head.attached() == 0 {
            let why = hooks
                .iter()
                .find_map(|hook| hook.state.why())
                .unwrap_or("the hook table is empty");
            return Err(PipelineError::Unsupported(format!(
                "cannot attach any hook: {why}; `tracer hooks` lists the reason for each"
            )));
        }
        print_disabled(hooks);
        Ok(self.observer.start(head)?)
    }

    async fn trace(&mut self, signals: &mut Signals) -> Result<(), PipelineError> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut modules = interval(MODULES);
        modules.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut health_due = Instant::now() + HEALTH;
        loop {
            tokio::select! {
                () = signals.first() => break,
                _ = self.write_out.recv() => self.write_out(),
                readable = self.ring.readable() => {
                    readable.context("cannot wait for the ring buffer")?;
                    self.drain();
                    self.meet_demand()?;
                }
                _ = modules.tick() => self.look_for_modules()?,
                found = self.module_watch.update() => match found {
                    Ok(found) => self.follow(found)?,
                    // Retried at the next module load or unload. What is attached stays attached.
                    Err(error) => note(format_args!("{:#}", anyhow::Error::from(error))),
                },
                _ = tick.tick() => {
                    // Flows are judged only after all records up to this moment are in.
                    let now = monotonic_ns()?;
                    self.drain();
                    let engine = &self.engine;
                    self.probe.flow_table().tick(|| engine.followed(now));
                    self.meet_demand()?;
                    self.probe.print_log();
                    if Instant::now() >= health_due {
                        health_due = Instant::now() + HEALTH;
                        denied::take().iter().for_each(note);
                        self.health()?;
                        self.progress();
                        if let Some(costs) = self.probe.costs(self.observer.wants_costs()) {
                            self.observer.costs(costs);
                        }
                    }
                    self.record_facts();
                    self.engine.set_gaps(&self.collector.facts().gaps);
                    if let Some(recorder) = &mut self.recorder {
                        recorder.tick(now, !self.engine.is_due(now), self.engine.next_id());
                    }
                    let _ = self.observer.now(now)?;
                    let facts = self.collector.facts();
                    diagnosis::report_pending(&mut self.engine, now, facts, &self.clock, self.observer)?;
                    self.report(|engine, hand_out| engine.poll(now, hand_out))?;
                    if self.observer.is_done() {
                        break;
                    }
                }
            }
            if let Some(recorder) = &mut self.recorder {
                recorder.check().map_err(cannot_record)?;
            }
        }
        self.finish()
    }

    fn drain(&mut self) {
        let Self {
            ring,
            engine,
            events,
            received,
            unreadable_records,
            demand,
            collector,
            recorder,
            ..
        } = self;
        *events += ring.drain(|bytes| {
            if let Some(recorder) = recorder {
                recorder.record(bytes);
            }
            match record::event(HeaderVersion::CURRENT, bytes) {
                Ok(event) => {
                    *received += u64::from(health::is_received(&event));
                    demand.observe(&event, collector.symbols());
                    collector.observe(&event);
                    engine.push(event);
                }
                Err(_) => *unreadable_records += 1,
            }
            if let Some(recorder) = recorder {
                recorder.relieve(engine.next_id());
            }
        });
        engine.take_bypassing_rules(|flow| collector.check_backend_of_old_entry(flow));
        collector.read_routes();
        collector.read_rules_hit();
        collector.read_ipvs_settings();
    }

    /// Records what was learned about the node since the last call.
    fn record_facts(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            let changed = self.collector.take_changed();
            recorder.facts(None, self.collector.facts(), &changed);
        }
    }

    /// Prints the state of the run, and writes what is recorded only in memory.
    fn write_out(&mut self) {
        note(format_args!(
            "{} attached, {}, {} lost",
            words::count(count_attached(self.probe.hooks()), "hook"),
            words::count(self.events, "record"),
            self.lost
        ));
        let Some(recorder) = &mut self.recorder else {
            return;
        };
        match recorder.write_out(self.engine.next_id()) {
            Ok(None) => {}
            Ok(Some(path)) => note(format_args!("wrote {path}")),
            // Everything is still in memory.
            Err(error) => note(format_args!(
                "cannot write the recording: {error}; still recording"
            )),
        }
    }

    fn progress(&mut self) {
        self.observer.progress(Progress {
            events: self.events,
            bytes: self.recorder.as_ref().map_or(0, |recorder| recorder.bytes()),
        });
    }

    /// Attaches on-demand hooks that are wanted now, and detaches those that are no longer wanted.
    fn meet_demand(&mut self) -> Result<(), PipelineError> {
        self.change_depth()?;
        let is_wanted = self.demand.wants(When::AfterRuleDrop, monotonic_ns()?);
        if !self.probe.set_wanted(When::AfterRuleDrop, is_wanted) {
            return Ok(());
        }
        self.report_hooks(if is_wanted {
            "a firewall rule may have dropped a packet; attaching more hooks to find it"
        } else {
            "no firewall rule has dropped a packet for a while; detaching the extra hooks"
        })
    }

    /// Detaches the hooks of modules that were unloaded.
    fn look_for_modules(&mut self) -> Result<(), PipelineError> {
        for module in self.module_watch.poll_modules() {
            self.probe
                .module_unloaded(module)
                .context("cannot detach from a module")?;
            self.report_hooks(&format!("module {module} was unloaded"))?;
        }
        Ok(())
    }

    /// Attaches the hooks of modules that were loaded.
    fn follow(&mut self, found: KernelUpdate) -> Result<(), PipelineError> {
        let KernelUpdate {
            kernel,
            loaded,
            is_complete,
        } = found;
        let is_full = self.demand.wants(When::OnSuspicion, monotonic_ns()?);
        let plan = plan::begin_at(kernel.plan(), is_full);
        if is_complete {
            self.unreadable.count(&kernel.offsets);
        }
        self.collector.set_symbols(kernel.symbols);
        self.probe
            .change_plan(&plan, kernel.offsets)
            .context("cannot attach to a newly loaded module")?;
        match loaded.as_slice() {
            [] => Ok(()),
            _ if !is_complete => Ok(()),
            [module] => self.report_hooks(&format!("module {module} was loaded")),
            modules => self.report_hooks(&format!("modules {} were loaded", modules.join(", "))),
        }
    }

    /// Reports the hooks whose state changed, and why.
    fn report_hooks(&mut self, why: &str) -> Result<(), PipelineError> {
        let hooks = self.probe.hooks();
        let changed: Vec<Planned> = hooks
            .iter()
            .zip(&self.reported)
            .filter(|(now, reported)| now.state != reported.state)
            .map(|(now, _)| now.clone())
            .collect();
        print_disabled(&changed);
        self.collector.set_absent(absent(hooks));
        self.reported = hooks.to_vec();
        let hooks = Hooks {
            time: jiff::Timestamp::now(),
            why: why.to_owned(),
            attached: count_attached(hooks),
            depth: Some(if self.demand.wants(When::OnSuspicion, monotonic_ns()?) {
                Depth::Full
            } else {
                Depth::Light
            }),
            hooks: plan::states(&changed),
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.hooks(&hooks);
        }
        Ok(self.observer.hooks(&hooks)?)
    }

    /// Reports the flows that the engine hands out.
    fn report(
        &mut self,
        take: impl FnOnce(&mut Engine, &mut dyn FnMut(&Flow, Fate)),
    ) -> Result<(), PipelineError> {
        let Self {
            collector,
            recorder,
            engine,
            clock,
            observer,
            ..
        } = self;
        let mut node = Node {
            collector,
            recorder: recorder.as_deref_mut(),
            reported: 0,
        };
        Ok(diagnosis::report(
            |hand_out| take(engine, hand_out),
            &mut node,
            clock,
            *observer,
        )?)
    }

    /// Reports lost records and evicted flows, if there are more than before.
    fn health(&mut self) -> Result<(), PipelineError> {
        let mut health = health::read(&self.probe, &self.engine, self.events, self.received)?;
        let (lost, evicted) = (health.lost(), health.evicted.total());
        if lost <= self.lost && evicted <= self.evicted {
            return Ok(());
        }
        // Takes some milliseconds.
        health.missed = health::missed(&self.probe);
        if lost > self.lost {
            self.lost = lost;
            self.collector.records_lost(monotonic_ns()?);
        }
        self.evicted = evicted;
        if let Some(recorder) = &mut self.recorder {
            recorder.health(&health);
        }
        Ok(self.observer.health(&health)?)
    }

    fn finish(&mut self) -> Result<(), PipelineError> {
        self.drain();
        self.health()?;
        self.record_facts();
        self.engine.set_gaps(&self.collector.facts().gaps);
        let mut counters = health::read(&self.probe, &self.engine, self.events, self.received)?;
        counters.missed = health::missed(&self.probe);
        let end = health::end(monotonic_ns()?, counters);
        if let Some(recorder) = &mut self.recorder {
            recorder.end(&end);
        }
        self.report(|engine, hand_out| engine.finish(end.now_ns, hand_out))?;
        if let Some(mut recorder) = self.recorder.take() {
            let finished = recorder.finish(self.engine.next_id());
            finished.map_err(cannot_record)?;
        }
        self.observer.end(&end)?;
        match self.unreadable_records {
            0 => Ok(()),
            unreadable => Err(PipelineError::Failed(anyhow::anyhow!(
                "cannot decode {}: the BPF object does not match this program; unset TRACER_BPF_OBJECT, or rebuild both",
                words::count(unreadable, "record")
            ))),
        }
    }
}

/// `CLOCK_MONOTONIC`, the clock of the kernel's records, in nanoseconds.
fn monotonic_ns() -> Result<u64, PipelineError> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the monotonic clock")?;
    let time = Duration::from(time);
    Ok(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
