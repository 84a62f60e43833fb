//! The lines of schema 1. The comments of the members are their descriptions in docs/schema.md.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use schemars::JsonSchema;
use serde::Serialize;
use tracer_common::tuple::Tuple;

use crate::{
    diagnose::{self, Dataplane, cause::Cause, evidence::Evidence},
    finding::depth::Depth,
    finding::{clock::milliseconds, hook_state::HookState, sandbox::Sandbox},
    flow::fate::Fate,
    report::path::PathStep,
};

/// One line.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Line<'a> {
    /// The first line of a run, printed once all available hooks are attached.
    Start {
        /// Version of this schema.
        schema: u32,
        /// Version of tracer.
        tracer: &'a str,
        /// The node's name.
        host: &'a str,
        /// The kernel's release, as `uname -r` prints it.
        kernel: &'a str,
        /// Start of the run.
        time: String,
        /// The ports that are traced.
        ports: &'a [u16],
        /// The depth that was chosen; null for recordings by older versions, which had all hooks attached.
        depth: Option<Depth>,
        /// Each hook and its state.
        hooks: &'a [HookState],
        /// What the tracing process gave up for good once its hooks were attached.
        sandbox: Option<&'a Sandbox>,
    },
    /// Hooks changed state.
    Hooks {
        /// The node's name, where several runs are merged.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<&'a str>,
        /// Time at which the change was noticed.
        time: String,
        /// Why they changed.
        why: &'a str,
        /// The depth after the change: `light` or `full`; null for recordings by older versions.
        depth: Option<Depth>,
        /// The hooks that changed.
        hooks: &'a [HookState],
    },
    /// A flow whose fate is known, or that was still pending when tracing ended. A flow whose fate changes is printed again with
    /// the same `id`: the last line counts.
    Flow(Box<FlowLine<'a>>),
    /// Records were lost, or flows evicted.
    Health {
        /// The node's name, where several runs are merged.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<&'a str>,
        /// Time at which the counters were read.
        time: String,
        /// Records so far.
        events: u64,
        /// Records lost so far.
        lost: u64,
        /// Records lost so far, by the name of the hook.
        lost_by_hook: BTreeMap<&'a str, u64>,
        /// Packets of traced handshakes recorded so far where they arrive from a device. With those lost and missed at
        /// `netif_receive_skb`, all that arrived. `null` in recordings of versions that did not count them.
        received: Option<u64>,
        /// How often the kernel skipped probes so far, by the name of the hook. `null` where it does not count that.
        missed: Option<BTreeMap<&'a str, u64>>,
        /// Part of the lost records: what found no room in the kernel half's table of flows, by kind. `flow`: a SYN that was not
        /// followed. `alias`: a translated tuple, under which nothing more was seen of its flow.
        refused: BTreeMap<&'a str, u64>,
        /// Flows evicted from memory so far before their time, by rank: `one-syn`, `finished`, `answered` or `retransmitted`.
        /// Nothing that happened to them later was reported.
        evicted: BTreeMap<&'a str, u64>,
    },
    /// The recording is damaged or truncated.
    Damage {
        /// The node's name, where several runs are merged.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<&'a str>,
        /// What is missing.
        what: &'a str,
    },
    /// The hazards of a node: what `tracer check --json` prints.
    Check {
        /// Version of this schema.
        schema: u32,
        /// Version of tracer.
        tracer: &'a str,
        /// The node's name.
        host: &'a str,
        /// The kernel's release, as `uname -r` prints it.
        kernel: &'a str,
        /// When the state of the node was read.
        time: String,
        /// All hazards: those that hurt first, then those that are armed, unknown and fine, each by severity.
        hazards: Vec<HazardLine<'a>>,
    },
    /// The last line of a run.
    End {
        /// The node's name, where several runs are merged.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<&'a str>,
        /// Flows that were printed, each counted once.
        flows: u64,
        /// Flows that were seen, printed or not.
        flows_seen: u64,
        /// Records that were read.
        events: u64,
        /// Records that were lost.
        lost: u64,
        /// Records that were lost, by the name of the hook.
        lost_by_hook: BTreeMap<&'a str, u64>,
        /// Packets that were recorded where they arrive from a device, as in `health`.
        received: Option<u64>,
        /// How often the kernel skipped probes, by the name of the hook, as in `health`.
        missed: Option<BTreeMap<&'a str, u64>>,
        /// What found no room in the kernel half's table of flows, as in `health`.
        refused: BTreeMap<&'a str, u64>,
        /// Flows evicted from memory before their time, by rank, as in `health`.
        evicted: BTreeMap<&'a str, u64>,
        /// Flows by fate.
        by_fate: &'a BTreeMap<Fate, u64>,
        /// Flows by cause.
        by_cause: &'a BTreeMap<Cause, u64>,
    },
}

/// A hazard of a node and its state. [hazards.md](hazards.md) lists all of them.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct HazardLine<'a> {
    /// Its name.
    pub(super) id: &'a str,
    /// `hurts`: connections suffer now. `armed`: they will, under the condition in `summary`. `unknown`: what is needed to judge
    /// could not be read. `fine`.
    pub(super) state: &'a str,
    /// `breaks`: it breaks connections. `warns`: it does so under load or after a change. `informs`.
    pub(super) severity: &'a str,
    /// What is the matter; why it is unknown or fine. The wording may change.
    pub(super) summary: &'a str,
    /// What was read. The wording may change.
    pub(super) evidence: &'a [String],
    /// What to do. The wording may change.
    pub(super) advice: Option<&'a str>,
    /// A public report of such a case.
    pub(super) reference: &'a str,
    /// The cause that tracer names where it hits a connection.
    pub(super) cause: Option<&'a str>,
}

/// A flow as JSON.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct FlowLine<'a> {
    /// The node's name, where several runs are merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<&'a str>,
    /// Number of the flow in its run.
    pub(super) id: u64,
    /// Time of the first SYN.
    pub(super) start: String,
    /// The node's name.
    pub(super) node_name: Option<&'a str>,
    /// The node's boot, from `/proc/sys/kernel/random/boot_id`. Namespace numbers are unique within one boot.
    pub(super) boot_id: Option<&'a str>,
    /// Inode number of the network namespace in which the first SYN was seen.
    pub(super) netns: Option<u32>,
    /// The client's address and port.
    pub(super) client: Endpoint,
    /// The address and port that the client connects to.
    pub(super) node: Endpoint,
    /// The SYN's sequence number. NAT leaves it unchanged, so it identifies the connection on every node.
    pub(super) syn_seq: u32,
    /// The tuple of the last SYN after DNAT, before its source changes.
    pub(super) dnat: Option<Addresses>,
    /// The tuple of the last SYN after SNAT (masquerade), as it goes to the backend.
    pub(super) snat: Option<Addresses>,
    /// The service, `NAMESPACE/NAME`, if a rule names it.
    pub(super) service: Option<&'a str>,
    /// The dataplane that did the DNAT.
    pub(super) dataplane: Option<Dataplane>,
    /// The destination of the last SYN.
    pub(super) backend: Option<Backend>,
    /// The outcome of the flow.
    pub(super) fate: Fate,
    /// The cause. For a stalled flow, that of its costliest attempt; for any other, that of the attempt that decided the fate.
    pub(super) cause: Option<Cause>,
    /// Why the SYN-ACK was dropped, where `cause` is `return.dropped`.
    pub(super) inner_cause: Option<Cause>,
    /// What happened and why. The wording may change.
    pub(super) explanation: &'a str,
    /// What to do. The wording may change.
    pub(super) advice: Option<&'a str>,
    /// What proves the cause.
    pub(super) evidence: Vec<Fact<'a>>,
    /// Each SYN that the client sent.
    pub(super) attempts: Vec<Attempt<'a>>,
    /// SYNs on the wire, including copies made by the network.
    pub(super) syns: usize,
    /// SYN-ACKs that the backend sent.
    pub(super) synacks: u32,
    /// From the first SYN to the client's ACK.
    pub(super) connect_ms: Option<f64>,
    /// For a stalled flow, the time spent on retransmissions.
    pub(super) stall_ms: Option<f64>,
    /// The time that the flow cost its client: the sum over `attempts`.
    pub(super) lost_ms: f64,
    /// Each step of its packets through the kernel, in order.
    pub(super) path: Vec<PathStep>,
}

/// One SYN that the client sent.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Attempt<'a> {
    /// Counts from 1.
    n: usize,
    /// Milliseconds since the flow's first SYN.
    t_ms: f64,
    /// Why it did not finish the handshake at once.
    cause: Option<Cause>,
    /// Why its SYN-ACK was dropped, where `cause` is `return.dropped`.
    inner_cause: Option<Cause>,
    /// What happened to it.
    explanation: &'a str,
    /// The time until the next SYN. 0 for the SYN that finished the handshake. For the last SYN of a failed flow, the time until
    /// the RST, the ICMP error or the drop, or until tracer's patience ended.
    lost_ms: f64,
}

impl<'a> From<&'a diagnose::Attempt> for Attempt<'a> {
    fn from(attempt: &'a diagnose::Attempt) -> Self {
        Self {
            n: attempt.number,
            t_ms: milliseconds(attempt.t_ns),
            cause: attempt.cause,
            inner_cause: attempt.inner,
            explanation: &attempt.explanation,
            lost_ms: milliseconds(attempt.lost_ns),
        }
    }
}

/// A fact that supports a cause.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Fact<'a> {
    /// The subject of the fact, by its stable name.
    key: &'a str,
    /// `key` in words. The wording may change.
    what: &'a str,
    /// What was seen or read.
    value: &'a str,
    /// The kernel function, the tracepoint or the file that showed it.
    hook: &'a str,
}

impl<'a> From<&'a Evidence> for Fact<'a> {
    fn from(evidence: &'a Evidence) -> Self {
        Self {
            key: evidence.key.name(),
            what: evidence.label(),
            value: &evidence.value,
            hook: &evidence.source,
        }
    }
}

/// An address and a port.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Endpoint {
    /// IPv4 or IPv6 address.
    ip: IpAddr,
    /// TCP port.
    port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: address.ip(),
            port: address.port(),
        }
    }
}

/// A real server or pod.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Backend {
    /// IPv4 or IPv6 address.
    pub(super) ip: IpAddr,
    /// TCP port.
    pub(super) port: u16,
    /// Its name, if known.
    pub(super) name: Option<String>,
}

/// The source and destination of a packet.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Addresses {
    /// Source address and port.
    source: Endpoint,
    /// Destination address and port.
    destination: Endpoint,
}

impl From<Tuple> for Addresses {
    fn from(tuple: Tuple) -> Self {
        Self {
            source: tuple.source().into(),
            destination: tuple.destination().into(),
        }
    }
}
