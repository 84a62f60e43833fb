//! BPF programs that drop packets: XDP, tc, cgroup.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof},
    cause::Cause,
    evidence::{self, Evidence, Key},
    route::freed,
    row::{Absence, Group, Light, Row},
    words::capitalized,
};
use crate::{
    decode::event::{Event, Payload},
    facts::{
        Facts,
        link::{AttachPoint, Link, Program},
    },
    flow::model::Step,
};

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::BpfDropped,
    group: Group::Rules,
    summary: "A BPF program dropped the packet: at XDP, at tc or in a cgroup, on the node or in the pod's network namespace.",
    proof: "The packet was freed by an XDP program (reason XDP, or in do_xdp_generic or veth_xdp_rcv_skb) or a cgroup's program \
            (reason BPF_CGROUP_EGRESS; without reasons, in ip_finish_output or ip6_finish_output; incoming packets: reason \
            SOCKET_FILTER on a kernel that has another reason for security modules, and a program is attached); or it was freed \
            by a tc filter (reason TC_INGRESS or TC_EGRESS, or, where the kernel gives no reasons, in __netif_receive_skb_core or \
            __dev_queue_xmit), and the device has BPF programs there and no filter of another kind.",
    advice: Some(
        "Find the owner of the program: `bpftool net show` and `bpftool cgroup tree` list what is attached, `bpftool prog show \
         id ID` shows who loaded it and when. Network plugins and security agents have their own policy and drop log: change the \
         policy, not the program.",
    ),
    scope: "Every kernel and dataplane. Drops by XDP in a driver, before the kernel has a packet buffer, are not detectable. For \
            incoming packets, older kernels do not distinguish a cgroup's program from a security module: the programs are then \
            listed as candidates.",
    hooks: &[&[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect,
}];

/// The functions in which only XDP frees a packet (`net/core/dev.c`, `drivers/net/veth.c`, 5.10 to 7.3; which of them depends on
/// what the compiler inlined).
const XDP: [&str; 6] = [
    "do_xdp_generic",
    "netif_receive_generic_xdp",
    "generic_xdp_tx",
    "veth_xdp_rcv_skb",
    "veth_xdp_rcv",
    "veth_poll",
];

/// The functions in which the programs of a cgroup see an outgoing packet (`net/ipv4/ip_output.c`, `net/ipv6/ip6_output.c`,
/// 5.10 to 5.17): without a reason, nothing else frees a packet of one segment there.
const CGROUP_OUTPUT: [&str; 2] = ["ip_finish_output", "ip6_finish_output"];

/// The functions in which TCP frees packets, among them those that a socket's filter dropped.
const TCP_INPUT: [&str; 2] = ["tcp_v4_rcv", "tcp_v6_rcv"];

/// The reason of a packet that a cgroup's program or a socket's filter dropped; on kernels without [`SEPARATE`], also of one
/// that a security module dropped.
const SOCKET_FILTER: &str = "SOCKET_FILTER";
/// The reason that was added together with one for security modules (`sk_filter_trim_cap`, `net/core/filter.c`).
const SEPARATE: &str = "PFMEMALLOC";

/// Whether a cgroup's program may have made this drop.
#[must_use]
pub fn may_be_by_cgroup(event: &Event, facts: &Facts) -> bool {
    let Payload::Drop(drop) = &event.payload else {
        return false;
    };
    match facts.drop_reasons.get(&drop.reason).map(String::as_str) {
        Some(reason) => [SOCKET_FILTER, "BPF_CGROUP_EGRESS"].contains(&reason),
        None => facts.symbol(drop.location).is_some_and(|symbol| {
            let function = evidence::function(symbol);
            CGROUP_OUTPUT.contains(&function) || TCP_INPUT.contains(&function)
        }),
    }
}

/// The cgroup programs that may have dropped the packet, where that is not proven.
pub(super) fn candidates(case: &Case<'_>) -> Vec<Evidence> {
    let Some(freed) = case
        .steps()
        .rfind(|step| may_be_by_cgroup(&step.event, case.facts))
    else {
        return Vec::new();
    };
    let known = case.facts.netns.get(&freed.netns);
    known
        .into_iter()
        .flat_map(|netns| &netns.cgroup_programs)
        .filter(|program| program.at == AttachPoint::CgroupIngress)
        .map(|program| Evidence::read(Key::BpfProgram, format!("may have dropped it: {program}"), "bpf"))
        .collect()
}

/// The attach point of the program that dropped the packet.
enum Site {
    Xdp,
    /// In a cgroup, or in a filter of the receiving socket itself.
    CgroupIngress,
    TcIngress,
    TcEgress,
    CgroupEgress,
}

impl Site {
    fn of(case: &Case<'_>, freed: &Step) -> Option<Self> {
        if let Some(reason) = freed::reason(case, freed).filter(|&reason| reason != "NOT_SPECIFIED") {
            return Some(match reason {
                "XDP" => Self::Xdp,
                "TC_INGRESS" => Self::TcIngress,
                "TC_EGRESS" => Self::TcEgress,
                "BPF_CGROUP_EGRESS" => Self::CgroupEgress,
                SOCKET_FILTER if case.facts.drop_reasons.values().any(|known| known == SEPARATE) => {
                    Self::CgroupIngress
                }
                _ => return None,
            });
        }
        if freed::is_in(case, freed, &XDP) {
            return Some(Self::Xdp);
        }
        // A kernel that has these reasons reports them, so the function is no evidence there.
        let has_reasons = |name| case.facts.drop_reasons.values().any(|known| known == name);
        if !has_reasons("BPF_CGROUP_EGRESS") && freed::is_in(case, freed, &CGROUP_OUTPUT) {
            return Some(Self::CgroupEgress);
        }
        // `sch_handle_ingress` and `sch_handle_egress` are inlined. An IP packet is freed there for no other reason: qdiscs and
        // a device that is down free a list (`kfree_skb_list`).
        if !has_reasons("TC_INGRESS")
            && freed::is_in(case, freed, &["__netif_receive_skb_core", "sch_handle_ingress"])
        {
            return Some(Self::TcIngress);
        }
        (!has_reasons("TC_EGRESS") && freed::is_in(case, freed, &["__dev_queue_xmit", "sch_handle_egress"]))
            .then_some(Self::TcEgress)
    }

    const fn includes(&self, at: AttachPoint) -> bool {
        matches!(
            (self, at),
            (
                Self::Xdp,
                AttachPoint::Xdp | AttachPoint::XdpGeneric | AttachPoint::XdpHardware
            ) | (Self::TcIngress, AttachPoint::TcIngress)
                | (Self::TcEgress, AttachPoint::TcEgress)
                | (Self::CgroupEgress, AttachPoint::CgroupEgress)
                | (Self::CgroupIngress, AttachPoint::CgroupIngress)
        )
    }

    /// The attach point, for a verdict without the program's name.
    const fn name(&self) -> &'static str {
        match self {
            Self::Xdp => "an XDP program",
            Self::TcIngress => "a tc program (ingress)",
            Self::TcEgress => "a tc program (egress)",
            Self::CgroupEgress => "a cgroup BPF program (egress)",
            Self::CgroupIngress => "a cgroup BPF program (ingress)",
        }
    }
}

fn detect(case: &Case<'_>) -> Option<Proof> {
    let freed = freed::step(case)?;
    let site = Site::of(case, freed)?;
    let known = case.facts.netns.get(&freed.netns);
    let link = known.and_then(|netns| netns.link(freed.event.ifindex));
    let of_cgroups = known.into_iter().flat_map(|netns| &netns.cgroup_programs);
    let programs: Vec<&Program> = link
        .into_iter()
        .flat_map(|link| &link.programs)
        .chain(of_cgroups)
        .filter(|program| site.includes(program.at))
        .collect();
    // A tc filter of another kind may have dropped it as well.
    let is_tc = matches!(site, Site::TcIngress | Site::TcEgress);
    let has_others = |link: &Link| link.other_filters.iter().any(|&at| site.includes(at));
    if is_tc && link.is_none_or(has_others) {
        return None;
    }
    // Only these sites have a reason or a function of their own.
    let is_certain = matches!(site, Site::Xdp)
        || matches!(site, Site::CgroupEgress) && freed::reason(case, freed).is_some();
    if programs.is_empty() && !is_certain {
        return None;
    }
    let is_cgroup = matches!(site, Site::CgroupEgress | Site::CgroupIngress);
    let device = freed::device(freed);
    let who = match programs.as_slice() {
        [only] if matches!(site, Site::CgroupIngress) => {
            format!("The {only}, or a filter of the receiving socket itself, dropped")
        }
        [] => format!("{} dropped", capitalized(site.name())),
        [only] if is_cgroup => format!("The {only} dropped"),
        several if is_cgroup => format!("One of {} cgroup BPF programs dropped", several.len()),
        [only] => format!("The {only} of {device} dropped"),
        several => format!("One of {} BPF programs of {device} dropped", several.len()),
    };
    let place = if freed.netns == case.flow.netns {
        format!("on this node, at {device}")
    } else {
        let whose = match freed.event.part {
            Part::SynAck => "before it left the backend's network namespace",
            _ => "in the backend's network namespace",
        };
        format!("{whose} ({})", evidence::place(freed))
    };
    let listed = programs.iter().map(|program| {
        let source = if is_cgroup { "bpf" } else { "rtnetlink" };
        Evidence::read(Key::BpfProgram, program.to_string(), source)
    });
    let mut evidence: Vec<Evidence> = listed.collect();
    evidence.push(Evidence::seen(Key::Device, device, Hook::KfreeSkb));
    evidence.extend(evidence::dropped(freed, case.facts));
    Some(Proof::new(
        format!(
            "{who} the {} {} -> {} {place}.",
            freed::packet(freed),
            freed.event.tuple.source(),
            freed.event.tuple.destination(),
        ),
        evidence,
    ))
}
