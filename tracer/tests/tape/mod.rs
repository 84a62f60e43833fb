//! Records as a node's kernel would have written them, and recordings made of them.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{fs, net::IpAddr, path::Path};

use jiff::{SignedDuration, Timestamp};
use tracer::{
    decode::record::{self, RECORDS},
    diagnose::{self, Diagnosis},
    facts::Facts,
    finding::{clock::Clock, head::Head, run::End},
    flow::{
        engine::{Engine, Limits},
        fate::Fate,
        model::Flow,
    },
    recording::{
        item::Item,
        writer::{ChunkBuilder, Writer},
    },
};
use tracer_common::{
    hook::Hook,
    record::{Header, HeaderVersion, Kind, Listener, Phase},
    tcp::{self, Part},
    tunnel,
    tuple::{Addr, Tuple},
};

const MS: u64 = 1_000_000;
const PATIENCE_NS: u64 = 3_000 * MS;
/// The node's own netns, and that of its pod.
pub(crate) const NODE: u32 = 1;
pub(crate) const POD: u32 = 2;

/// A tuple from two addresses with ports.
pub(crate) fn tuple(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Tuple {
    Tuple {
        saddr: Addr::from(IpAddr::from(from.0)),
        daddr: Addr::from(IpAddr::from(to.0)),
        sport: from.1,
        dport: to.1,
    }
}

/// The records of one node's kernel, with times in milliseconds of the wall clock since the story began.
pub(crate) struct Tape {
    pub(crate) host: &'static str,
    /// The monotonic clock when the story began.
    base_ms: u64,
    /// By how much its wall clock is wrong.
    skew_ms: i64,
    records: Vec<(u64, Vec<u8>)>,
    /// Flows so far.
    flows: u64,
    /// The flow that records are about.
    number: u64,
    isn: u32,
    calls: u64,
    /// The outer header's protocol.
    pub(crate) tunnel: u8,
}

impl Tape {
    pub(crate) fn new(host: &'static str, base_ms: u64, skew_ms: i64) -> Self {
        Self {
            host,
            base_ms,
            skew_ms,
            records: Vec::new(),
            flows: 0,
            number: 0,
            isn: 0,
            calls: 0,
            tunnel: 0,
        }
    }

    /// Starts another flow.
    pub(crate) fn flow(&mut self, isn: u32) -> &mut Self {
        self.flows += 1;
        self.number = self.flows;
        self.isn = isn;
        self
    }

    /// Returns to an earlier flow.
    pub(crate) fn resume(&mut self, number: u64, isn: u32) -> &mut Self {
        self.number = number;
        self.isn = isn;
        self
    }

    /// The records in the order of their times.
    pub(crate) fn in_order(&self) -> Vec<(u64, &[u8])> {
        let mut records: Vec<_> = self
            .records
            .iter()
            .map(|(time, record)| (*time, record.as_slice()))
            .collect();
        records.sort_by_key(|(time, _)| *time);
        records
    }

    fn header(&self, at_ms: u64, hook: Hook, part: Part, tuple: Tuple, netns: u32) -> Header {
        Header {
            time_ns: (self.base_ms + at_ms) * MS + self.records.len() as u64,
            flow: self.number,
            skb: 0xabc0 + at_ms,
            tuple,
            isn: self.isn,
            netns,
            ifindex: 2,
            dev: *b"eth0\0\0\0\0\0\0\0\0\0\0\0\0",
            hook: hook as u16,
            tcp_flags: match part {
                Part::Syn => tcp::SYN,
                Part::SynAck => tcp::SYN | tcp::ACK,
                Part::Rst => tcp::RST,
                Part::Ack | Part::Other => tcp::ACK,
            },
            encapsulation: self.tunnel,
            ..Header::default()
        }
    }

    fn push(&mut self, header: &Header, payload: &[u8]) {
        let mut bytes = to_bytes(header);
        bytes.extend(payload);
        self.records.push((header.time_ns, bytes));
    }

    /// A packet at a hook that records no payload.
    pub(crate) fn packet(&mut self, at_ms: u64, hook: Hook, part: Part, tuple: Tuple, netns: u32) {
        let header = self.header(at_ms, hook, part, tuple, netns);
        self.push(&header, &[]);
    }

    /// The SYN arrives on a device and leaves by one with another tuple.
    pub(crate) fn forwarded(&mut self, at_ms: u64, from: Tuple, to: Tuple) {
        self.packet(at_ms, Hook::NetifReceive, Part::Syn, from, NODE);
        self.packet(at_ms, Hook::DevStartXmit, Part::Syn, to, NODE);
    }

    /// The SYN arrives and reaches the pod, whose listener drops it if its queue is full.
    pub(crate) fn reaches_listener(&mut self, at_ms: u64, tuple: Tuple, is_full: bool) {
        self.forwarded(at_ms, tuple, tuple);
        self.packet(at_ms, Hook::NetifReceive, Part::Syn, tuple, POD);
        self.listener(at_ms, tuple, POD, is_full);
    }

    pub(crate) fn listener(&mut self, at_ms: u64, tuple: Tuple, netns: u32, is_full: bool) {
        let listener = Listener {
            sock: 1,
            ack_backlog: if is_full { 129 } else { 0 },
            max_ack_backlog: 128,
            syn_queue: 0,
            max_syn_backlog: 512,
            syncookies: 1,
            defer_accept: 0,
        };
        let mut payload = listener.sock.to_le_bytes().to_vec();
        for number in [
            listener.ack_backlog,
            listener.max_ack_backlog,
            listener.syn_queue,
            listener.max_syn_backlog,
            listener.syncookies,
            listener.defer_accept,
        ] {
            payload.extend(number.to_le_bytes());
        }
        self.calls += 1;
        let mut header = self.header(at_ms, Hook::TcpConnRequest, Part::Syn, tuple, netns);
        header.call = self.calls;
        header.kind = Kind::Listener as u8;
        self.push(&header, &payload);
        if is_full {
            let mut header = self.header(at_ms, Hook::TcpConnRequest, Part::Syn, tuple, netns);
            header.call = self.calls;
            header.phase = Phase::Return as u8;
            header.verdict = 1;
            self.push(&header, &[]);
        }
    }

    /// The answer of the pod leaves the node.
    pub(crate) fn answered(&mut self, at_ms: u64, tuple: Tuple) {
        let back = tuple.reversed();
        self.packet(at_ms, Hook::DevStartXmit, Part::SynAck, back, POD);
        self.packet(at_ms, Hook::NetifReceive, Part::SynAck, back, NODE);
        self.packet(at_ms, Hook::DevStartXmit, Part::SynAck, back, NODE);
    }

    /// The answer returns from the other node and is translated back.
    pub(crate) fn answer_passes(&mut self, at_ms: u64, from: Tuple, to: Tuple) {
        self.packet(at_ms, Hook::NetifReceive, Part::SynAck, to.reversed(), NODE);
        self.packet(at_ms, Hook::DevStartXmit, Part::SynAck, from.reversed(), NODE);
    }

    pub(crate) fn acknowledged(&mut self, at_ms: u64, tuple: Tuple) {
        self.packet(at_ms, Hook::NetifReceive, Part::Ack, tuple, NODE);
    }

    /// Sets whether the following packets are inside an IPIP tunnel.
    pub(crate) fn in_tunnel(&mut self, is_in: bool) -> &mut Self {
        self.tunnel = if is_in { tunnel::IPIP } else { 0 };
        self
    }

    fn wall(&self) -> Timestamp {
        let began: Timestamp = "2026-11-26T10:00:00Z".parse().expect("a time");
        began + SignedDuration::from_millis(self.skew_ms)
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock::new(self.wall(), self.base_ms * MS)
    }

    /// The last report of each flow.
    pub(crate) fn judged(&self) -> Vec<(Flow, Fate, Diagnosis)> {
        let mut engine = Engine::new(PATIENCE_NS, Limits::default());
        let mut out: Vec<(Flow, Fate, Diagnosis)> = Vec::new();
        for (_, record) in &self.records {
            engine.push(record::event(HeaderVersion::CURRENT, record).expect("a record"));
        }
        engine.poll(u64::MAX / 2, |flow, fate| {
            out.retain(|(other, ..)| other.id != flow.id);
            let diagnosis = diagnose::diagnose(flow, fate, &Facts::default());
            out.push((flow.clone(), fate, diagnosis));
        });
        out.sort_by_key(|(flow, ..)| flow.id);
        out
    }

    /// Writes a recording of it, in which the flows are polled every tenth of a second.
    pub(crate) fn record(&self, path: &Path) {
        let head = Head {
            tracer: "0.1.0".to_owned(),
            records: RECORDS,
            session: format!("run on {}", self.host),
            host: self.host.to_owned(),
            kernel: "6.12.1".to_owned(),
            ready: self.wall(),
            wall: self.wall(),
            monotonic_ns: self.base_ms * MS,
            patience_ns: PATIENCE_NS,
            ports: vec![30_080],
            ..Head::default()
        };
        let mut records = self.records.clone();
        records.sort_by_key(|(time, _)| *time);
        let last = records.last().map_or(0, |(time, _)| *time);
        let mut builder = ChunkBuilder::new(1);
        let mut tick = self.base_ms * MS;
        for (time, record) in &records {
            while tick + 100 * MS < *time {
                tick += 100 * MS;
                builder.add(&Item::Tick(tick));
            }
            builder.add(&Item::Record(record));
        }
        while tick < last + 2 * PATIENCE_NS {
            tick += 100 * MS;
            builder.add(&Item::Tick(tick));
        }
        builder.add(&Item::End(End {
            now_ns: tick,
            events: records.len() as u64,
            lost: 0,
            ..End::default()
        }));
        let mut writer = Writer::new(Vec::new(), &head).expect("memory");
        writer
            .write(&builder.seal(1).expect("a short chunk"))
            .expect("memory");
        fs::write(path, writer.finish().expect("memory")).expect("a file");
    }
}

/// The header of a record, as the kernel writes it.
fn to_bytes(header: &Header) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [header.time_ns, header.flow, header.skb, header.call] {
        out.extend(number.to_le_bytes());
    }
    for addr in [header.tuple.saddr, header.tuple.daddr] {
        for word in addr.0 {
            out.extend(word.to_le_bytes());
        }
    }
    out.extend(header.tuple.sport.to_le_bytes());
    out.extend(header.tuple.dport.to_le_bytes());
    for number in [header.seq, header.ack, header.isn, header.netns, header.ifindex] {
        out.extend(number.to_le_bytes());
    }
    out.extend(header.verdict.to_le_bytes());
    out.extend(header.dev);
    out.extend(header.hook.to_le_bytes());
    out.extend(header.cpu.to_le_bytes());
    out.extend([header.kind, header.phase, header.tcp_flags, header.encapsulation]);
    out.extend(header.outer_daddr.to_le_bytes());
    out
}
