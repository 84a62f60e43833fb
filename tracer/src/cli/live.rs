//! `tracer live`: trace now.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{args::LiveOptions, exit::Failure, hooks, signals::Signals, start};
use crate::{
    diagnose::{self, Diagnosis, cause::Cause},
    flow::{engine::Engine, fate::Fate, model::Flow},
    node::collect::Collector,
    probe::{
        attach::{Probe, Selection},
        decode,
        plan::State,
        ring::Ring,
    },
    report::{Clock, json, plain},
};

/// How often flows are asked for their fate.
const TICK: Duration = Duration::from_millis(50);
/// How often the loss counters are read.
const HEALTH: Duration = Duration::from_secs(1);

/// Attaches, traces until a signal comes, and detaches.
pub(super) fn run(options: &LiveOptions) -> Result<(), Failure> {
    let ready = start::prepare()?;
    start::tell_unknown(&ready.offsets);
    let selection = start::selection(&options.select);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async {
        // Before anything is attached, so that no signal finds us without a handler.
        let mut signals = Signals::listen().context("cannot handle signals")?;
        let (probe, ring) =
            Probe::attach(ready.plan, &ready.offsets, &selection).context("cannot attach tracer's hooks")?;
        let ring = Ring::new(ring).context("cannot watch the ring buffer")?;
        let collector = Collector::new(ready.symbols, ready.offsets.drop_reasons());
        let mut session = Session::new(options.clone(), probe, ring, collector)?;
        session.announce(&selection)?;
        session.trace(&mut signals).await
    })
}

/// One run of the tracer.
struct Session {
    options: LiveOptions,
    probe: Probe,
    ring: Ring,
    collector: Collector,
    engine: Engine,
    clock: Clock,
    totals: Totals,
}

/// What the `end` line tells.
#[derive(Default)]
struct Totals {
    events: u64,
    unreadable: u64,
    lost: u64,
    flows: u64,
    /// Flows of which no more is said.
    closed: Counts,
    /// What was last said about each of the others.
    open: BTreeMap<u64, (Fate, Option<Cause>)>,
}

/// Flows by fate and by cause.
#[derive(Clone, Default)]
struct Counts {
    by_fate: BTreeMap<Fate, u64>,
    by_cause: BTreeMap<Cause, u64>,
}

impl Counts {
    fn add(&mut self, fate: Fate, cause: Option<Cause>) {
        *self.by_fate.entry(fate).or_default() += 1;
        if let Some(cause) = cause {
            *self.by_cause.entry(cause).or_default() += 1;
        }
    }
}

/// The engine remembers no more flows: what was said about an older one stands.
const MOST_OPEN: usize = 200_000;

impl Totals {
    fn said(&mut self, flow: &Flow, fate: Fate, cause: Option<Cause>) {
        if self.open.remove(&flow.id).is_none() {
            self.flows += 1;
        }
        self.open.insert(flow.id, (fate, cause));
        if self.open.len() > MOST_OPEN
            && let Some((_, (fate, cause))) = self.open.pop_first()
        {
            self.closed.add(fate, cause);
        }
    }

    fn counts(&self) -> Counts {
        let mut counts = self.closed.clone();
        for (fate, cause) in self.open.values() {
            counts.add(*fate, *cause);
        }
        counts
    }
}

impl Session {
    fn new(options: LiveOptions, probe: Probe, ring: Ring, collector: Collector) -> Result<Self, Failure> {
        let clock = Clock::new(jiff::Timestamp::now(), monotonic_ns()?);
        let patience = u64::try_from(options.patience.as_nanos()).unwrap_or(u64::MAX);
        let engine = Engine::new(patience);
        Ok(Self {
            options,
            probe,
            ring,
            collector,
            engine,
            clock,
            totals: Totals::default(),
        })
    }

    /// Tells that every hook that will attach is attached.
    fn announce(&self, selection: &Selection) -> Result<(), Failure> {
        let (host, kernel) = start::names();
        let hooks = self.probe.hooks();
        let attached = hooks.iter().filter(|hook| hook.state.why().is_none()).count();
        if attached == 0 {
            let why = hooks
                .iter()
                .find_map(|hook| hook.state.why())
                .unwrap_or("there are none");
            return Err(Failure::Unsupported(format!("no hook could be attached: {why}")));
        }
        for hook in hooks {
            if let State::Disabled(why) = &hook.state {
                eprintln!("tracer: hook {} is off: {why}", hook.info.name);
            }
        }
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
        let mut health_due = Instant::now() + HEALTH;
        loop {
            tokio::select! {
                () = signals.first() => break,
                readable = self.ring.readable() => {
                    readable.context("cannot wait for the ring buffer")?;
                    self.drain();
                }
                _ = tick.tick() => {
                    // Everything that happened before this moment is in before flows are judged.
                    let now = monotonic_ns()?;
                    self.drain();
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
            ring, engine, totals, ..
        } = self;
        totals.events += ring.drain(|bytes| match decode::event(bytes) {
            Ok(event) => engine.push(event),
            Err(_) => totals.unreadable += 1,
        });
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
            let diagnosis = diagnose::diagnose(flow, fate, collector.facts());
            if !is_wanted(options, fate, &diagnosis) {
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

fn is_wanted(options: &LiveOptions, fate: Fate, diagnosis: &Diagnosis) -> bool {
    let select = &options.select;
    (select.fate.is_empty() || select.fate.contains(&fate))
        && (select.cause.is_empty() || diagnosis.cause.is_some_and(|cause| select.cause.contains(&cause)))
}

/// `CLOCK_MONOTONIC`, the clock of the kernel's records, in nanoseconds.
fn monotonic_ns() -> Result<u64, Failure> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the monotonic clock")?;
    let time = Duration::from(time);
    Ok(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
