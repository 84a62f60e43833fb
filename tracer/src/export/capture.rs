//! Flows as a packet capture: each packet as it was at each hook, one interface per hook, with what was read there in
//! comments.
//!
//! A flow is reported once its fate is known. By then its packets are old, and packets of other flows belong between
//! them. So packets are held until flows that started at the same time have been reported too, and are written in time
//! order. At most [`MOST_HELD`] bytes are held: beyond that the oldest packets are written early, and packets that arrive
//! too late for their place are counted.

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
    diagnose::words,
    facts::Facts,
    finding::{Finding, clock::Clock, head::Head, run::Health},
    flow::{
        engine::Limits,
        model::{Flow, Step},
    },
    report::path::{self, PathStep},
};

/// The most bytes of packets held, approximately.
const MOST_HELD: usize = 64 << 20;
/// Bytes of a packet besides its comments, approximately.
const PACKET: usize = 256;
/// Records of one hook about one packet are at most this far apart.
const SAME_CALL_NS: u64 = 1_000_000;
/// A flow that is not decided is reported at most this many times the patience after its first SYN: the gaps between its
/// SYNs are shorter than the patience, and each is twice the one before.
const PATIENCES: u64 = 3;
/// Added for flows that are decided.
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

/// The order of the packets held: time, and a serial number.
type Position = (u64, u64);

/// The part of a flow that is in the capture.
#[derive(Clone, Copy, Debug, Default)]
struct Exported {
    steps: usize,
    /// The packet with the comment about the flow.
    first: Position,
}

/// Writes flows as a pcapng capture.
#[derive(Debug)]
pub struct Capture<W> {
    out: Writer<W>,
    clock: Option<Clock>,
    has_section: bool,
    /// The host and its kernel.
    host: String,
    hold_ns: u64,
    held: BTreeMap<Position, Packet>,
    /// Bytes of the packets held.
    weight: usize,
    packets: u64,
    newest_ns: u64,
    written_ns: u64,
    out_of_order: u64,
    flows: BTreeMap<u64, Exported>,
    /// The most flows remembered; the oldest are forgotten first.
    most_flows: usize,
    interfaces: HashMap<Hook, u32>,
    lost: Health,
}

impl<W: Write> Capture<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W) -> Self {
        Self {
            out: Writer::new(out),
            clock: None,
            has_section: false,
            host: String::new(),
            hold_ns: 0,
            held: BTreeMap::new(),
            weight: 0,
            packets: 0,
            newest_ns: 0,
            written_ns: 0,
            out_of_order: 0,
            flows: BTreeMap::new(),
            most_flows: 2 * Limits::default().flows,
            interfaces: HashMap::new(),
            lost: Health::default(),
        }
    }

    /// Starts the next run. All runs share one section, because Wireshark 4.0 confuses the interfaces of two sections. Each
    /// run has its own interfaces, which name its host.
    pub fn begin(&mut self, head: &Head) -> io::Result<()> {
        self.end()?;
        self.clock = Some(Clock::new(head.wall, head.monotonic_ns));
        self.hold_ns = head
            .patience_ns
            .saturating_mul(PATIENCES)
            .saturating_add(SETTLED_NS);
        self.newest_ns = 0;
        self.written_ns = 0;
        self.flows.clear();
        self.most_flows = head.limits.bounded().flows.saturating_mul(2);
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

    /// Whether this flow is in the capture. Its later packets belong there too.
    pub fn has(&self, flow: u64) -> bool {
        self.flows.contains_key(&flow)
    }

    /// Adds the steps of a flow that are not in the capture yet.
    pub fn add(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        let flow = finding.flow;
        let exported = self.flows.get(&flow.id).copied().unwrap_or_default();
        let mut summary = Some(summary(finding));
        // A later report replaces the comment, if that packet is still held.
        if let Some(first) = self.held.get_mut(&exported.first)
            && let Some(comment) = first.comments.first_mut()
            && exported.steps > 0
            && let Some(summary) = summary.take()
        {
            self.weight = self.weight + summary.len() - comment.len();
            *comment = summary;
        }
        let mut first = exported.first;
        for (time_ns, mut packet) in packets(flow, finding.facts, exported.steps) {
            let position = (time_ns, self.packets);
            if let Some(summary) = summary.take() {
                packet.comments.insert(0, summary);
                first = position;
            }
            self.packets += 1;
            self.newest_ns = self.newest_ns.max(time_ns);
            self.weight += packet.weight();
            self.held.insert(position, packet);
        }
        let steps = flow.steps.len();
        self.flows.insert(flow.id, Exported { steps, first });
        self.forget();
        self.write(self.newest_ns.saturating_sub(self.hold_ns), MOST_HELD)
    }

    /// Records were lost.
    pub fn lost(&mut self, health: &Health) {
        self.lost = health.clone();
    }

    /// Ends the run: writes the packets held.
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

    /// Number of packets written after later ones.
    #[must_use]
    pub fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    /// Forgets the oldest flows: the engine keeps half as many, and rarely the oldest.
    fn forget(&mut self) {
        while self.flows.len() > self.most_flows {
            self.flows.pop_first();
        }
    }

    /// Writes the packets before this time, and the oldest while more than `most` bytes are held.
    fn write(&mut self, before_ns: u64, most: usize) -> io::Result<()> {
        let Some(clock) = self.clock else {
            return Ok(());
        };
        while let Some(entry) = self.held.first_entry()
            && (entry.key().0 < before_ns || self.weight > most)
        {
            let ((time_ns, _), packet) = entry.remove_entry();
            self.weight -= packet.weight();
            self.out_of_order += u64::from(time_ns < self.written_ns);
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

/// The flow, its fate and cause, and the explanation.
fn summary(finding: &Finding<'_>) -> String {
    let (flow, fate) = (finding.flow, finding.fate);
    let cause = finding
        .diagnosis
        .cause
        .map_or_else(String::new, |cause| format!(", {cause}"));
    let service = finding
        .service()
        .map_or_else(String::new, |service| format!(" ({service})"));
    let backend = flow
        .backend()
        .map_or_else(String::new, |backend| format!(" -> {backend}"));
    let left_out = match flow.steps_left_out {
        0 => String::new(),
        more => format!(" {} not kept.", words::count(more, "more step")),
    };
    format!(
        "flow {}: {fate}{cause}. {} -> {}{service}{backend}. {}{left_out}",
        flow.id,
        flow.client(),
        flow.node(),
        finding.diagnosis.explanation
    )
}

/// The packets of a flow from this step on, with their times.
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
                // The comment about the flow and the place stays last.
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

/// Whether both steps are of one packet in one call of a hook.
fn is_same(before: &Step, step: &Step) -> bool {
    let of = |step: &Step| {
        let event = &step.event;
        (
            (event.hook, event.call, event.skb, step.attempt),
            (event.tuple, event.seq, event.ack, event.flags),
            (event.netns, event.ifindex),
        )
    };
    of(before) == of(step) && step.event.time_ns.saturating_sub(before.event.time_ns) <= SAME_CALL_NS
}

/// The hook of the function that ran: the IPv6 twin for an IPv6 packet.
fn function(event: &Event) -> Hook {
    if event.tuple.is_v6() {
        event.hook.for_ipv6()
    } else {
        event.hook
    }
}

/// The packet's comment. Starts with `DROP` if it was dropped or a function decided to drop it.
fn comment(line: &PathStep) -> String {
    let verdict = line.verdict.as_deref();
    let drop = if line.is_drop { "DROP " } else { "" };
    let verdict = verdict.map_or_else(String::new, |verdict| format!("{verdict}: "));
    format!("{drop}{verdict}{}", line.note)
}

/// The flow, and where the packet was.
fn place(flow: &Flow, step: &Step, line: &PathStep) -> String {
    let device = line
        .dev
        .as_deref()
        .map_or_else(String::new, |device| format!(", {device}"));
    let netns = line
        .netns
        .map_or_else(String::new, |netns| format!(", netns {netns}"));
    let made = match step.event.skb {
        0 => ", built from the function's arguments: there was no packet",
        _ => "",
    };
    format!("flow {}, SYN {}{device}{netns}{made}", flow.id, step.attempt + 1)
}
