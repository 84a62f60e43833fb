//! The way of a flow, one line a step.

use tracer_common::{
    hook::Hook,
    record::{ipvs_conn, time_wait},
    tcp::Part,
};

use super::milliseconds;
use crate::{
    diagnose::evidence,
    flow::{
        event::{What, text},
        judge,
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
    let is_netfilter =
        hook.is_ipvs_request() || matches!(hook, Hook::IpvsNatXmit | Hook::CtConfirm | Hook::NftDoChain);
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
        (What::Packet, Hook::TcpConnect) => format!("{way} is asked for on this node"),
        (What::Packet, Hook::TcpRetransmit) => format!("{way} is sent again"),
        (What::Packet, Hook::TcpReceiveReset) => "the client is refused".to_owned(),
        (What::Packet, Hook::TcpFinishConnect) => "the client takes the answer".to_owned(),
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
        (What::Socket(_) | What::Listener(_) | What::TimeWait(_), _) => tcp(step),
        (What::Vip(vip), _) => format!("the answer will be translated to {}", evidence::service(vip)),
    }
}

/// What a socket did with the packet.
fn tcp(step: &Step) -> String {
    match (&step.event.what, step.event.hook) {
        (What::Socket(socket), Hook::TcpSendReset) if socket.sock == 0 => {
            "no socket for it: RST is sent".to_owned()
        }
        (What::Socket(_), Hook::TcpSendReset) => "RST is sent".to_owned(),
        (What::Socket(socket), _) if judge::refused_by_listener(step) => format!(
            "the listener threw the ACK away{}",
            waiting(socket.ack_backlog, socket.max_ack_backlog)
        ),
        (What::Socket(_), _) => "the handshake ended in the backend".to_owned(),
        (What::Listener(listener), _) => {
            let what = match step.verdict {
                None => "a listener took the SYN",
                Some(_) => "a listener was asked, and its drop counter grew",
            };
            format!(
                "{what}{}",
                waiting(listener.ack_backlog, listener.max_ack_backlog)
            )
        }
        _ => {
            let what = match step.verdict {
                Some(time_wait::SYN) => "it lets the SYN in",
                Some(time_wait::RST) => "it answers with RST",
                Some(time_wait::ACK | time_wait::ACK_OOW) => "it answers with an ACK",
                Some(_) => "it answers nothing",
                None => "what it does was not seen",
            };
            format!("the socket of an ended connection is asked: {what}")
        }
    }
}

/// How full an accept queue is, where that is worth a word.
fn waiting(ack_backlog: u32, max_ack_backlog: u32) -> String {
    if ack_backlog == u32::MAX || max_ack_backlog == u32::MAX || ack_backlog == 0 {
        String::new()
    } else {
        format!(" ({ack_backlog} of {max_ack_backlog} connections wait for accept())")
    }
}
