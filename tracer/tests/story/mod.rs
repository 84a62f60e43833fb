//! Plays one flow's packets as events, in the call sequences that kernels 5.10 to 7.3 were seen to make.

#![allow(dead_code, reason = "each test file uses a part of it")]

mod advice;

use std::net::IpAddr;

use tracer::{
    decode::event::{DeviceName, Event, Outer, Payload},
    diagnose::{self, Diagnosis, cause::Cause, evidence::Key},
    facts::Facts,
    finding::{Finding, clock::Clock},
    flow::{
        engine::{Engine, Limits},
        fate::Fate,
        model::Flow,
    },
};
use tracer_common::{
    hook::Hook,
    record::{self, Header, IpvsConn, Phase, ipvs_conn},
    tcp::{self, Part},
    tuple::{Addr, Tuple},
    uapi::verdict::{NF_DROP, NF_STOLEN},
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const PATIENCE: u64 = 3_000 * MS;
/// The return value of nf_tables since 6.7: `NF_STOLEN`, with EPERM above it.
pub(crate) const NF_DROP_REASON: i32 = 1 << 16 | NF_STOLEN;
pub(crate) const NODE: u32 = 1;
pub(crate) const POD: u32 = 2;
const OLD_ENTRY: u64 = 0xffff_8880_0000_1000;

/// A listener with empty queues.
pub(crate) const LISTENER: record::Listener = record::Listener {
    sock: 1,
    ack_backlog: 0,
    max_ack_backlog: 128,
    syn_queue: 0,
    max_syn_backlog: 512,
    syncookies: 1,
    defer_accept: 0,
};

fn ip(bytes: [u8; 4]) -> Addr {
    Addr::from(IpAddr::from(bytes))
}

/// The tuple that the client sends.
pub(crate) fn original(port: u16) -> Tuple {
    Tuple {
        saddr: ip([10, 0, 0, 2]),
        daddr: ip([10, 0, 0, 1]),
        sport: port,
        dport: 30_080,
    }
}

/// The same SYN after DNAT.
pub(crate) fn translated(port: u16) -> Tuple {
    Tuple {
        daddr: ip([10, 244, 1, 2]),
        dport: 8080,
        ..original(port)
    }
}

/// An entry that an old connection left behind.
pub(crate) fn entry(state: u16, weight: i32, available: u32, expire_nodest: i32) -> IpvsConn {
    IpvsConn {
        conn: OLD_ENTRY,
        have: ipvs_conn::BACKEND
            | ipvs_conn::STATE
            | ipvs_conn::WEIGHT
            | ipvs_conn::AVAILABLE
            | ipvs_conn::EXPIRE_NODEST,
        daddr: ip([10, 244, 1, 2]),
        dport: 8080,
        state,
        weight,
        available,
        expire_nodest_conn: expire_nodest,
        ..IpvsConn::default()
    }
}

pub(crate) struct Story {
    pub(crate) engine: Engine,
    pub(crate) flow: u64,
    pub(crate) port: u16,
    pub(crate) facts: Facts,
    /// Index of the device at which packets are seen.
    pub(crate) ifindex: u32,
    /// The tunnel in which packets are seen.
    pub(crate) outer: Option<Outer>,
    calls: u64,
}

/// The number of the first flow.
const FIRST: u64 = 7;

impl Story {
    /// The initial sequence number: 1 for the first flow, a different one for each other flow.
    fn isn(&self) -> u32 {
        1 + u32::try_from(self.flow.abs_diff(FIRST)).expect("a small number")
    }

    pub(crate) fn new() -> Self {
        Self {
            engine: Engine::new(PATIENCE, Limits::default()),
            flow: FIRST,
            port: 40_001,
            facts: Facts {
                // A kernel that reports TCP's drops.
                drop_reasons: [(77, "TCP_INVALID_SYN".to_owned())].into(),
                ..Facts::default()
            },
            ifindex: 2,
            outer: None,
            calls: 0,
        }
    }

    pub(crate) fn event(
        &self,
        at: u64,
        hook: Hook,
        part: Part,
        tuple: Tuple,
        netns: u32,
        payload: Payload,
    ) -> Event {
        Event {
            time_ns: at,
            flow: self.flow,
            hook,
            phase: Phase::Entry,
            skb: 0xabc,
            call: 0,
            tuple,
            part,
            seq: 1,
            ack: 0,
            flags: match part {
                Part::Syn => tcp::SYN,
                Part::SynAck => tcp::SYN | tcp::ACK,
                Part::Rst => tcp::RST,
                Part::Ack => tcp::ACK,
                Part::Other => 0,
            },
            isn: self.isn(),
            netns,
            ifindex: self.ifindex,
            dev: DeviceName::default(),
            cpu: 0,
            verdict: 0,
            outer: self.outer,
            payload,
        }
    }

    pub(crate) fn see(
        &mut self,
        at: u64,
        hook: Hook,
        part: Part,
        tuple: Tuple,
        netns: u32,
        payload: Payload,
    ) {
        let event = self.event(at, hook, part, tuple, netns, payload);
        self.engine.push(event);
    }

    /// An event of a packet with its own buffer, at a device.
    pub(crate) fn seen(
        &mut self,
        at: u64,
        hook: Hook,
        (part, skb): (Part, u64),
        (tuple, netns): (Tuple, u32),
        payload: Payload,
    ) {
        let header = Header {
            time_ns: at,
            flow: self.flow,
            skb,
            tuple,
            isn: self.isn(),
            netns,
            ifindex: 2,
            dev: *b"eth0\0\0\0\0\0\0\0\0\0\0\0\0",
            hook: hook as u16,
            tcp_flags: match part {
                Part::SynAck => tcp::SYN | tcp::ACK,
                _ => tcp::SYN,
            },
            ..Header::default()
        };
        self.engine.push(Event::new(&header, payload).expect("a hook"));
    }

    /// A packet at a hook that records no payload.
    pub(crate) fn packet(&mut self, at: u64, hook: Hook, part: Part, tuple: Tuple, netns: u32) {
        self.see(at, hook, part, tuple, netns, Payload::Packet);
    }

    /// A function is entered in the pod, and returns `verdict` at once.
    pub(crate) fn in_pod(&mut self, at: u64, hook: Hook, part: Part, payload: Payload, verdict: i32) {
        let event = self.event(at, hook, part, translated(self.port), POD, payload);
        self.call(event, verdict);
    }

    /// A function is entered for the SYN in the node's own netns, and returns `verdict` at once.
    pub(crate) fn on_node(&mut self, at: u64, hook: Hook, tuple: Tuple, payload: Payload, verdict: i32) {
        let event = self.event(at, hook, Part::Syn, tuple, NODE, payload);
        self.call(event, verdict);
    }

    fn call(&mut self, mut event: Event, verdict: i32) {
        self.calls += 1;
        event.call = self.calls;
        self.engine.push(event.clone());
        self.engine.push(Event {
            phase: Phase::Return,
            payload: Payload::Packet,
            verdict,
            ..event
        });
    }

    /// The SYN as the client sent it, on the node.
    pub(crate) fn syn(&mut self, at: u64, hook: Hook, payload: Payload) {
        self.see(at, hook, Part::Syn, original(self.port), NODE, payload);
    }

    pub(crate) fn arrives(&mut self, at: u64) {
        self.syn(at, Hook::NetifReceive, Payload::Packet);
    }

    /// IPVS is called, `inside` happens in it, and it returns `verdict`.
    pub(crate) fn ipvs(&mut self, at: u64, verdict: i32, inside: impl FnOnce(&mut Self)) {
        self.calls += 1;
        let mut call = self.event(
            at,
            Hook::IpvsIn,
            Part::Syn,
            original(self.port),
            NODE,
            Payload::Packet,
        );
        call.call = self.calls;
        self.engine.push(call.clone());
        inside(self);
        self.engine.push(Event {
            phase: Phase::Return,
            verdict,
            time_ns: at + 1,
            ..call
        });
    }

    pub(crate) fn returns(&mut self, at: u64, hook: Hook, verdict: i32, payload: Payload) {
        let event = self.event(at, hook, Part::Syn, original(self.port), NODE, payload);
        self.engine.push(Event {
            phase: Phase::Return,
            verdict,
            ..event
        });
    }

    pub(crate) fn lookup(&mut self, at: u64, conn: IpvsConn) {
        self.returns(at, Hook::IpvsLookup, 0, Payload::IpvsConn(conn));
    }

    pub(crate) fn expires(&mut self, at: u64, conn: IpvsConn) {
        self.syn(at, Hook::IpvsExpireNow, Payload::IpvsConn(conn));
    }

    pub(crate) fn schedules(&mut self, at: u64, returned: i32) {
        self.returns(at, Hook::IpvsTcpSchedule, returned, Payload::Packet);
    }

    pub(crate) fn dropped(&mut self, at: u64) {
        let drop = record::Drop {
            location: 0x1234,
            reason: u32::MAX,
            reserved: 0,
        };
        self.syn(at, Hook::KfreeSkb, Payload::Drop(drop));
    }

    /// A base chain of nf_tables drops the SYN.
    pub(crate) fn dropped_by_rule(&mut self, at: u64) {
        let mut chain = record::Chain::default();
        chain.table[..9].copy_from_slice(b"hardening");
        chain.chain[..5].copy_from_slice(b"input");
        chain.nf_hook = 1;
        chain.seen = record::chain::IMMEDIATE;
        self.dropped_by(at, Hook::NftDoChain, Payload::Chain(chain));
    }

    /// A base chain of nf_tables drops the SYN and frees it itself.
    pub(crate) fn dropped_with_reason(&mut self, at: u64) {
        let chain = Payload::Chain(record::Chain::default());
        self.returns(at, Hook::NftDoChain, NF_DROP_REASON, chain);
        self.dropped(at + 1);
    }

    /// Netfilter drops the SYN because of what this hook shows.
    pub(crate) fn dropped_by(&mut self, at: u64, hook: Hook, payload: Payload) {
        self.returns(at, hook, NF_DROP, payload);
        self.dropped(at + 1);
    }

    /// A rule rejects the SYN, with an ICMP error to the client if `is_answered`.
    pub(crate) fn rejected_by(&mut self, at: u64, hook: Hook, reject: record::Reject, is_answered: bool) {
        self.syn(at, hook, Payload::Reject(reject));
        if is_answered {
            let icmp = record::Icmp {
                icmp_type: 3,
                code: 3,
            };
            self.syn(at + 1, Hook::IcmpSend, Payload::Icmp(icmp));
        }
        self.dropped(at + 2);
    }

    pub(crate) fn dropped_in_pod(&mut self, at: u64) {
        let drop = record::Drop {
            location: 0x1234,
            reason: u32::MAX,
            reserved: 0,
        };
        self.see(
            at,
            Hook::KfreeSkb,
            Part::Syn,
            translated(self.port),
            POD,
            Payload::Drop(drop),
        );
    }

    pub(crate) fn reaches_pod(&mut self, at: u64) {
        let tuple = translated(self.port);
        self.see(at, Hook::DevStartXmit, Part::Syn, tuple, NODE, Payload::Packet);
        self.see(at + 1, Hook::NetifReceive, Part::Syn, tuple, POD, Payload::Packet);
    }

    pub(crate) fn listener_accepts(&mut self, at: u64) {
        self.reaches_listener(at, LISTENER);
    }

    /// The SYN reaches a listener; the result is seen later.
    pub(crate) fn reaches_listener(&mut self, at: u64, listener: record::Listener) {
        let (tuple, payload) = (translated(self.port), Payload::Listener(listener));
        self.see(at, Hook::TcpConnRequest, Part::Syn, tuple, POD, payload);
    }

    pub(crate) fn answered(&mut self, at: u64) {
        let answer = translated(self.port).reversed();
        self.see(at, Hook::DevStartXmit, Part::SynAck, answer, POD, Payload::Packet);
        self.see(
            at + 1,
            Hook::NetifReceive,
            Part::SynAck,
            answer,
            NODE,
            Payload::Packet,
        );
        let back = original(self.port).reversed();
        self.see(
            at + 2,
            Hook::DevStartXmit,
            Part::SynAck,
            back,
            NODE,
            Payload::Packet,
        );
    }

    pub(crate) fn acknowledged(&mut self, at: u64) {
        self.see(
            at,
            Hook::NetifReceive,
            Part::Ack,
            original(self.port),
            NODE,
            Payload::Packet,
        );
    }

    /// A SYN that gets a new IPVS entry and that the pod answers.
    pub(crate) fn served(&mut self, at: u64) {
        self.arrives(at);
        self.ipvs(at + 1, NF_STOLEN, |story| {
            story.lookup(at + 2, IpvsConn::default());
            story.schedules(at + 3, 1);
            let conn = IpvsConn {
                conn: 0x9000,
                ..entry(3, 1, 1, 0)
            };
            story.syn(at + 4, Hook::IpvsNatXmit, Payload::IpvsConn(conn));
        });
        self.reaches_pod(at + 10);
        self.listener_accepts(at + 12);
        self.answered(at + 20);
        self.acknowledged(at + 30);
    }

    /// A SYN that matches `conn`; IPVS expires the entry and drops the SYN.
    pub(crate) fn expired_and_dropped(&mut self, at: u64, conn: IpvsConn) {
        self.arrives(at);
        self.ipvs(at + 1, NF_DROP, |story| {
            story.lookup(at + 2, conn);
            story.expires(at + 3, conn);
        });
        self.dropped(at + 4);
    }

    /// The last report of each flow, once everything is decided.
    pub(crate) fn judged(&mut self) -> Vec<(Flow, Fate, Diagnosis)> {
        let mut out: Vec<(Flow, Fate, Diagnosis)> = Vec::new();
        self.engine.poll(u64::MAX / 2, |flow, fate| {
            out.retain(|(other, ..)| other.id != flow.id);
            let diagnosis = diagnose::diagnose(flow, fate, &self.facts);
            if let Some(advice) = &diagnosis.advice {
                advice::check(advice, flow.netns, &self.facts);
            }
            out.push((flow.clone(), fate, diagnosis));
        });
        out
    }

    pub(crate) fn only(&mut self) -> (Flow, Fate, Diagnosis) {
        let mut flows = self.judged();
        assert_eq!(flows.len(), 1);
        flows.remove(0)
    }
}

/// A flow as observers get it.
pub(crate) fn finding<'a>(
    (flow, fate, diagnosis): &'a (Flow, Fate, Diagnosis),
    facts: &'a Facts,
    clock: &'a Clock,
) -> Finding<'a> {
    Finding {
        flow,
        fate: *fate,
        diagnosis,
        facts,
        clock,
    }
}

/// A clock that reads `2026-11-22T18:35:45.5Z` at the monotonic time 0.
pub(crate) fn clock() -> Clock {
    Clock::new("2026-11-22T18:35:45.5Z".parse().expect("a time"), 0)
}

/// Whether there is evidence with this key, by its name, whose value contains this text.
pub(crate) fn has(diagnosis: &Diagnosis, key: &str, value: &str) -> bool {
    let mut keys = Key::ALL.iter();
    let key = *keys
        .find(|known| known.name() == key)
        .unwrap_or_else(|| panic!("no key {key}"));
    diagnosis
        .evidence
        .iter()
        .any(|fact| fact.key == key && fact.value.contains(value))
}

/// The cause of each attempt.
pub(crate) fn causes(diagnosis: &Diagnosis) -> Vec<Option<Cause>> {
    diagnosis.attempts.iter().map(|attempt| attempt.cause).collect()
}
