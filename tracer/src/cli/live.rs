//! `tracer live`: trace now.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracer_common::hook::{Hook, When};

use super::{
    args::LiveOptions,
    exit::Failure,
    hooks,
    signals::Signals,
    start::{self, Unreadable},
    totals::{Counts, Totals},
};
use crate::{
    diagnose::{self, Diagnosis},
    flow::{engine::Engine, fate::Fate, model::Flow},
    node::collect::Collector,
    probe::{
        attach::{Probe, Selection},
        decode,
        demand::Demand,
        late::{Found, Late},
        plan::{Planned, State},
        ring::Ring,
    },
    report::{Clock, json, plain},
};

/// How often flows are asked for their fate.
const TICK: Duration = Duration::from_millis(50);
/// How often the loss counters are read.
const HEALTH: Duration = Duration::from_secs(1);
/// How often modules are looked for that came or went.
const MODULES: Duration = Duration::from_millis(100);

/// Attaches, traces until a signal comes, and detaches.
pub(super) fn run(options: &LiveOptions) -> Result<(), Failure> {
    let start::Ready { survey, late } = start::prepare()?;
    let mut unreadable = Unreadable::default();
    unreadable.tell(&survey.offsets);
    let selection = start::selection(&options.select);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async {
        // Before anything is attached, so that no signal finds us without a handler.
        let mut signals = Signals::listen().context("cannot handle signals")?;
        let plan = survey.plan();
        let mut collector = Collector::new(survey.symbols, survey.offsets.drop_reasons());
        let (probe, ring) =
            Probe::attach(plan, survey.offsets, &selection).context("cannot attach tracer's hooks")?;
        collector.set_absent(absent(probe.hooks()));
        let ring = Ring::new(ring).context("cannot watch the ring buffer")?;
        let mut session = Session {
            options: options.clone(),
            told: probe.hooks().to_vec(),
            probe,
            ring,
            late,
            unreadable,
            demand: Demand::default(),
            collector,
            engine: Engine::new(u64::try_from(options.patience.as_nanos()).unwrap_or(u64::MAX)),
            clock: Clock::new(jiff::Timestamp::now(), monotonic_ns()?),
            totals: Totals::default(),
        };
        session.announce(&selection)?;
        session.trace(&mut signals).await
    })
}

/// One run of the tracer.
struct Session {
    options: LiveOptions,
    probe: Probe,
    ring: Ring,
    late: Late,
    unreadable: Unreadable,
    demand: Demand,
    collector: Collector,
    engine: Engine,
    clock: Clock,
    totals: Totals,
    /// The hooks as they were last told of.
    told: Vec<Planned>,
}

impl Session {
    /// Tells that every hook that will attach is attached.
    fn announce(&self, selection: &Selection) -> Result<(), Failure> {
        let (host, kernel) = start::names();
        let hooks = self.probe.hooks();
        let attached = count_attached(hooks);
        if attached == 0 {
            let why = hooks
                .iter()
                .find_map(|hook| hook.state.why())
                .unwrap_or("there are none");
            return Err(Failure::Unsupported(format!("no hook could be attached: {why}")));
        }
        tell_disabled(hooks);
        let mut out = io::stdout().lock();
        if self.options.json {
            let hooks = hooks::lines(hooks);
            let time = jiff::Timestamp::now();
            writeln!(
                out,
                "{}",
                json::start(&host, &kernel, time, &selection.ports, &hooks)
            )?;
        } else {
            writeln!(
                out,
                "tracing on {host}, kernel {kernel}: {attached} hooks attached, ports followed: {}; Ctrl-C ends",
                selection.ports.len()
            )?;
        }
        Ok(out.flush()?)
    }

    async fn trace(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut modules = interval(MODULES);
        modules.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut health_due = Instant::now() + HEALTH;
        loop {
            tokio::select! {
                () = signals.first() => break,
                readable = self.ring.readable() => {
                    readable.context("cannot wait for the ring buffer")?;
                    self.drain();
                    self.meet_demand()?;
                }
                _ = modules.tick() => self.look_for_modules()?,
                found = self.late.found() => match found {
                    Ok(found) => self.follow(found)?,
                    // The next module that comes or goes is another chance; what is attached stays so.
                    Err(error) => eprintln!("tracer: {:#}", anyhow::Error::from(error)),
                },
                _ = tick.tick() => {
                    // Everything that happened before this moment is in before flows are judged.
                    let now = monotonic_ns()?;
                    self.drain();
                    self.meet_demand()?;
                    self.probe.print_log();
                    if Instant::now() >= health_due {
                        health_due = Instant::now() + HEALTH;
                        self.health()?;
                    }
                    self.tell(|engine, say| engine.poll(now, say))?;
                }
            }
        }
        self.finish()
    }

    fn drain(&mut self) {
        let Self {
            ring,
            engine,
            totals,
            late,
            demand,
            collector,
            ..
        } = self;
        totals.events += ring.drain(|bytes| match decode::event(bytes) {
            Ok(event) if late.rehearsal().has(event.netns, event.time_ns) => {}
            Ok(event) => {
                demand.see(&event, collector.symbols());
                collector.see(&event);
                engine.push(event);
            }
            Err(_) => totals.unreadable += 1,
        });
        engine.take_unasked(|flow| collector.look_where_rules_lead(flow));
        collector.look_for_rules();
    }

    /// Attaches the hooks that are wanted since something was seen, and detaches those that are wanted no more.
    fn meet_demand(&mut self) -> Result<(), Failure> {
        let is_wanted = self.demand.wants(When::AfterRuleDrop, monotonic_ns()?);
        if !self.probe.want(When::AfterRuleDrop, is_wanted) {
            return Ok(());
        }
        self.tell_hooks(if is_wanted {
            "a rule may have discarded a packet"
        } else {
            "no rule has discarded a packet for a while"
        })
    }

    /// Lets go of the hooks of modules that went.
    fn look_for_modules(&mut self) -> Result<(), Failure> {
        for module in self.late.look() {
            self.probe.lose(module).context("cannot let go of a module")?;
            self.tell_hooks(&format!("module {module} was unloaded"))?;
        }
        Ok(())
    }

    /// Attaches the hooks of modules that came.
    fn follow(&mut self, found: Found) -> Result<(), Failure> {
        let Found {
            survey,
            came,
            is_complete,
        } = found;
        let plan = survey.plan();
        if is_complete {
            self.unreadable.tell(&survey.offsets);
        }
        self.collector.set_symbols(survey.symbols);
        self.probe
            .follow(&plan, survey.offsets)
            .context("cannot take over what is new in the kernel")?;
        match came.as_slice() {
            [] => Ok(()),
            _ if !is_complete => Ok(()),
            [module] => self.tell_hooks(&format!("module {module} was loaded")),
            modules => self.tell_hooks(&format!("modules {} were loaded", modules.join(", "))),
        }
    }

    /// Tells of hooks whose state is another than was told before, and why.
    fn tell_hooks(&mut self, why: &str) -> Result<(), Failure> {
        let hooks = self.probe.hooks();
        let changed: Vec<Planned> = hooks
            .iter()
            .zip(&self.told)
            .filter(|(now, told)| now.state != told.state)
            .map(|(now, _)| now.clone())
            .collect();
        tell_disabled(&changed);
        let attached = count_attached(hooks);
        self.collector.set_absent(absent(hooks));
        self.told = hooks.to_vec();
        let mut out = io::stdout().lock();
        if self.options.json {
            eprintln!("tracer: {why}: {attached} hooks attached");
            let lines = hooks::lines(&changed);
            writeln!(out, "{}", json::hooks(jiff::Timestamp::now(), why, &lines))?;
        } else {
            writeln!(out, "{why}: {attached} hooks attached")?;
        }
        Ok(out.flush()?)
    }

    /// Prints the flows that the engine hands out.
    fn tell(&mut self, ask: impl FnOnce(&mut Engine, &mut dyn FnMut(&Flow, Fate))) -> Result<(), Failure> {
        let Self {
            options,
            collector,
            engine,
            clock,
            totals,
            ..
        } = self;
        let mut out = io::stdout().lock();
        let mut done = Ok(());
        ask(engine, &mut |flow, fate| {
            if fate != Fate::Established {
                collector.look(flow);
            }
            collector.name(flow);
            let diagnosis = diagnose::diagnose(flow, fate, collector.facts());
            let service = collector.facts().service(flow);
            if !is_wanted(options, fate, &diagnosis, service) {
                return;
            }
            totals.said(flow, fate, diagnosis.cause);
            let line = if options.json {
                json::flow(flow, fate, &diagnosis, collector.facts(), clock)
            } else {
                plain::flow(flow, fate, &diagnosis, collector.facts(), clock, options.verbose)
            };
            if done.is_ok() {
                done = writeln!(out, "{line}");
            }
        });
        done?;
        Ok(out.flush()?)
    }

    /// Tells about lost records, if there are more than before.
    fn health(&mut self) -> Result<(), Failure> {
        let by_hook = self.probe.lost().context("cannot read the loss counters")?;
        let lost = by_hook.values().sum();
        if lost <= self.totals.lost {
            return Ok(());
        }
        self.totals.lost = lost;
        self.collector.lost(monotonic_ns()?);
        let mut out = io::stdout().lock();
        if self.options.json {
            writeln!(
                out,
                "{}",
                json::health(jiff::Timestamp::now(), self.totals.events, lost, &by_hook)
            )?;
        } else {
            writeln!(
                out,
                "{lost} records were lost so far: fates may be wrong; follow fewer ports or clients"
            )?;
        }
        Ok(out.flush()?)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.drain();
        self.health()?;
        let now = monotonic_ns()?;
        self.tell(|engine, say| engine.finish(now, say))?;
        let Counts { by_fate, by_cause } = self.totals.counts();
        let Totals {
            events,
            lost,
            unreadable,
            flows,
            ..
        } = &self.totals;
        let mut out = io::stdout().lock();
        if self.options.json {
            writeln!(out, "{}", json::end(*flows, *events, *lost, &by_fate, &by_cause))?;
        } else {
            let fates: Vec<String> = by_fate
                .iter()
                .map(|(fate, count)| format!("{count} {fate}"))
                .collect();
            writeln!(
                out,
                "{flows} flows: {}; {events} records, {lost} lost",
                fates.join(", ")
            )?;
        }
        out.flush()?;
        if *unreadable != 0 {
            return Err(Failure::Failed(anyhow::anyhow!(
                "{unreadable} records could not be decoded: the BPF object and the program do not fit together"
            )));
        }
        match self.options.fail_on {
            Some(fate) if by_fate.contains_key(&fate) => Err(Failure::FailOn(fate.name())),
            _ => Ok(()),
        }
    }
}

fn count_attached(hooks: &[Planned]) -> usize {
    hooks.iter().filter(|hook| hook.state == State::Attached).count()
}

fn tell_disabled(hooks: &[Planned]) {
    for hook in hooks {
        if let State::Disabled(why) = &hook.state {
            eprintln!("tracer: hook {} is off: {why}", hook.info.name);
        }
    }
}

/// The hooks of which nothing will be seen, wanted or not.
fn absent(hooks: &[Planned]) -> impl Iterator<Item = Hook> {
    hooks
        .iter()
        .filter(|hook| matches!(hook.state, State::Missing(_) | State::Disabled(_)))
        .map(|hook| hook.info.hook)
}

fn is_wanted(options: &LiveOptions, fate: Fate, diagnosis: &Diagnosis, service: Option<&str>) -> bool {
    let select = &options.select;
    (select.fate.is_empty() || select.fate.contains(&fate))
        && (select.cause.is_empty() || diagnosis.cause.is_some_and(|cause| select.cause.contains(&cause)))
        && (select.service.is_empty()
            || select
                .service
                .iter()
                .any(|wanted| Some(wanted.0.as_str()) == service))
}

/// `CLOCK_MONOTONIC`, the clock of the kernel's records, in nanoseconds.
fn monotonic_ns() -> Result<u64, Failure> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the monotonic clock")?;
    let time = Duration::from(time);
    Ok(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
