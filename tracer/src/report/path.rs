//! The way of a flow, one line a step.

use tracer_common::{
    hook::Hook,
    record::{Conntrack, IpvsConn, IpvsLimits, IpvsService, ipvs_conn, ipvs_limits},
    tcp::Part,
};

use super::milliseconds;
use crate::{
    diagnose::evidence,
    flow::{
        event::{What, text},
        model::{Flow, Step},
    },
    node::facts::Facts,
};

/// One step for readers.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PathStep {
    /// Milliseconds since the flow's first SYN.
    pub t_ms: f64,
    /// Kernel function or tracepoint.
    pub hook: &'static str,
    /// Device, if known.
    pub dev: Option<String>,
    /// Inode number of the network namespace, if known.
    pub netns: Option<u32>,
    /// What the function returned, by name where it has one.
    pub verdict: Option<String>,
    /// What happened there.
    pub note: String,
}

/// All steps in the order of their times.
#[must_use]
pub fn steps(flow: &Flow, facts: &Facts) -> Vec<PathStep> {
    let mut steps: Vec<&Step> = flow.steps.iter().collect();
    steps.sort_by_key(|step| step.event.time_ns);
    steps
        .into_iter()
        .map(|step| path_step(flow, step, facts))
        .collect()
}

fn path_step(flow: &Flow, step: &Step, facts: &Facts) -> PathStep {
    let event = &step.event;
    PathStep {
        t_ms: milliseconds(event.time_ns.saturating_sub(flow.start_ns())),
        hook: event.function(),
        dev: event.dev.get(),
        netns: (event.netns != 0).then_some(event.netns),
        verdict: step.verdict.and_then(|verdict| verdict_name(step, verdict)),
        note: note(flow, step, facts),
    }
}

/// The verdict's name, for functions that return one.
fn verdict_name(step: &Step, verdict: i32) -> Option<String> {
    let hook = step.event.hook;
    if hook == Hook::IpvsTcpSchedule {
        return Some(if verdict == 0 { "verdict set" } else { "go on" }.to_owned());
    }
    if hook == Hook::CtAlloc {
        return Some(std::io::Error::from_raw_os_error(-verdict).to_string());
    }
    let is_netfilter = hook.is_ipvs_request()
        || matches!(
            hook,
            Hook::IpvsNatXmit | Hook::CtConfirm | Hook::NftDoChain | Hook::NatMasquerade
        );
    is_netfilter.then(|| match verdict & 0xff {
        0 => "NF_DROP".to_owned(),
        1 => "NF_ACCEPT".to_owned(),
        2 if verdict >> 16 != 0 => "dropped (NF_STOLEN with a reason)".to_owned(),
        2 => "NF_STOLEN".to_owned(),
        _ => verdict.to_string(),
    })
}

fn note(flow: &Flow, step: &Step, facts: &Facts) -> String {
    let event = &step.event;
    let packet = match event.part {
        Part::Syn => "SYN",
        Part::SynAck => "SYN-ACK",
        Part::Rst => "RST",
        Part::Ack => "ACK",
        Part::Other => "packet",
    };
    let way = format!(
        "{packet} {} -> {}",
        event.tuple.source(),
        event.tuple.destination()
    );
    match (&event.what, event.hook) {
        (What::Packet, hook) => packet_note(hook, &way),
        (What::IpvsConn(conn), Hook::IpvsLookup) if conn.conn == 0 => "no old IPVS entry".to_owned(),
        (What::IpvsConn(conn), Hook::IpvsSchedule) => chosen(flow, step, conn, facts),
        (What::IpvsConn(conn), hook) => entry_note(hook, conn),
        (What::IpvsService(service), hook) => {
            let scheduler = scheduler(flow, service, facts);
            let servers = match service.num_dests {
                u32::MAX => String::new(),
                1 => ", 1 real server".to_owned(),
                several => format!(", {several} real servers"),
            };
            let what = match hook {
                Hook::IpvsLeave => "no real server found by",
                _ => "IPVS asks",
            };
            format!("{what} scheduler {scheduler}{servers}")
        }
        (What::IpvsDests(dests), _) => format!(
            "real servers: {}, with weight {}, of those overloaded {}",
            dests.counted, dests.with_weight, dests.overloaded
        ),
        (What::IpvsLimits(limits), _) => limits_in_words(limits),
        (What::Conntrack(ct), Hook::DevStartXmit) => {
            format!("goes the way of an older conntrack entry: {}", translation(ct))
        }
        (What::Conntrack(ct), _) => {
            let place = if leaves(flow, step) {
                "postrouting"
            } else {
                "input"
            };
            format!("{place}: {}; new conntrack entry", translation(ct))
        }
        (What::Clash(clash), _) => format!(
            "in the way is the conntrack entry of {} -> {}",
            clash.holder.original.source(),
            clash.holder.original.destination()
        ),
        (What::PacketState(state), _) => format!("for conntrack it was {}", evidence::packet_state(state)),
        (What::TooBig(told), _) => format!("{} bytes are too much for an MTU of {}", told.length, told.mtu),
        (What::Chain(chain), _) => {
            format!(
                "dropped by table {} chain {}",
                text(&chain.table),
                text(&chain.chain)
            )
        }
        (What::Drop(drop), _) => {
            let place = facts
                .symbols
                .get(&drop.location)
                .cloned()
                .unwrap_or_else(|| format!("{:#x}", drop.location));
            match facts.drop_reasons.get(&drop.reason) {
                Some(reason) => format!("{packet} discarded in {place}, reason {reason}"),
                None => format!("{packet} discarded in {place}"),
            }
        }
        (What::Icmp(icmp), _) => {
            format!(
                "ICMP to the sender: {}",
                evidence::icmp_name(icmp, event.tuple.is_v6())
            )
        }
        (What::Socket(_), Hook::TcpConnRequest) => "a listener took the SYN".to_owned(),
        (What::Socket(socket), Hook::TcpSendReset) if socket.sock == 0 => {
            "no socket for it: RST is sent".to_owned()
        }
        (What::Socket(_), Hook::TcpSendReset) => "RST is sent".to_owned(),
        (What::Socket(_), _) => "the handshake ended in the backend".to_owned(),
    }
}

/// What a hook means that read nothing but the packet.
fn packet_note(hook: Hook, way: &str) -> String {
    match hook {
        Hook::NetifReceive => format!("{way} came in"),
        Hook::DevStartXmit => format!("{way} went out"),
        Hook::IpvsTcpSchedule => "a new IPVS entry is to be made".to_owned(),
        hook if hook.is_ipvs_request() => format!("{way} at IPVS"),
        Hook::CtAlloc => "conntrack has no entry for the new connection".to_owned(),
        Hook::CtEarlyDrop => "the conntrack table is full, and nothing in it can go".to_owned(),
        Hook::NatMasquerade => "masquerade finds no address for this device".to_owned(),
        _ => way.to_owned(),
    }
}

fn entry_note(hook: Hook, conn: &IpvsConn) -> String {
    let verb = match hook {
        Hook::IpvsLookup => "old IPVS entry",
        Hook::IpvsExpireNow => "the entry is expired",
        Hook::IpvsNatXmit => "sent to the real server of the entry",
        Hook::IpvsReply => "answer meets the entry",
        _ => "IPVS entry",
    };
    let control = if conn.have & ipvs_conn::CONTROLLED == 0 {
        ""
    } else {
        ", session affinity"
    };
    format!("{verb}: {}{control}", evidence::entry(conn))
}

/// What the scheduler chose, by name.
fn chosen(flow: &Flow, step: &Step, conn: &IpvsConn, facts: &Facts) -> String {
    let service = flow
        .steps_of(step.attempt)
        .find_map(|asked| match &asked.event.what {
            What::IpvsService(service) if asked.event.call == step.event.call => Some(service),
            _ => None,
        });
    let scheduler = service.map_or_else(
        || "an unknown one".to_owned(),
        |service| scheduler(flow, service, facts),
    );
    if conn.conn == 0 {
        return format!("scheduler {scheduler}: no entry was made");
    }
    let control = if conn.have & ipvs_conn::CONTROLLED == 0 {
        ""
    } else {
        ", as session affinity wants it"
    };
    format!("scheduler {scheduler} chose {}{control}", evidence::entry(conn))
}

/// The schedulers of the kernel (`net/netfilter/ipvs/ip_vs_*.c`, 3.10 to 7.3).
const SCHEDULERS: [&str; 14] = [
    "dh", "fo", "lblc", "lblcr", "lc", "mh", "nq", "ovf", "rr", "sed", "sh", "twos", "wlc", "wrr",
];

/// Name of a service's scheduler: as the kernel had it, or as it prints it. Where the kernel does not describe its
/// structs, what was read counts if it is a name.
fn scheduler(flow: &Flow, service: &IpvsService, facts: &Facts) -> String {
    let name = text(&service.scheduler);
    if SCHEDULERS.contains(&name.as_str()) || (service.num_dests != u32::MAX && !name.is_empty()) {
        return name;
    }
    let printed = facts
        .netns
        .get(&flow.netns)
        .and_then(|netns| netns.service(flow.node()));
    printed.map_or_else(|| "unknown".to_owned(), |service| service.scheduler.clone())
}

fn limits_in_words(limits: &IpvsLimits) -> String {
    let number =
        |member, name: &str, value: i32| (limits.have & member != 0).then(|| format!("{name} {value}"));
    let parts: Vec<_> = [
        number(ipvs_limits::DROP_RATE, "drop_rate", limits.drop_rate),
        number(ipvs_limits::CONN_COUNT, "entries", limits.conn_count),
        number(ipvs_limits::CONN_MAX, "conn_max", limits.conn_max),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        "no new IPVS entry".to_owned()
    } else {
        format!("no new IPVS entry: {}", parts.join(", "))
    }
}

/// Both translations of an entry, as its two tuples tell them.
fn translation(ct: &Conntrack) -> String {
    let mut parts = Vec::new();
    if ct.reply.source() != ct.original.destination() {
        parts.push(format!(
            "DNAT {} to {}",
            ct.original.destination(),
            ct.reply.source()
        ));
    }
    if ct.reply.destination() != ct.original.source() {
        parts.push(format!(
            "masquerade (source NAT) {} to {}",
            ct.original.source(),
            ct.reply.destination()
        ));
    }
    if parts.is_empty() {
        "no translation".to_owned()
    } else {
        parts.join(", ")
    }
}

/// Did the packet of this step leave by a device afterwards?
fn leaves(flow: &Flow, step: &Step) -> bool {
    flow.steps_of(step.attempt).any(|later| {
        later.event.hook == Hook::DevStartXmit
            && later.event.skb == step.event.skb
            && later.event.time_ns >= step.event.time_ns
            && later.event.netns == flow.netns
    })
}
