//! The way of a flow, one line a step.

use tracer_common::{hook::Hook, record::ipvs_conn, tcp::Part};

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
        note: note(step, facts),
    }
}

/// The verdict's name, for functions that return one.
fn verdict_name(step: &Step, verdict: i32) -> Option<String> {
    let hook = step.event.hook;
    if hook == Hook::IpvsTcpSchedule {
        return Some(if verdict == 0 { "verdict set" } else { "go on" }.to_owned());
    }
    let is_netfilter = hook.is_ipvs_request()
        || matches!(
            hook,
            Hook::IpvsNatXmit | Hook::CtConfirm | Hook::NftDoChain | Hook::IptDoTable
        );
    is_netfilter.then(|| match verdict & 0xff {
        0 => "NF_DROP".to_owned(),
        1 => "NF_ACCEPT".to_owned(),
        2 if verdict >> 16 != 0 => "dropped (NF_STOLEN with a reason)".to_owned(),
        2 => "NF_STOLEN".to_owned(),
        _ => verdict.to_string(),
    })
}

fn note(step: &Step, facts: &Facts) -> String {
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
        (What::Packet, Hook::NetifReceive) => format!("{way} came in"),
        (What::Packet, Hook::DevStartXmit) => format!("{way} went out"),
        (What::Packet, Hook::IpvsTcpSchedule) => "a new IPVS entry is to be made".to_owned(),
        (What::Packet, hook) if hook.is_ipvs_request() => format!("{way} at IPVS"),
        (What::Packet, _) => way,
        (What::IpvsConn(conn), Hook::IpvsLookup) if conn.conn == 0 => "no old IPVS entry".to_owned(),
        (What::IpvsConn(conn), Hook::IpvsSchedule) if conn.conn == 0 => "no real server chosen".to_owned(),
        (What::IpvsConn(conn), hook) => {
            let verb = match hook {
                Hook::IpvsLookup => "old IPVS entry",
                Hook::IpvsExpireNow => "the entry is expired",
                Hook::IpvsSchedule => "chosen",
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
        (What::IpvsService(service), _) => {
            let scheduler = text(&service.scheduler);
            let scheduler = if scheduler.is_empty() {
                "unknown"
            } else {
                &scheduler
            };
            match service.num_dests {
                u32::MAX => format!("scheduler {scheduler}"),
                servers => format!("scheduler {scheduler}, {servers} real servers"),
            }
        }
        (What::Conntrack(ct), Hook::XtDnat | Hook::XtDnatV0 | Hook::NftNat) => {
            format!("DNAT to {}", ct.reply.source())
        }
        (What::Conntrack(ct), _) => {
            format!(
                "answer expected as {} -> {}",
                ct.reply.source(),
                ct.reply.destination()
            )
        }
        (What::Chain(chain), _) => {
            format!(
                "dropped by table {} chain {}",
                text(&chain.table),
                text(&chain.chain)
            )
        }
        (What::Table(table), _) => format!("dropped by table {} of iptables", text(&table.name)),
        (What::Reject(_), _) => format!("a rule rejects the {packet}"),
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
