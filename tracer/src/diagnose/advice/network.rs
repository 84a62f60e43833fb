//! Advice about routes, neighbours, devices and tunnels.

use tracer_common::{hook::Hook, tcp::Part};

use super::command::{device, netns_of, route_of, route_to, run, set, setting};
use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof},
        cause::Cause,
        evidence::{self, Key},
        neigh,
        route::{freed, hops},
    },
    flow::model::Step,
};

const RP_FILTER_LOOSE: i64 = 2;
/// Common systems send packets with a TTL of 64 or more: a packet with less than this left started lower, or has passed many
/// hops.
const USUAL_TTL: u32 = 32;

pub(super) fn of(cause: Cause, case: &Case<'_>, proof: &Proof) -> Option<String> {
    match cause {
        Cause::RouteForwardingOff => forwarding(case, proof),
        Cause::RouteUnreachable => unreachable(case, proof),
        Cause::RouteRpFilter => rp_filter(case, proof),
        Cause::RouteMartian => martian(case, proof),
        Cause::RouteLoop => route_loop(case, proof),
        Cause::RouteTtlExceeded => ttl_exceeded(case),
        Cause::NeighWrongAddress => wrong_address(case),
        Cause::BridgeHairpinOff => hairpin(case, proof),
        Cause::NeighUnresolved => neighbour(case, proof),
        Cause::DevTxDropped => tx_dropped(case, proof),
        Cause::TunnelMtu | Cause::TunnelFailed => tunnel(cause, case, proof),
        _ => None,
    }
}

/// The device through which a packet came in.
fn input(step: &Step) -> Option<String> {
    step.event.dev.get()
}

fn forwarding(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let step = case.dropped?;
    let netns = netns_of(step);
    let setting = if case.flow.original.is_v6() {
        "net.ipv6.conf.all.forwarding".to_owned()
    } else if proof.number(Key::ForwardingAll) == Some(1) {
        // Forwarding is off for this device only.
        format!("net/ipv4/conf/{}/forwarding", input(step)?)
    } else {
        "net.ipv4.ip_forward".to_owned()
    };
    let who = if netns == case.flow.netns {
        "kube-proxy or the network plugin sets it when it starts: find out what turned it off (another sysctl file, a restart of \
         networking)."
    } else {
        "It is off in that network namespace, not on the node: if the packet should not be forwarded there at all, its \
         destination address is missing there."
    };
    Some(format!(
        "Turn forwarding on: {}. {who}",
        run(case, netns, &format!("sysctl -w {setting}=1"))
    ))
}

fn unreachable(case: &Case<'_>, proof: &Proof) -> Option<String> {
    // The listener of a pod without a route back, or the packet that was freed.
    let at_listener = case
        .steps()
        .find(|step| proof.value(Key::Listener).is_some() && step.event.hook == Hook::TcpConnRequest);
    let (step, lookup) = if let Some(step) = at_listener {
        (step, freed::of_answer(case, step))
    } else {
        let step = case.dropped?;
        (step, freed::ahead(case, step))
    };
    let look = run(case, netns_of(step), &route_of(case, &lookup));
    let is_made = ["blackhole", "unreachable", "prohibit"]
        .iter()
        .any(|kind| proof.explanation.contains(&format!("{kind} route")));
    let what = if is_made {
        "Such a route is deliberate: Calico adds blackhole routes for its own address blocks, so a more specific route to the pod is \
         missing."
    } else if at_listener.is_some() {
        "Add a route back to the client there: usually the default route of the pod's network plugin."
    } else {
        "A route that the network plugin should have created is missing."
    };
    Some(format!("Check {look}. {what}"))
}

fn rp_filter(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let step = case.dropped?;
    let (netns, source) = (netns_of(step), step.event.tuple.saddr.ip());
    let look = run(case, netns, &route_of(case, &freed::of_source(case, step)));
    let device = input(step)?;
    let (own, all) = (proof.number(Key::RpFilter), proof.number(Key::RpFilterAll));
    let relax = match own.zip(all) {
        // The larger of the two values counts.
        Some((own, all)) if own.max(all) == RP_FILTER_LOOSE => {
            "The filter is loose already (2): it requires only a route through any device, and there is none."
                .to_owned()
        }
        Some(_) => format!(
            "Or set loose mode, which requires only a route through any device: {}. The price: packets with a forged source pass \
             there. systemd-sysctl may reset it: change it in /etc/sysctl.d too.",
            run(
                case,
                netns,
                &format!("sysctl -w net/ipv4/conf/{device}/rp_filter=2")
            )
        ),
        None => String::new(),
    };
    let advice =
        format!("Make the route to {source} lead through {device} ({look} shows the current one). {relax}");
    Some(advice.trim_end().to_owned())
}

fn martian(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let source = proof.value(Key::Source)?;
    let device = input(case.dropped?)?;
    let localnet = match setting(case, "net.ipv4.conf.all.route_localnet") {
        Some("0") => ", or a rule that translates to 127.0.0.0/8 (route_localnet is 0)",
        _ => "",
    };
    Some(format!(
        "Find the sender of {source} behind {device} (`tcpdump -eni {device} src host {source}` shows its MAC address): a \
         duplicate of one of this node's addresses, or a pod that reaches itself through its own service without masquerade \
         (hairpin){localnet}."
    ))
}

fn route_loop(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let place = proof.value(Key::LeftAgainBy)?;
    let left = case
        .steps()
        .find(|step| step.event.hook == Hook::DevStartXmit && evidence::place(step) == place)?;
    let to = left.event.tuple.daddr.ip();
    let look = run(case, netns_of(left), &route_to(to));
    Some(format!(
        "Check {look}, and the same on the host at the other end of {}: each of the two sends packets for {to} to the other. \
         Usually the one that should have the address has lost it, and its default route leads back.",
        device(case, left)?
    ))
}

fn ttl_exceeded(case: &Case<'_>) -> Option<String> {
    let ended = hops::time_exceeded(case, Part::Syn).or_else(|| hops::time_exceeded(case, Part::SynAck))?;
    let (from, to) = (ended.event.tuple.saddr.ip(), ended.event.tuple.daddr.ip());
    let packet = freed::packet(ended);
    let first = case.steps().find_map(|step| match &step.event.payload {
        Payload::Arrival(arrival) if step.event.part == ended.event.part => Some((step, arrival.ttl)),
        _ => None,
    });
    let trace = run(case, case.flow.netns, &format!("traceroute -n {to}"));
    Some(match first {
        Some((step, ttl)) if ttl < USUAL_TTL => {
            let setting = if ended.event.tuple.is_v6() {
                "net.ipv6.conf.all.hop_limit"
            } else {
                "net.ipv4.ip_default_ttl"
            };
            format!(
                "The {packet} had only TTL {ttl} left when it came in through {}: check the initial TTL of {from} (`sysctl \
                 {setting}` there, usually 64), rules that change it (`iptables -t mangle -S`), and the path before that device \
                 for a loop.",
                evidence::place(step)
            )
        }
        Some((step, ttl)) => format!(
            "The {packet} came in through {} with TTL {ttl}, and its TTL expired on the path to {to}: it was probably in a \
             routing loop that tracer does not see. {trace} shows the hops.",
            evidence::place(step)
        ),
        None => format!(
            "Check the initial TTL of {from}, and the path to {to} for a loop: {trace} shows the hops."
        ),
    })
}

/// The advice where the sender's neighbour entry was not found.
fn wrong_address(case: &Case<'_>) -> Option<String> {
    let freed = freed::step(case)?;
    let to = freed.event.tuple.daddr.ip();
    let device = device(case, freed)?;
    let link = run(case, netns_of(freed), &format!("ip link show dev {device}"));
    let entry = if case.flow.is_on_node(&freed.event) {
        format!("the neighbour entry for {to} on the sender (`ip neigh show {to}`)")
    } else {
        format!("`ip neigh show {to}` on this node")
    };
    Some(format!(
        "Compare {entry} with the MAC address of {device} ({link}). Delete a wrong entry (`ip neigh flush to {to}`), and find \
         out who wrote it: another pod with the same address, or a network plugin that sets permanent entries."
    ))
}

fn hairpin(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let (bridge, port) = proof.value(Key::Bridge)?.split_once(", port ")?;
    let set = run(
        case,
        case.flow.netns,
        &format!("bridge link set dev {port} hairpin on"),
    );
    Some(format!(
        "Turn on hairpin for the port: {set}. To keep it for new pods, set `\"hairpinMode\": true` for the bridge plugin of \
         {bridge} in /etc/cni/net.d (flannel: in its delegate)."
    ))
}

fn neighbour(case: &Case<'_>, proof: &Proof) -> Option<String> {
    if let Some(limit) = proof.number(Key::NeighbourLimit) {
        let raised = limit.saturating_mul(2).to_string();
        return Some(format!(
            "The neighbour table is full: raise its limit, {}, and gc_thresh1 and gc_thresh2 with it. The limit applies to all \
             network namespaces of the machine.",
            set(case, neigh::table_limit(case), &raised)?
        ));
    }
    let hop = proof.value(Key::NextHop)?;
    let step = case
        .dropped
        .or_else(|| case.steps().rfind(|step| step.event.dev.get().is_some()))?;
    let device = input(step)?;
    let look = run(case, netns_of(step), &format!("ip neigh show {hop} dev {device}"));
    Some(format!(
        "Check {look}, and whether {hop} is up: its pod or node may be gone while the address is still in use, or its end of the \
         link is down."
    ))
}

fn tx_dropped(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let step = case.dropped?;
    let (device, netns) = (input(step)?, netns_of(step));
    let look = |command: String| run(case, netns, &command);
    Some(match proof.value(Key::Qdisc) {
        Some("noop") => format!(
            "Check {}: the device is not up, or nothing is at its other end.",
            look(format!("ip link show dev {device}"))
        ),
        _ if matches!(case.drop_reason(), Some("TC_EGRESS" | "TC_RECLASSIFY_LOOP")) => format!(
            "Check {}: the network plugin or a traffic shaper installed the filter.",
            look(format!("tc filter show dev {device} egress"))
        ),
        _ => format!(
            "Check {} for drops and {} for errors: the queue is full, or a shaper limits it.",
            look(format!("tc -s qdisc show dev {device}")),
            look(format!("ip -s link show dev {device}"))
        ),
    })
}

fn tunnel(cause: Cause, case: &Case<'_>, proof: &Proof) -> Option<String> {
    let tunnel = proof.value(Key::Tunnel);
    let other = proof.value(Key::OtherNode);
    if cause == Cause::TunnelMtu {
        let tunnel = tunnel?;
        return Some(format!(
            "Check the MTU of {tunnel} and of the device below it (`ip -d link show dev {tunnel}`): IPIP adds 20 bytes to the \
             packet, VXLAN 50. A SYN is 60 bytes long, so only a limit below 80 bytes (IPIP) or 110 (VXLAN) stops it."
        ));
    }
    let other = other?;
    let vxlan = match (
        tunnel,
        case.steps()
            .any(|step| step.event.dev.get().is_some_and(|dev| dev.contains("vxlan"))),
    ) {
        (Some(tunnel), true) => {
            format!(" `bridge fdb show dev {tunnel}` must list the MAC address of that node's tunnel.")
        }
        _ => String::new(),
    };
    Some(format!(
        "Check `ip route get {other}`: there must be a route to the other node, and not through the tunnel itself.{vxlan} Check that \
         the other node is up and accepts this tunnel's packets."
    ))
}
