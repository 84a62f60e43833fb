//! Flows as a packet capture: each packet as it was at each hook, one interface a hook, what was read there in comments.
//!
//! A flow is told of once its fate is known, its packets are older then, and others' stand between them. So packets wait
//! until flows that began at the same time have been told of as well, and are written in the order of their times. What
//! waits is bounded ([`MOST_WAITING`]): beyond that the oldest are written sooner, and those that come too late for their
//! place are counted.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
};

use tracer_common::hook::{ALL, Hook, HookInfo};

use super::{
    header,
    pcapng::{Section, Writer},
};
use crate::{
    decode::event::Event,
    diagnose::Diagnosis,
    facts::Facts,
    finding::{clock::Clock, head::Head, run::Health},
    flow::{
        engine::MOST_FLOWS,
        fate::Fate,
        model::{Flow, Step},
    },
    report::path::{self, PathStep},
};

/// Bytes of packets that wait, about.
const MOST_WAITING: usize = 64 << 20;
/// Bytes that a packet takes besides its comments, about.
const PACKET: usize = 256;
/// What one hook tells of one packet in several records, it tells within this time.
const AT_ONCE_NS: u64 = 1_000_000;
/// A flow that is not decided is told of this long after its last SYN, in times of the patience: its SYNs before that
/// came with pauses of which each was shorter than the patience, and each is twice the one before.
const PATIENCES: u64 = 3;
/// What is added for those that are decided.
const SETTLED_NS: u64 = 2_000_000_000;

/// A packet at a hook.
#[derive(Clone, Debug)]
struct Packet {
    hook: Hook,
    bytes: Vec<u8>,
    comments: Vec<String>,
}

impl Packet {
    fn weight(&self) -> usize {
        self.comments
            .iter()
            .fold(PACKET, |sum, comment| sum + comment.len())
    }
}

/// Where a packet stands among those that wait: its time, and a number.
type Place = (u64, u64);

/// What was already taken of a flow.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    steps: usize,
    /// The packet whose comment tells of the flow.
    first: Place,
}

/// See the module.
#[derive(Debug)]
pub struct Capture<W> {
    out: Writer<W>,
    clock: Option<Clock>,
    has_section: bool,
    /// Who recorded the run.
    host: String,
    wait_ns: u64,
    waiting: BTreeMap<Place, Packet>,
    /// What those weigh.
    weight: usize,
    packets: u64,
    newest_ns: u64,
    written_ns: u64,
    late: u64,
    flows: BTreeMap<u64, Taken>,
    interfaces: HashMap<Hook, u32>,
    lost: Health,
}

impl<W: Write> Capture<W> {
    /// Writes to `out`, which had better be buffered.
    pub fn new(out: W) -> Self {
        Self {
            out: Writer::new(out),
            clock: None,
            has_section: false,
            host: String::new(),
            wait_ns: 0,
            waiting: BTreeMap::new(),
            weight: 0,
            packets: 0,
            newest_ns: 0,
            written_ns: 0,
            late: 0,
            flows: BTreeMap::new(),
            interfaces: HashMap::new(),
            lost: Health::default(),
        }
    }

    /// Begins with the packets of another run. All runs share one section, as Wireshark 4.0 takes interfaces of a second one
    /// for those of the first; each run has interfaces of its own, which name its host.
    pub fn begin(&mut self, head: &Head) -> io::Result<()> {
        self.end()?;
        self.clock = Some(Clock::new(head.wall, head.monotonic_ns));
        self.wait_ns = head
            .patience_ns
            .saturating_mul(PATIENCES)
            .saturating_add(SETTLED_NS);
        self.newest_ns = 0;
        self.written_ns = 0;
        self.flows.clear();
        self.interfaces.clear();
        self.lost = Health::default();
        self.host = format!("{} (Linux {})", head.host, head.kernel);
        if self.has_section {
            return Ok(());
        }
        self.has_section = true;
        self.out.section(&Section {
            application: format!("tracer {}", env!("CARGO_PKG_VERSION")),
            os: format!("Linux {} {}", head.kernel, head.uname)
                .trim_end()
                .to_owned(),
            comment: format!(
                "Recorded by tracer {} on {}. {}",
                head.tracer,
                head.host,
                header::NOT_RECORDED
            ),
        })
    }

    /// Is this flow in the capture? What becomes of it later belongs there too.
    pub fn has(&self, flow: u64) -> bool {
        self.flows.contains_key(&flow)
    }

    /// Takes what is new of a flow that was told of.
    pub fn add(&mut self, flow: &Flow, fate: Fate, diagnosis: &Diagnosis, facts: &Facts) -> io::Result<()> {
        let taken = self.flows.get(&flow.id).copied().unwrap_or_default();
        let mut summary = Some(summary(flow, fate, diagnosis, facts));
        // Told again: the last word stands, if that packet still waits.
        if let Some(first) = self.waiting.get_mut(&taken.first)
            && let Some(comment) = first.comments.first_mut()
            && taken.steps > 0
            && let Some(summary) = summary.take()
        {
            self.weight = self.weight + summary.len() - comment.len();
            *comment = summary;
        }
        let mut first = taken.first;
        for (time_ns, mut packet) in packets(flow, facts, taken.steps) {
            let place = (time_ns, self.packets);
            if let Some(summary) = summary.take() {
                packet.comments.insert(0, summary);
                first = place;
            }
            self.packets += 1;
            self.newest_ns = self.newest_ns.max(time_ns);
            self.weight += packet.weight();
            self.waiting.insert(place, packet);
        }
        let steps = flow.steps.len();
        self.flows.insert(flow.id, Taken { steps, first });
        self.forget();
        self.write(self.newest_ns.saturating_sub(self.wait_ns), MOST_WAITING)
    }

    /// Records were lost.
    pub fn lost(&mut self, health: &Health) {
        self.lost = health.clone();
    }

    /// Writes what waits: the run is over.
    pub fn end(&mut self) -> io::Result<()> {
        self.write(u64::MAX, 0)?;
        if let Some(clock) = self.clock.take() {
            let time = nanos(&clock, self.newest_ns);
            for (name, lost) in std::mem::take(&mut self.lost).lost_by_hook {
                if let Some(info) = ALL.iter().find(|info| info.name == name) {
                    let interface = self.interface(info.hook)?;
                    self.out.dropped(interface, time, lost)?;
                }
            }
        }
        self.out.flush()
    }

    /// How many packets stand behind later ones.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Of so many flows as the engine knows at a time, the oldest are not told of again.
    fn forget(&mut self) {
        let newest = self.flows.last_key_value().map_or(0, |(&id, _)| id);
        let most = u64::try_from(MOST_FLOWS).unwrap_or(u64::MAX);
        while let Some(entry) = self.flows.first_entry()
            && newest - entry.key() > most
        {
            entry.remove();
        }
    }

    /// Writes what was seen before this time, and the oldest as long as more than `most` waits.
    fn write(&mut self, before_ns: u64, most: usize) -> io::Result<()> {
        let Some(clock) = self.clock else {
            return Ok(());
        };
        while let Some(entry) = self.waiting.first_entry()
            && (entry.key().0 < before_ns || self.weight > most)
        {
            let ((time_ns, _), packet) = entry.remove_entry();
            self.weight -= packet.weight();
            self.late += u64::from(time_ns < self.written_ns);
            self.written_ns = self.written_ns.max(time_ns);
            let interface = self.interface(packet.hook)?;
            let time = nanos(&clock, time_ns);
            self.out
                .packet(interface, time, &packet.bytes, &packet.comments)?;
        }
        Ok(())
    }

    fn interface(&mut self, hook: Hook) -> io::Result<u32> {
        if let Some(&number) = self.interfaces.get(&hook) {
            return Ok(number);
        }
        let describe = |info: &HookInfo| format!("{} on {}: {}", info.kind.name(), self.host, info.purpose);
        let info = ALL.iter().find(|info| info.hook == hook);
        let description = info.map(describe).unwrap_or_default();
        let number = self
            .out
            .interface(hook.name(), &description, u32::from(header::MOST))?;
        self.interfaces.insert(hook, number);
        Ok(number)
    }
}

/// Wall-clock nanoseconds since 1970.
fn nanos(clock: &Clock, monotonic_ns: u64) -> u64 {
    u64::try_from(clock.at(monotonic_ns).as_nanosecond()).unwrap_or_default()
}

/// The flow, what became of it and why.
fn summary(flow: &Flow, fate: Fate, diagnosis: &Diagnosis, facts: &Facts) -> String {
    let cause = diagnosis
        .cause
        .map_or_else(String::new, |cause| format!(", {cause}"));
    let service = facts
        .service(flow.netns, flow.node())
        .map_or_else(String::new, |service| format!(" ({service})"));
    let backend = flow
        .backend()
        .map_or_else(String::new, |backend| format!(" -> {backend}"));
    let left_out = match flow.steps_left_out {
        0 => String::new(),
        more => format!(" {more} more steps were not kept."),
    };
    format!(
        "flow {}: {fate}{cause}. {} -> {}{service}{backend}. {}{left_out}",
        flow.id,
        flow.client(),
        flow.node(),
        diagnosis.explanation
    )
}

/// What the hooks saw of a flow from this step on, and when.
fn packets(flow: &Flow, facts: &Facts, from: usize) -> Vec<(u64, Packet)> {
    let mut packets: Vec<(u64, Packet)> = Vec::new();
    let mut before: Option<&Step> = None;
    for (index, line) in path::numbered(flow, facts) {
        let Some(step) = flow.steps.get(index).filter(|_| index >= from) else {
            continue;
        };
        let comment = comment(&line);
        match packets.last_mut() {
            Some((_, packet)) if before.is_some_and(|before| is_same(before, step)) => {
                // What it is stands last.
                let at = packet.comments.len().saturating_sub(1);
                packet.comments.insert(at, comment);
            }
            _ => packets.push((
                step.event.time_ns,
                Packet {
                    hook: function(&step.event),
                    bytes: header::of(&step.event),
                    comments: vec![comment, place(flow, step, &line)],
                },
            )),
        }
        before = Some(step);
    }
    packets
}

/// Do both tell of one packet in one call of a hook?
fn is_same(before: &Step, step: &Step) -> bool {
    let of = |step: &Step| {
        let event = &step.event;
        (
            (event.hook, event.call, event.skb, step.attempt),
            (event.tuple, event.seq, event.ack, event.flags),
            (event.netns, event.ifindex),
        )
    };
    of(before) == of(step) && step.event.time_ns.saturating_sub(before.event.time_ns) <= AT_ONCE_NS
}

/// The hook whose function it was.
fn function(event: &Event) -> Hook {
    if event.tuple.is_v6() {
        event.hook.for_ipv6()
    } else {
        event.hook
    }
}

/// What happened to the packet. Where it was discarded, or a function decided that it be, that begins with `DROP`.
fn comment(line: &PathStep) -> String {
    let verdict = line.verdict.as_deref();
    let drop = if line.is_drop { "DROP " } else { "" };
    let verdict = verdict.map_or_else(String::new, |verdict| format!("{verdict}: "));
    format!("{drop}{verdict}{}", line.note)
}

/// Of which flow it is, and where it was.
fn place(flow: &Flow, step: &Step, line: &PathStep) -> String {
    let device = line
        .dev
        .as_deref()
        .map_or_else(String::new, |device| format!(", {device}"));
    let netns = line
        .netns
        .map_or_else(String::new, |netns| format!(", netns {netns}"));
    let made = match step.event.skb {
        0 => ", made from what the function was given: there was no packet",
        _ => "",
    };
    format!("flow {}, SYN {}{device}{netns}{made}", flow.id, step.attempt + 1)
}
