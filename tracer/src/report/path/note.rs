//! The note of a step: what happened there, in words.

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
    facts::{Facts, nat_rule::NatRules, route::kind_name},
    flow::model::{Flow, Step},
};

/// `NF_INET_LOCAL_IN` (uapi/linux/netfilter.h).
const LOCAL_IN: u32 = 1;
/// `NF_INET_LOCAL_OUT`.
const LOCAL_OUT: u32 = 3;

/// The note of a step; `decision` is the last routing decision before it.
pub(super) fn of(flow: &Flow, step: &Step, decision: Option<&record::Route>, facts: &Facts) -> String {
    let event = &step.event;
    // Not `event.part`: on a connection that the node itself opened, the SYN-ACK plays the part of a SYN.
    let packet = match Part::of(event.flags) {
        Part::Syn => "SYN",
        Part::SynAck => "SYN-ACK",
        Part::Rst => "RST",
        Part::Ack => "ACK",
        Part::Other => "packet",
    };
    let addressed = format!(
        "{packet} {} -> {}",
        event.tuple.source(),
        event.tuple.destination()
    );
    match (&event.payload, event.hook) {
        (Payload::Route(_), hook) if hook.is_ipvs_request() => format!("{addressed} at IPVS"),
        (Payload::Packet, Hook::IpvsTcpSchedule) => scheduled(flow, step).to_owned(),
        (Payload::Packet | Payload::Skipped(_) | Payload::Netns(_), hook) => {
            passing(hook, packet, &addressed)
        }
        (Payload::Arrival(arrival), hook) => {
            format!("{}, TTL {}", passing(hook, packet, &addressed), arrival.ttl)
        }
        (Payload::IpvsConn(conn), Hook::IpvsLookup) if conn.conn == 0 => "no old IPVS entry".to_owned(),
        (Payload::IpvsConn(conn), Hook::IpvsSchedule) => ipvs::chosen(flow, step, conn, facts),
        (Payload::IpvsConn(conn), hook) => {
            let verb = match hook {
                Hook::IpvsLookup => "old IPVS entry",
                Hook::IpvsExpireNow => "IPVS expires the entry",
                Hook::IpvsNatXmit => "DNAT to the real server of the entry",
                Hook::IpvsDirectXmit => "unmodified to the real server of the entry",
                Hook::IpvsTunnelXmit => "in a tunnel to the real server of the entry",
                Hook::IpvsReply => "answer translated back by the entry",
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
        (Payload::Conntrack(ct), Hook::NatSetup) => destination(flow, ct, facts),
        (Payload::Conntrack(ct), Hook::DevStartXmit) => {
            format!("follows an older conntrack entry, to {}", ct.reply.source())
        }
        (Payload::Conntrack(ct), _) => source(ct, decision),
        (Payload::Clash(clash), _) => format!(
            "conflicts with the conntrack entry of {} -> {}",
            clash.holder.original.source(),
            clash.holder.original.destination()
        ),
        (Payload::PacketState(state), _) => format!("conntrack state: {}", evidence::packet_state(state)),
        (Payload::TooBig(sizes), _) => {
            format!("{} bytes exceed the MTU of {}", sizes.length, sizes.mtu)
        }
        (Payload::Chain(chain), _) => match text(&chain.table) {
            // Not known on a kernel without module BTF.
            table if table.is_empty() => format!("dropped by chain {}", text(&chain.chain)),
            table => format!("dropped by table {table} chain {}", text(&chain.chain)),
        },
        (Payload::Table(table), _) => format!("dropped by iptables table {}", text(&table.name)),
        (Payload::Reject(_), _) => format!("a rule rejects the {packet}"),
        (Payload::Drop(drop), _) => {
            let place = facts
                .symbols
                .get(&drop.location)
                .cloned()
                .unwrap_or_else(|| format!("{:#x}", drop.location));
            match facts.drop_reasons.get(&drop.reason) {
                Some(reason) => format!("{packet} dropped in {place}, reason {reason}"),
                None => format!("{packet} dropped in {place}"),
            }
        }
        (Payload::Icmp(icmp), _) => {
            format!(
                "ICMP to the sender: {}",
                evidence::icmp_name(icmp, event.tuple.is_v6())
            )
        }
        (Payload::Route(route), Hook::RouteMartian) => refused(packet, route),
        (Payload::Route(route), Hook::RouteError) => no_route(packet, route),
        (Payload::Route(route), _) => self::decision(route),
        (Payload::Neighbour(entry), _) => unresolved(packet, entry),
        (Payload::Mark(mark), _) => format!("mark {:#x}", mark.mark),
        (Payload::TcpHeader(header), _) => format!("TCP segment of {} bytes", header.length),
        (Payload::Egress(egress), _) => egress::describe(egress),
        (Payload::Stack(stack), _) => stack::note(stack, facts),
        (Payload::OwnConnection(_), _) => {
            format!("IPVS handles the SYN-ACK of the node's own connection as a request: {addressed}")
        }
        (Payload::Vip(vip), _) => format!("the answer will be translated to {}", evidence::service(vip)),
        (Payload::Socket(_) | Payload::Listener(_) | Payload::TimeWait(_), _) => socket::note(step),
    }
}

/// The routing decision about a packet.
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
    format!("routing decision: through {device}{gateway}{kind}{place}")
}

/// The translation of the destination.
fn destination(flow: &Flow, ct: &record::Conntrack, facts: &Facts) -> String {
    // A SYN of the node itself passes the output hook.
    let from_elsewhere = flow.steps.iter().any(|step| {
        step.event.hook == Hook::NetifReceive
            && step.event.part == Part::Syn
            && step.event.tuple == flow.original
    });
    let place = if from_elsewhere { "prerouting" } else { "output" };
    // Whatever the rules say, the kernel makes no translation for an entry that is in the table
    // (`nf_nat_setup_info`, `net/netfilter/nf_nat_core.c`).
    if ct.status & record::conntrack::CONFIRMED != 0 {
        return format!("{place}: no new translation, the connection is in the conntrack table");
    }
    if ct.reply.source() == ct.original.destination() {
        format!("{place}: destination unchanged")
    } else {
        let to = ct.reply.source();
        let rules = facts.nat_rules.get(&(flow.netns, flow.node(), to));
        match rules.and_then(NatRules::only) {
            Some(rule) => format!("{place}: DNAT to {to} via {rule}"),
            None => format!("{place}: DNAT to {to}"),
        }
    }
}

/// The translation of the source, once a connection is confirmed.
fn source(ct: &record::Conntrack, decision: Option<&record::Route>) -> String {
    let place = match decision {
        Some(route) if route.have & route::KIND != 0 && route.kind == route::LOCAL => "input",
        _ => "postrouting",
    };
    let source = if ct.reply.destination() == ct.original.source() {
        "source unchanged".to_owned()
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
            "source address of the {packet} rejected (rp_filter is {} for the device, {} for all)",
            route.rp_filter, route.rp_filter_all
        )
    } else {
        format!("source address of the {packet} rejected")
    }
}

fn no_route(packet: &str, route: &record::Route) -> String {
    if route.have & route::FORWARDING != 0 && route.forwarding == 0 {
        return format!("{packet} not forwarded: forwarding is off for the device");
    }
    if route.have & route::ERROR == 0 {
        return format!("no route for the {packet}");
    }
    format!(
        "no route for the {packet}: {}",
        Errno::from_raw(route.error).desc()
    )
}

fn unresolved(packet: &str, entry: &record::Neighbour) -> String {
    let who = if entry.address.is_unset() {
        "the next hop".to_owned()
    } else {
        entry.address.ip().to_string()
    };
    let state = neighbour::state_name(entry.state).map_or_else(String::new, |state| format!(" ({state})"));
    format!("{packet} queued: ARP/ND for {who} is unresolved{state}")
}

/// The outcome of the attempt to create an entry. `tcp_conn_schedule` returns the same for a SYN with a real server and
/// for one without a virtual service.
fn scheduled(flow: &Flow, step: &Step) -> &'static str {
    // If the scheduler cannot be hooked, the transmission shows that there was a service.
    let has_service = flow
        .steps_of(step.attempt)
        .any(|other| other.event.hook == Hook::IpvsSchedule || other.event.hook.is_ipvs_xmit());
    match step.verdict {
        Some(0) => "IPVS creates no entry",
        None => "IPVS looks up the virtual service",
        Some(_) if has_service => "IPVS creates a new entry",
        Some(_) => "IPVS has no virtual service for it",
    }
}

/// Whether the hook shows a decision about the packet, not a place that it passes.
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

/// The note of a hook that shows no more than the packet; `addressed` is the packet with its addresses.
fn passing(hook: Hook, packet: &str, addressed: &str) -> String {
    match hook {
        Hook::NetifReceive => format!("{addressed} came in"),
        Hook::DevStartXmit => format!("{addressed} went out"),
        Hook::TcpConnect => format!("{addressed}: connect() on this node"),
        Hook::TcpRetransmit => format!("{addressed} is retransmitted"),
        Hook::TcpReceiveReset => "the client receives the RST".to_owned(),
        Hook::TcpFinishConnect => "the client accepts the SYN-ACK".to_owned(),
        hook if hook.is_ipvs_request() => format!("{addressed} at IPVS"),
        Hook::CtAlloc => "conntrack cannot allocate an entry for the new connection".to_owned(),
        Hook::CtIn => format!("conntrack finds no connection for the {packet} (INVALID)"),
        Hook::CtEarlyDrop => "the conntrack table is full, and no entry can be evicted".to_owned(),
        Hook::NatMasquerade => "masquerade finds no source address".to_owned(),
        Hook::XtDnat | Hook::XtDnatV0 => "an iptables rule translates the destination".to_owned(),
        Hook::NftNat => "an nf_tables rule translates the destination".to_owned(),
        _ => addressed.to_owned(),
    }
}
