//! What happened at one step, in words.

use nix::errno::Errno;
use tracer_common::{
    hook::Hook,
    record::{self, ipvs_conn, neighbour, route},
    tcp::Part,
};

use super::{ipvs, socket};
use crate::{
    decode::event::{Payload, text},
    diagnose::{egress, evidence, stack},
    facts::{Facts, route::kind_name},
    flow::model::{Flow, Step},
};

/// `NF_INET_LOCAL_IN` (uapi/linux/netfilter.h).
const LOCAL_IN: u32 = 1;
/// `NF_INET_LOCAL_OUT`.
const LOCAL_OUT: u32 = 3;

/// What happened at a step; `decision` is what the routing layer decided last before it.
pub(super) fn of(flow: &Flow, step: &Step, decision: Option<&record::Route>, facts: &Facts) -> String {
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
    match (&event.payload, event.hook) {
        (Payload::Route(_), hook) if hook.is_ipvs_request() => format!("{way} at IPVS"),
        (Payload::Packet, Hook::IpvsTcpSchedule) => scheduled(flow, step).to_owned(),
        (Payload::Packet | Payload::Skipped(_), hook) => passing(hook, way),
        (Payload::IpvsConn(conn), Hook::IpvsLookup) if conn.conn == 0 => "no old IPVS entry".to_owned(),
        (Payload::IpvsConn(conn), Hook::IpvsSchedule) => ipvs::chosen(flow, step, conn, facts),
        (Payload::IpvsConn(conn), hook) => {
            let verb = match hook {
                Hook::IpvsLookup => "old IPVS entry",
                Hook::IpvsExpireNow => "the entry is expired",
                Hook::IpvsNatXmit => "DNAT to the real server of the entry",
                Hook::IpvsDirectXmit => "as it is to the real server of the entry",
                Hook::IpvsTunnelXmit => "in a tunnel to the real server of the entry",
                Hook::IpvsReply => "the answer is translated back by the entry",
                _ => "IPVS entry",
            };
            let control = if conn.have & ipvs_conn::CONTROLLED == 0 {
                ""
            } else {
                ", session affinity"
            };
            format!("{verb}: {}{control}", evidence::entry(conn))
        }
        (Payload::IpvsService(service), hook) => ipvs::service(flow, service, hook, facts),
        (Payload::IpvsDests(dests), _) => ipvs::servers(dests),
        (Payload::IpvsLimits(limits), _) => ipvs::limits(limits),
        (Payload::Conntrack(ct), Hook::NatSetup) => destination(flow, ct),
        (Payload::Conntrack(ct), Hook::DevStartXmit) => format!(
            "goes the way of an older conntrack entry, to {}",
            ct.reply.source()
        ),
        (Payload::Conntrack(ct), _) => source(ct, decision),
        (Payload::Clash(clash), _) => format!(
            "in the way is the conntrack entry of {} -> {}",
            clash.holder.original.source(),
            clash.holder.original.destination()
        ),
        (Payload::PacketState(state), _) => format!("for conntrack it was {}", evidence::packet_state(state)),
        (Payload::TooBig(told), _) => {
            format!("{} bytes are too much for an MTU of {}", told.length, told.mtu)
        }
        (Payload::Chain(chain), _) => match text(&chain.table) {
            // A kernel without BTF for modules does not show it.
            table if table.is_empty() => format!("dropped by chain {}", text(&chain.chain)),
            table => format!("dropped by table {table} chain {}", text(&chain.chain)),
        },
        (Payload::Table(table), _) => format!("dropped by table {} of iptables", text(&table.name)),
        (Payload::Reject(_), _) => format!("a rule rejects the {packet}"),
        (Payload::Drop(drop), _) => {
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
        (Payload::Icmp(icmp), _) => {
            format!(
                "ICMP to the sender: {}",
                evidence::icmp_name(icmp, event.tuple.is_v6())
            )
        }
        (Payload::Route(route), Hook::RouteMartian) => refused(packet, route),
        (Payload::Route(route), Hook::RouteError) => no_way(packet, route),
        (Payload::Route(route), _) => self::decision(route),
        (Payload::Neighbour(entry), _) => waits(packet, entry),
        (Payload::Egress(egress), _) => egress::describe(egress),
        (Payload::Stack(stack), _) => stack::note(stack, facts),
        (Payload::Vip(vip), _) => format!("the answer will be translated to {}", evidence::service(vip)),
        (Payload::Socket(_) | Payload::Listener(_) | Payload::TimeWait(_), _) => socket::note(step),
    }
}

/// Where the routing layer sends a packet.
pub(super) fn decision(route: &record::Route) -> String {
    let place = match route.nf_hook {
        LOCAL_IN => " (input hook)",
        LOCAL_OUT => " (output hook)",
        _ => "",
    };
    if route.have & route::KIND == 0 {
        return format!("routing decision: unknown{place}");
    }
    if route.kind == route::LOCAL {
        return format!("routing decision: deliver here{place}");
    }
    let device = text(&route.out_dev);
    let device = if route.have & route::OUT == 0 || device.is_empty() {
        "an unknown device"
    } else {
        &device
    };
    let gateway = if route.gateway.is_unset() {
        String::new()
    } else {
        format!(", next hop {}", route.gateway.ip())
    };
    let kind = match u8::try_from(route.kind).ok().and_then(kind_name) {
        Some("unicast") => String::new(),
        Some(kind) => format!(" ({kind})"),
        None => format!(" (type {})", route.kind),
    };
    format!("routing decision: by {device}{gateway}{kind}{place}")
}

/// What the rules decided about the destination.
fn destination(flow: &Flow, ct: &record::Conntrack) -> String {
    // A SYN of the node itself has not come in.
    let from_elsewhere = flow.steps.iter().any(|step| {
        step.event.hook == Hook::NetifReceive
            && step.event.part == Part::Syn
            && step.event.tuple == flow.original
    });
    let place = if from_elsewhere { "prerouting" } else { "output" };
    // A rule may have asked for a translation: the kernel makes none for an entry that is in the table
    // (`nf_nat_setup_info`, `net/netfilter/nf_nat_core.c`).
    if ct.status & record::conntrack::CONFIRMED != 0 {
        return format!("{place}: no new translation, this connection is in conntrack's table");
    }
    if ct.reply.source() == ct.original.destination() {
        format!("{place}: no rule translates the destination")
    } else {
        format!("{place}: DNAT to {}", ct.reply.source())
    }
}

/// What was decided about the source, once a connection is confirmed.
fn source(ct: &record::Conntrack, decision: Option<&record::Route>) -> String {
    let place = match decision {
        Some(route) if route.have & route::KIND != 0 && route.kind == route::LOCAL => "input",
        _ => "postrouting",
    };
    let source = if ct.reply.destination() == ct.original.source() {
        "the source stays".to_owned()
    } else {
        format!("masqueraded as {}", ct.reply.destination())
    };
    format!(
        "{place}: {source}, answer expected as {} -> {}",
        ct.reply.source(),
        ct.reply.destination()
    )
}

fn refused(packet: &str, route: &record::Route) -> String {
    let known = route::RP_FILTER | route::RP_FILTER_ALL;
    if route.have & known == known {
        format!(
            "the source of the {packet} is refused (rp_filter is {} for the device, {} for all)",
            route.rp_filter, route.rp_filter_all
        )
    } else {
        format!("the source of the {packet} is refused")
    }
}

fn no_way(packet: &str, route: &record::Route) -> String {
    if route.have & route::FORWARDING != 0 && route.forwarding == 0 {
        return format!("the {packet} is not forwarded: forwarding is off for the device");
    }
    if route.have & route::ERROR == 0 {
        return format!("there is no way for the {packet}");
    }
    format!(
        "there is no way for the {packet}: {}",
        Errno::from_raw(route.error).desc()
    )
}

fn waits(packet: &str, entry: &record::Neighbour) -> String {
    let who = if entry.address.is_unset() {
        "the next hop".to_owned()
    } else {
        entry.address.ip().to_string()
    };
    let state = neighbour::state_name(entry.state).map_or_else(String::new, |state| format!(" ({state})"));
    format!("the {packet} waits for the hardware address of {who}{state}")
}

/// What became of the question for a new entry. `tcp_conn_schedule` lets go on what it found a real server for, and what no
/// service is there for.
fn scheduled(flow: &Flow, step: &Step) -> &'static str {
    // Where the kernel lets nobody look at the scheduler, that the packet is sent shows it.
    let asked = flow
        .steps_of(step.attempt)
        .any(|other| other.event.hook == Hook::IpvsSchedule || other.event.hook.is_ipvs_xmit());
    match step.verdict {
        Some(0) => "IPVS made no entry",
        None => "IPVS looks for a service",
        Some(_) if asked => "IPVS makes a new entry",
        Some(_) => "IPVS has no service for it",
    }
}

/// Does the hook show a decision about the packet, and not where it passes?
pub(super) const fn is_decision(hook: Hook) -> bool {
    matches!(
        hook,
        Hook::IpvsTcpSchedule
            | Hook::TcpReceiveReset
            | Hook::TcpFinishConnect
            | Hook::CtAlloc
            | Hook::CtIn
            | Hook::CtEarlyDrop
            | Hook::NatMasquerade
            | Hook::XtDnat
            | Hook::XtDnatV0
            | Hook::NftNat
    )
}

/// What a packet does where nothing but the packet is told; `way` is the packet with its addresses.
fn passing(hook: Hook, way: String) -> String {
    match hook {
        Hook::NetifReceive => format!("{way} came in"),
        Hook::DevStartXmit => format!("{way} went out"),
        Hook::TcpConnect => format!("{way} is asked for on this node"),
        Hook::TcpRetransmit => format!("{way} is sent again"),
        Hook::TcpReceiveReset => "the client is refused".to_owned(),
        Hook::TcpFinishConnect => "the client takes the answer".to_owned(),
        hook if hook.is_ipvs_request() => format!("{way} at IPVS"),
        Hook::CtAlloc => "conntrack has no entry for the new connection".to_owned(),
        Hook::CtIn => format!("conntrack knows no connection for the {way} (INVALID)"),
        Hook::CtEarlyDrop => "the conntrack table is full, and nothing in it can go".to_owned(),
        Hook::NatMasquerade => "masquerade finds no address to use here".to_owned(),
        Hook::XtDnat | Hook::XtDnatV0 => "a rule of iptables translates the destination".to_owned(),
        Hook::NftNat => "a rule of nf_tables translates the destination".to_owned(),
        _ => way,
    }
}
