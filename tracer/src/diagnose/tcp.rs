//! The backend's listener: there is none, or it drops the SYN or the client's ACK.

pub(super) mod checksum;
pub(super) mod no_listener;
pub(super) mod old_connection;
pub(super) mod timewait;

use tracer_common::{
    hook::Hook,
    record::{Listener, Socket, time_wait},
    tcp::Part,
};

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
    words::{capitalized, count},
};
use crate::{
    decode::event::Payload,
    flow::{
        judge,
        model::{Flow, Step},
    },
};

const UNKNOWN_NUMBER: u32 = u32::MAX;
/// The drop reason of an open connection that gets a SYN (`SKB_DROP_REASON_TCP_INVALID_SYN`, since 5.18).
const INVALID_SYN: &str = "TCP_INVALID_SYN";

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::TcpAcceptQueueFull,
        group: Group::BackendTcp,
        summary: "The backend's listener dropped the SYN: its accept queue is full.",
        proof: "The listener processed the SYN while its accept queue was longer than its limit, its drop counter increased \
                meanwhile, and it sent no SYN-ACK. Nothing else shows it: the kernel counts such a packet as consumed. Where the \
                SYN queue is full too, this cause is named: it alone is sufficient.",
        advice: Some(
            "The application accepts connections too slowly, or has stopped accepting: check its load and threads. A longer queue \
             (the backlog of listen(), and net.core.somaxconn in the pod) helps only against bursts.",
        ),
        scope: "Every kernel and dataplane, if the backend is on this node. The client retransmits its SYN: the flow is stalled if \
                the queue has room by then, and unanswered if not.",
        hooks: &[&[Hook::TcpConnRequest]],
        absence: Absence::Probes,
        light: Light::WithPath,
        detect: accept_queue_full,
    },
    Row {
        cause: Cause::TcpSynQueueFull,
        group: Group::BackendTcp,
        summary: "The backend's listener dropped the SYN: its SYN queue is full, and SYN cookies are off.",
        proof: "The listener processed the SYN while tcp_syncookies was 0 in its network namespace and its SYN queue was as long as \
                its backlog, or longer than three quarters of tcp_max_syn_backlog; its drop counter increased meanwhile, and it \
                sent no SYN-ACK.",
        advice: Some(
            "Set net.ipv4.tcp_syncookies=1 in the pod's network namespace, or raise the listener's backlog together with \
             net.core.somaxconn and net.ipv4.tcp_max_syn_backlog. Many handshakes that never finish are a SYN flood, or answers \
             that do not reach the clients.",
        ),
        scope: "Every kernel and dataplane, if the backend is on this node and its network namespace has tcp_syncookies=0.",
        hooks: &[&[Hook::TcpConnRequest]],
        absence: Absence::Probes,
        light: Light::WithPath,
        detect: syn_queue_full,
    },
    Row {
        cause: Cause::TcpFinalAckDropped,
        group: Group::BackendTcp,
        summary: "The backend's listener dropped the client's final ACK: its accept queue is full. The client considers itself \
                  connected, the backend does not.",
        proof: "tcp_v4_syn_recv_sock returned no connection for the ACK, while the accept queue was longer than its limit.",
        advice: Some(
            "The application accepts connections too slowly, or has stopped accepting: check its load and threads. A longer queue \
             (the backlog of listen(), and net.core.somaxconn in the pod) helps only against bursts.",
        ),
        scope: "Every kernel and dataplane, if the backend is on this node. The backend retransmits its SYN-ACK, first after a \
                second. The flow is stalled if a later ACK or the client's first data is accepted (the time lost counts from the \
                dropped ACK, and the client sees a late answer, not a slow connect); dropped as long as none is; refused with \
                tcp_abort_on_overflow=1, where the ACK is answered with RST.",
        hooks: &[&[Hook::TcpSynRecvSock]],
        absence: Absence::Nothing,
        light: Light::Proves,
        detect: final_ack_dropped,
    },
];

/// The step at which TCP refused the SYN because it has no socket for it.
pub(super) fn refusal(flow: &Flow, attempt: usize) -> Option<&Step> {
    flow.steps_of(attempt).find(|step| {
        step.event.part == Part::Syn
            && step.event.hook == Hook::TcpSendReset
            && matches!(&step.event.payload, Payload::Socket(socket) if socket.sock == 0)
    })
}

/// The end whose TCP it was, as part of a sentence.
pub(super) fn owner(flow: &Flow, step: &Step) -> &'static str {
    if flow.is_on_node(&step.event) {
        "this node"
    } else {
        "the pod"
    }
}

/// The step at which TCP in the backend's netns dropped the SYN. Such a backend need not be silent: it may have answered with
/// something other than a SYN-ACK (an old socket in `TIME_WAIT` sends an ACK).
pub(super) fn dropped_by_tcp<'a>(case: &Case<'a>) -> Option<&'a Step> {
    let in_tcp = |location| {
        case.facts
            .symbol(location)
            .is_some_and(|symbol| symbol.starts_with("tcp_"))
    };
    case.steps().find(|step| {
        step.event.part == Part::Syn
            && matches!(&step.event.payload, Payload::Drop(drop) if in_tcp(drop.location))
    })
}

/// Whether this kernel shows every packet that TCP drops. Before 5.18, `tcp_drop` freed them without `skb:kfree_skb`
/// (`net/ipv4/tcp_input.c`); TCP's drop reasons were added together with that tracepoint call.
pub(super) fn shows_drops(case: &Case<'_>) -> bool {
    let mut reasons = case.facts.drop_reasons.values();
    reasons.any(|reason| reason == INVALID_SYN)
}

/// The step at which a listener processed the SYN.
pub(super) fn at_listener(flow: &Flow, attempt: usize) -> Option<&Step> {
    flow.steps_of(attempt)
        .find(|step| step.event.hook == Hook::TcpConnRequest)
}

/// The step at which a listener accepted this SYN, or one before it: from then on every SYN of the flow is a retransmission to
/// the backend, which answers it with the same SYN-ACK and frees it.
pub(super) fn accepted(flow: &Flow, attempt: usize) -> Option<&Step> {
    flow.steps
        .iter()
        .rfind(|step| step.attempt <= attempt && step.event.hook == Hook::TcpConnRequest)
        .filter(|step| step.verdict.is_none())
}

/// The step at which a listener processed the SYN and dropped it: its drop counter increased meanwhile, and there was no
/// SYN-ACK.
pub(super) fn dropped_by_listener<'a>(case: &Case<'a>) -> Option<(&'a Step, &'a Listener)> {
    if case.steps().any(|step| step.event.part == Part::SynAck) {
        return None;
    }
    case.steps().find_map(|step| match &step.event.payload {
        Payload::Listener(listener) if step.verdict.is_some_and(|increase| increase != 0) => {
            Some((step, listener))
        }
        _ => None,
    })
}

fn is_accept_queue_full(ack_backlog: u32, max_ack_backlog: u32) -> bool {
    // `sk_acceptq_is_full` (include/net/sock.h, 3.10 to 7.3).
    ack_backlog != UNKNOWN_NUMBER && max_ack_backlog != UNKNOWN_NUMBER && ack_backlog > max_ack_backlog
}

/// Whether the limits on handshakes reject another one: `tcp_conn_request` (`net/ipv4/tcp_input.c`, 4.4 to 7.3).
fn is_syn_queue_full(listener: &Listener) -> bool {
    let Listener {
        syn_queue,
        max_syn_backlog,
        max_ack_backlog,
        syncookies,
        ..
    } = *listener;
    if syncookies != 0 || syn_queue == UNKNOWN_NUMBER {
        return false;
    }
    let backlog_full = max_ack_backlog != UNKNOWN_NUMBER && syn_queue >= max_ack_backlog;
    // The last quarter is reserved for clients the kernel has seen before.
    let last_quarter = max_syn_backlog != UNKNOWN_NUMBER
        && i64::from(max_syn_backlog) - i64::from(syn_queue) < i64::from(max_syn_backlog >> 2);
    backlog_full || last_quarter
}

/// The listener that dropped the SYN; `None` also where a later SYN explains nothing.
fn refusing_listener<'a>(case: &Case<'a>) -> Option<(&'a Step, &'a Listener)> {
    matches!(case.situation, Situation::Silent | Situation::Late)
        .then(|| dropped_by_listener(case))
        .flatten()
        // Its SYN-ACK would not be seen.
        .filter(|(step, _)| case.is_watched() || !case.flow.is_on_node(&step.event))
}

/// The listener that dropped the SYN although all its queues were seen to have room.
pub(super) fn refused_without_a_full_queue<'a>(case: &Case<'a>) -> Option<(&'a Step, &'a Listener)> {
    refusing_listener(case).filter(|(_, listener)| {
        let numbers = [listener.ack_backlog, listener.max_ack_backlog, listener.syn_queue];
        !numbers.contains(&UNKNOWN_NUMBER)
            && !is_accept_queue_full(listener.ack_backlog, listener.max_ack_backlog)
            && !is_syn_queue_full(listener)
    })
}

fn accept_queue_full(case: &Case<'_>) -> Option<Proof> {
    let (step, listener) = refusing_listener(case)?;
    if !is_accept_queue_full(listener.ack_backlog, listener.max_ack_backlog) {
        return None;
    }
    Some(Proof::new(
        format!(
            "{} ({}) dropped the SYN: its accept queue is full ({} waiting, limit {}).",
            capitalized(owner(case.flow, step)),
            step.event.tuple.destination(),
            listener.ack_backlog,
            listener.max_ack_backlog,
        ),
        queues(case, step, listener),
    ))
}

fn syn_queue_full(case: &Case<'_>) -> Option<Proof> {
    let (step, listener) = refusing_listener(case)?;
    // These limits do not apply to a SYN that an ended connection accepts.
    let is_exempt = case
        .steps()
        .any(|step| step.event.hook == Hook::TcpTimewait && step.verdict == Some(time_wait::SYN));
    if is_exempt || !is_syn_queue_full(listener) {
        return None;
    }
    Some(Proof::new(
        format!(
            "{} ({}) dropped the SYN: its SYN queue is full ({} in progress), and SYN cookies are off.",
            capitalized(owner(case.flow, step)),
            step.event.tuple.destination(),
            count(listener.syn_queue, "handshake"),
        ),
        queues(case, step, listener),
    ))
}

/// Evidence of the listener's queues when it processed the SYN, and of its drop counter.
pub(super) fn queues(case: &Case<'_>, step: &Step, listener: &Listener) -> Vec<Evidence> {
    let seen = |key: Key, value: String| Evidence::seen(key, value, Hook::TcpConnRequest);
    let mut out = vec![seen(
        Key::Listener,
        format!("{} ({})", step.event.tuple.destination(), evidence::place(step)),
    )];
    out.extend(queue(step));
    if listener.syn_queue != UNKNOWN_NUMBER {
        out.push(seen(Key::SynQueue, listener.syn_queue.to_string()));
    }
    if listener.max_syn_backlog != UNKNOWN_NUMBER {
        out.push(seen(Key::MaxSynBacklog, listener.max_syn_backlog.to_string()));
    }
    if listener.syncookies != UNKNOWN_NUMBER {
        out.push(seen(Key::SynCookies, listener.syncookies.to_string()));
    }
    if let Some(increase) = step.verdict {
        out.push(seen(Key::ListenerDrops, increase.to_string()));
    }
    if case.situation == Situation::Late {
        out.extend(evidence::earlier(case.flow));
    }
    out
}

fn final_ack_dropped(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Dropped | Situation::Refused) {
        return None;
    }
    let flow = case.flow;
    let step = case.dropped.filter(|step| judge::refused_by_listener(step))?;
    let Payload::Socket(Socket {
        ack_backlog,
        max_ack_backlog,
        ..
    }) = step.event.payload
    else {
        return None;
    };
    if !is_accept_queue_full(ack_backlog, max_ack_backlog) {
        return None;
    }
    let drops = flow
        .steps
        .iter()
        .filter(|step| judge::refused_by_listener(step))
        .count();
    let after = match (case.situation, flow.accepted) {
        (Situation::Refused, _) => "The ACK was answered with RST.",
        (_, true) => "A later ACK was accepted.",
        (_, false) => "The client considers itself connected.",
    };
    let mut evidence = vec![Evidence::seen(
        Key::Listener,
        format!("{} ({})", step.event.tuple.destination(), evidence::place(step)),
        Hook::TcpSynRecvSock,
    )];
    evidence.extend(queue(step));
    evidence.push(Evidence::seen(
        Key::AcksDropped,
        drops.to_string(),
        Hook::TcpSynRecvSock,
    ));
    evidence.push(Evidence::seen(
        Key::SynAcksSent,
        flow.synacks.to_string(),
        Hook::DevStartXmit,
    ));
    Some(Proof::new(
        format!(
            "{} ({}) dropped the client's ACK: its accept queue is full ({ack_backlog} waiting, limit {max_ack_backlog}). {after}",
            capitalized(owner(flow, step)),
            step.event.tuple.destination(),
        ),
        evidence,
    ))
}

/// Evidence of the listener's accept queue.
pub(super) fn queue(step: &Step) -> Option<Evidence> {
    let (waiting, limit) = match &step.event.payload {
        Payload::Socket(socket) => (socket.ack_backlog, socket.max_ack_backlog),
        Payload::Listener(listener) => (listener.ack_backlog, listener.max_ack_backlog),
        _ => return None,
    };
    (waiting != UNKNOWN_NUMBER && limit != UNKNOWN_NUMBER).then(|| {
        Evidence::seen(
            Key::AcceptQueue,
            format!("{waiting} waiting, limit {limit}"),
            step.event.hook,
        )
    })
}
