//! Nothing translated the SYN: it ended at this node's own TCP, although an object of the node names its port as that of a
//! service.

use tracer_common::{
    hook::Hook,
    record::{PacketState, packet_state},
    tcp::Part,
};

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
    tcp,
};
use crate::{
    decode::event::Payload,
    facts::port::{NamedBefore, ObjectKind, Port, PortObject, Process, WhyNot},
    flow::model::Step,
};

/// A listener that left a connection waiting for this long never accepts it, nanoseconds.
const NEVER_ACCEPTS_NS: u64 = 5_000_000_000;
/// The source of rules, sets and virtual services.
const OBJECTS: &str = "rules, IP sets and IPVS services of the node";
const PROC: &str = "/proc";

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::ServiceNotTranslated,
        group: Group::Service,
        summary: "The port belongs to a service, but nothing translated the SYN: it reached this node's own TCP, where nothing \
                  listens.",
        proof: "The SYN reached the node's own TCP with its original destination, and that TCP answered with RST because \
                no socket listens there; and a rule, an element of a map, an IP set or an IPVS virtual service of the node names \
                this port, or kube-proxy's rules were seen to name it before. The explanation shows why that did not translate \
                it, as far as that is known.",
        advice: Some(
            "Check that kube-proxy is running on this node, and read its log (`kubectl -n kube-system logs -l \
             k8s-app=kube-proxy`). Restart it to make it write all its rules again.",
        ),
        scope: "Every dataplane and kernel. Where IPVS has other services, a missing one is ipvs.no-service.",
        hooks: &[&[Hook::TcpSendReset]],
        absence: Absence::Nothing,
        light: Light::WithPath,
        detect: not_translated,
    },
    Row {
        cause: Cause::ServiceAnsweredLocally,
        group: Group::Service,
        summary: "The port belongs to a service, but nothing translated the SYN: a socket on this node answered it, and no \
                  program accepts on that socket.",
        proof: "A listener of the node's own network namespace processed the SYN with the address and port that the client sent; a \
                rule, an element of a map, an IP set or an IPVS virtual service of the node names this port; and the listener \
                belongs to kube-proxy, or left an earlier connection waiting for 5 s or longer.",
        advice: Some(
            "The client is connected, but no pod will ever answer. kube-proxy before 1.24 holds a socket on each NodePort to \
             keep other programs away; it never accepts connections. Find out why its rules or virtual services are missing: read its log, \
             and check whether they were flushed. Restart kube-proxy to make it write them again.",
        ),
        scope: "Every dataplane and kernel. The handshake finishes, so the fate is established. Not reported for a host-network \
                program that accepts connections, or for the first connection to a listener other than kube-proxy's: it takes \
                a few seconds to see that the listener never accepts.",
        hooks: &[&[Hook::TcpConnRequest]],
        absence: Absence::Nothing,
        light: Light::WithPath,
        detect: answered_locally,
    },
];

/// Whether the SYN ended at this step unmodified: nothing translated it, not even to its own destination.
pub(super) fn is_untranslated(case: &Case<'_>, end: &Step) -> bool {
    let flow = case.flow;
    let translates = |step: &Step| {
        let hook = step.event.hook;
        hook.shows_ipvs()
            || hook.is_iptables_dnat()
            || hook == Hook::NftNat
            || matches!(&step.event.payload, Payload::IpvsConn(conn) if conn.conn != 0)
    };
    end.event.tuple == flow.original && flow.is_on_node(&end.event) && !case.steps().any(translates)
}

/// The facts read about the port of a SYN that nothing translated.
pub(super) fn port<'a>(case: &Case<'a>, end: &Step) -> Option<&'a Port> {
    let flow = case.flow;
    let port = case.facts.port(flow.netns, flow.node());
    port.filter(|_| is_untranslated(case, end))
}

/// Whether everything that could name the port was read, and nothing names it.
pub(super) fn is_unused(port: &Port) -> bool {
    port.is_complete && port.objects.is_empty() && port.named_before.is_none()
}

/// The evidence that nothing names the port.
pub(super) fn named_by_nothing(port: &Port, end: &Step) -> Evidence {
    nothing(port.read_ns, end.event.time_ns)
}

fn nothing(read_ns: u64, at_ns: u64) -> Evidence {
    let when = when(read_ns, at_ns);
    Evidence::read(
        Key::PortNamedBy,
        format!("nothing (read {when} this SYN)"),
        OBJECTS,
    )
}

fn not_translated(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Refused {
        return None;
    }
    let reset = tcp::refusal(case.flow, case.attempt)?;
    let port = port(case, reset)?;
    let named = Named::of(port)?;
    let why = Why::of(case, port, &named);
    let mut evidence = vec![
        Evidence::seen(
            Key::RstSentBy,
            format!("this node ({})", evidence::place(reset)),
            Hook::TcpSendReset,
        ),
        Evidence::seen(Key::SynSocket, "none", Hook::TcpSendReset),
    ];
    evidence.extend(why.evidence(case));
    evidence.extend(named.evidence(port, reset.event.time_ns));
    let explanation = format!(
        "The SYN to {} was not translated, so it reached this node's own TCP, where nothing listens. {} {}",
        case.flow.node(),
        named.sentence(port.read_ns < reset.event.time_ns),
        why.sentence(&named),
    );
    let proof = Proof::new(explanation.trim_end(), evidence);
    Some(match why.advice(&named) {
        Some(advice) => proof.advise(advice),
        None => proof,
    })
}

/// The object that names the port, or the rules that named it before.
enum Named<'a> {
    Now(&'a PortObject),
    Before(&'a NamedBefore),
}

impl<'a> Named<'a> {
    fn of(port: &'a Port) -> Option<Self> {
        // Best first: an object with a reason other than a mismatch, one without a reason, a rule that does not match this SYN.
        let rank = |object: &&PortObject| match &object.why_not {
            Some(WhyNot::NoMatch) => 2,
            None => 1,
            Some(_) => 0,
        };
        let now = port.objects.iter().min_by_key(rank);
        now.map(Self::Now)
            .or_else(|| port.named_before.as_ref().map(Self::Before))
    }

    fn service(&self) -> Option<&str> {
        match self {
            Self::Now(object) => object.service.as_deref(),
            Self::Before(before) => Some(&before.service),
        }
    }

    /// A sentence about the object that names the port, read before or after the SYN.
    fn sentence(&self, is_read_before: bool) -> String {
        let verb = if is_read_before { "was" } else { "is" };
        match self {
            Self::Now(object) => {
                let of = object
                    .service
                    .as_ref()
                    .map_or_else(String::new, |service| format!(" (service {service})"));
                format!("The port {verb} named by {}{of}.", object.place)
            }
            Self::Before(before) => format!(
                "kube-proxy's rules named service {} for this port before; they no longer do.",
                before.service
            ),
        }
    }

    fn evidence(&self, port: &'a Port, at_ns: u64) -> Vec<Evidence> {
        let when = when(port.read_ns, at_ns);
        let mut out: Vec<Evidence> = port
            .objects
            .iter()
            .map(|object| {
                let service = object
                    .service
                    .as_ref()
                    .map_or_else(String::new, |service| format!(", service {service}"));
                let why = object
                    .why_not
                    .as_ref()
                    .map_or_else(String::new, |why| format!(": {why}"));
                Evidence::read(
                    Key::PortNamedBy,
                    format!("{}{service}{why} (read {when} this SYN)", object.place),
                    OBJECTS,
                )
            })
            .collect();
        if let Self::Before(before) = self {
            out.push(Evidence::read(
                Key::PortNamedBefore,
                format!(
                    "service {}, {} this SYN",
                    before.service,
                    self::when(before.seen_ns, at_ns)
                ),
                "kube-proxy's rules",
            ));
            out.push(nothing(port.read_ns, at_ns));
        }
        out
    }
}

/// The time between a reading and `at_ns`, as `3 ms before`.
fn when(read_ns: u64, at_ns: u64) -> String {
    let order = if read_ns < at_ns { "before" } else { "after" };
    format!("{} ms {order}", read_ns.abs_diff(at_ns) / 1_000_000)
}

/// Why nothing translated the SYN, as far as the kernel shows.
enum Why {
    /// The SYN was excluded from connection tracking, by one of these rules.
    Untracked(Vec<String>),
    /// The NAT rules were evaluated, and none translated it.
    NoRule,
    /// Not seen.
    Unseen,
}

impl Why {
    fn of(case: &Case<'_>, port: &Port, named: &Named<'_>) -> Self {
        let state = case.steps().find_map(|step| match &step.event.payload {
            Payload::PacketState(state) if step.event.part == Part::Syn => Some(state),
            _ => None,
        });
        // IPVS translates untracked packets too.
        let by_rules = matches!(
            named,
            Named::Now(PortObject {
                kind: ObjectKind::Rule | ObjectKind::MapElement,
                ..
            })
        );
        if state.is_some_and(is_untracked) && by_rules {
            return Self::Untracked(port.untracked_by.clone());
        }
        if nat_setup(case).is_some() {
            Self::NoRule
        } else {
            Self::Unseen
        }
    }

    fn evidence(&self, case: &Case<'_>) -> Vec<Evidence> {
        match self {
            Self::Untracked(rules) => {
                let seen = Evidence::seen(Key::ConntrackState, "UNTRACKED", Hook::KfreeSkb);
                let rules = rules
                    .iter()
                    .map(|rule| Evidence::read(Key::UntrackedBy, rule.clone(), "rules"));
                std::iter::once(seen).chain(rules).collect()
            }
            Self::NoRule => nat_setup(case)
                .map(|step| {
                    let value = "rules evaluated, none translated it";
                    Evidence::seen(Key::NatSetup, value, step.event.hook)
                })
                .into_iter()
                .collect(),
            Self::Unseen => Vec::new(),
        }
    }

    fn sentence(&self, named: &Named<'_>) -> String {
        match (self, named) {
            (Self::Untracked(rules), _) => {
                let by = match rules.as_slice() {
                    [] => String::new(),
                    [rule] => format!(": see {rule}"),
                    several => format!(": see {}", several.join(", ")),
                };
                format!("But the SYN was excluded from connection tracking, so no NAT rule saw it{by}.")
            }
            (_, Named::Now(object)) => match (&object.why_not, object.kind) {
                (Some(why), _) => format!("But {why}."),
                (None, ObjectKind::IpSet) => {
                    "But an IP set translates nothing, and IPVS has no virtual service for this port."
                        .to_owned()
                }
                (None, ObjectKind::VirtualService) => {
                    "It did not exist yet when the SYN came, or IPVS did not see the SYN.".to_owned()
                }
                (None, _) if matches!(self, Self::NoRule) => "But no NAT rule matched this SYN.".to_owned(),
                (None, _) => String::new(),
            },
            (_, Named::Before(_)) => String::new(),
        }
    }

    fn advice(&self, named: &Named<'_>) -> Option<String> {
        if let Self::Untracked(_) = self {
            return Some(
                "Do not exclude service ports from connection tracking: remove the NOTRACK rule, or restrict it to other ports \
                 (`iptables -t raw -S`, `nft list ruleset | grep notrack`)."
                    .to_owned(),
            );
        }
        let service = named
            .service()
            .map_or_else(String::new, |service| format!(" of {service}"));
        match named {
            Named::Now(PortObject {
                why_not: Some(WhyNot::EndedBefore(rule)),
                ..
            }) => Some(format!(
                "Check {rule}: it comes before kube-proxy's rules. Remove it, or move it after them."
            )),
            Named::Now(PortObject {
                why_not: Some(WhyNot::OtherAddress),
                ..
            }) => Some(
                "Connect to an address that the service listens on, or add this one to kube-proxy's \
                 --nodeport-addresses.".to_owned(),
            ),
            Named::Now(PortObject {
                kind: ObjectKind::IpSet,
                ..
            }) => Some(
                "The IP set is from kube-proxy's IPVS mode. If kube-proxy still runs in that mode, its virtual services were \
                 removed: check `ipvsadm -Ln`, and restart kube-proxy. If it runs in another mode, check its rules: if they are \
                 missing, its log shows why."
                    .to_owned(),
            ),
            Named::Before(_) => Some(format!(
                "The rules{service} are gone: check whether the service was deleted or its NodePort changed (`kubectl get service \
                 -A`). If not, the rules were flushed: restart kube-proxy, which writes them again."
            )),
            Named::Now(_) => None,
        }
    }
}

fn is_untracked(state: &PacketState) -> bool {
    state.ct == 0 && state.info == packet_state::UNTRACKED
}

/// The step at which the NAT rules were evaluated for the SYN: for a packet that none of them translates, NAT is set up without
/// a translation (`nf_nat_alloc_null_binding`, `net/netfilter/nf_nat_core.c`).
fn nat_setup<'a>(case: &Case<'a>) -> Option<&'a Step> {
    case.steps()
        .find(|step| step.event.hook == Hook::NatSetup && step.event.part == Part::Syn)
}

fn answered_locally(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Established {
        return None;
    }
    let flow = case.flow;
    let accepted = tcp::accepted(flow, case.attempt)?;
    let port = port(case, accepted)?;
    let (named, listener) = (Named::of(port)?, port.listener.as_ref()?);
    let owner = listener.owner.as_ref();
    let belongs_to_kube_proxy = owner.is_some_and(|owner| owner.is_kube_proxy);
    if !belongs_to_kube_proxy && listener.unaccepted_ns < NEVER_ACCEPTS_NS {
        return None;
    }
    let mut evidence = vec![
        Evidence::seen(
            Key::ListenerAccepted,
            evidence::place(accepted),
            Hook::TcpConnRequest,
        ),
        Evidence::read(
            Key::ListenerOwner,
            owner.map_or_else(|| "not found".to_owned(), Process::to_string),
            PROC,
        ),
    ];
    let waited = listener.unaccepted_ns / 1_000_000_000;
    if waited > 0 {
        evidence.push(Evidence::read(
            Key::ListenerNeverAccepts,
            format!("an earlier connection still waits for accept() after {waited} s"),
            PROC,
        ));
    }
    evidence.extend(named.evidence(port, accepted.event.time_ns));
    let who = match owner {
        Some(owner) if owner.is_kube_proxy => format!("the socket with which {owner} reserves the port"),
        Some(owner) => format!("a socket of {owner} that does not accept connections"),
        None => "a socket of this node that does not accept connections".to_owned(),
    };
    let proof = Proof::new(
        format!(
            "The SYN to {} was not translated: {who} answered it. The client is connected to this node, not to a pod. {}",
            flow.node(),
            named.sentence(port.read_ns < accepted.event.time_ns),
        ),
        evidence,
    );
    Some(if belongs_to_kube_proxy {
        proof
    } else {
        proof.advise(
            "The client is connected, but nothing will ever answer: stop the program that listens on the service's port on this \
             node, or give the service another NodePort, and check why kube-proxy's rules do not translate the port.",
        )
    })
}
