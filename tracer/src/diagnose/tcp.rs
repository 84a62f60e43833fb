//! The backend's listener: there is none, or it throws the SYN or the client's ACK away.

use tracer_common::{
    hook::Hook,
    record::{Listener, Socket, time_wait},
    tcp::Part,
};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
};
use crate::{
    decode::event::Payload,
    flow::{
        judge,
        model::{Flow, Step},
    },
};

const UNKNOWN_NUMBER: u32 = u32::MAX;

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::TcpNoListener,
        says: "Nothing listens on the backend's port.",
        proof: "tcp_v4_send_reset was called for the SYN without a socket, and the refusal went back to the client.",
        advice: Some(
            "The pod is reached but nothing listens on that port: look at targetPort and the container. A listener that is \
             bound to another address, device or VRF does not count.",
        ),
        occurs: "Every kernel and dataplane, if the backend is on this node.",
        hooks: &[&[Hook::TcpSendReset]],
        find: no_listener,
    },
    Row {
        cause: Cause::TcpAcceptQueueFull,
        says: "The backend's listener threw the SYN away: too many connections wait for accept().",
        proof: "The listener was asked about the SYN while more connections waited than may, its drop counter grew \
                meanwhile, and it sent no SYN-ACK. Nothing else shows it: the kernel counts such a packet as consumed. \
                Where the queue of handshakes is full too, this is named: it alone would have been enough.",
        advice: Some(
            "The application accepts connections too slowly, or has stopped doing so: look at its load and threads. A \
             longer queue (the backlog given to listen(), and net.core.somaxconn in the pod) only helps against bursts.",
        ),
        occurs: "Every kernel and dataplane, if the backend is on this node. The client sends its SYN again: the flow is \
                 stalled if the queue has room by then, and unanswered if not.",
        hooks: &[&[Hook::TcpConnRequest]],
        find: accept_queue_full,
    },
    Row {
        cause: Cause::TcpSynQueueFull,
        says: "The backend's listener threw the SYN away: too many handshakes are under way, and SYN cookies are off.",
        proof: "The listener was asked about the SYN while tcp_syncookies was 0 in its network namespace and its queue of \
                handshakes was as long as its backlog, or longer than three quarters of tcp_max_syn_backlog; its drop \
                counter grew meanwhile, and it sent no SYN-ACK.",
        advice: Some(
            "Set net.ipv4.tcp_syncookies=1 in the pod's network namespace, or raise the listener's backlog together with \
             net.core.somaxconn and net.ipv4.tcp_max_syn_backlog. Many handshakes that never end are a SYN flood, or \
             answers that do not reach the clients.",
        ),
        occurs: "Every kernel and dataplane, if the backend is on this node and its network namespace has \
                 tcp_syncookies=0.",
        hooks: &[&[Hook::TcpConnRequest]],
        find: syn_queue_full,
    },
    Row {
        cause: Cause::TcpFinalAckDropped,
        says: "The client's last ACK was thrown away by the backend's listener: too many connections wait for accept(). \
               The client believes that it is connected, the backend does not.",
        proof: "tcp_v4_syn_recv_sock returned no connection for the ACK, while more connections waited than may.",
        advice: Some(
            "The application accepts connections too slowly, or has stopped doing so: look at its load and threads. A \
             longer queue (the backlog given to listen(), and net.core.somaxconn in the pod) only helps against bursts.",
        ),
        occurs: "Every kernel and dataplane, if the backend is on this node. The backend sends its SYN-ACK again, after a \
                 second at first. The flow is stalled if a later ACK or the client's first data is taken (the time lost \
                 counts from the ACK that was thrown away, and the client sees it as a late answer, not as a slow \
                 connect); dropped as long as none is; refused with tcp_abort_on_overflow=1, where the ACK is answered \
                 with RST.",
        hooks: &[&[Hook::TcpSynRecvSock]],
        find: final_ack_dropped,
    },
];

/// The step at which a TCP without a socket for the SYN refused it.
pub(super) fn refusal(flow: &Flow, attempt: usize) -> Option<&Step> {
    flow.steps_of(attempt).find(|step| {
        step.event.part == Part::Syn
            && step.event.hook == Hook::TcpSendReset
            && matches!(&step.event.payload, Payload::Socket(socket) if socket.sock == 0)
    })
}

fn no_listener(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Refused {
        return None;
    }
    let flow = case.flow;
    let reset = refusal(flow, case.attempt)?;
    let target = reset.event.tuple.destination();
    let who = owner(flow, reset);
    let mut evidence = vec![
        Evidence::seen(
            "RST sent by",
            format!("{who} ({})", evidence::place(reset)),
            Hook::TcpSendReset,
        ),
        Evidence::seen("socket for the SYN", "none", Hook::TcpSendReset),
    ];
    if let Some(step) = case
        .steps()
        .find(|step| matches!(step.event.payload, Payload::Drop(_)) && step.event.part == Part::Syn)
    {
        evidence.extend(evidence::discarded(step, case.facts));
    }
    Some(Proof {
        explanation: format!(
            "The SYN reached {who} at {target}, but nothing listens there: its TCP answered with RST."
        ),
        evidence,
    })
}

/// Whose TCP it was, in words.
pub(super) fn owner(flow: &Flow, step: &Step) -> &'static str {
    if flow.is_on_node(&step.event) {
        "this node"
    } else {
        "the pod"
    }
}

/// The step at which TCP in the backend's netns threw the SYN away: a backend that is not silent at all, for it may
/// have answered with something else than a SYN-ACK (an old socket in `TIME_WAIT` sends an ACK).
pub(super) fn thrown_away<'a>(case: &Case<'a>) -> Option<&'a Step> {
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

/// The step at which a listener was asked about the SYN.
pub(super) fn taken(flow: &Flow, attempt: usize) -> Option<&Step> {
    flow.steps_of(attempt)
        .find(|step| step.event.hook == Hook::TcpConnRequest)
}

/// The step at which a listener took this SYN, or one before it, and kept it: from then on the backend meets every SYN of
/// the flow as a repetition, answers it with the same SYN-ACK, and frees it.
pub(super) fn kept(flow: &Flow, attempt: usize) -> Option<&Step> {
    flow.steps
        .iter()
        .rfind(|step| step.attempt <= attempt && step.event.hook == Hook::TcpConnRequest)
        .filter(|step| step.verdict.is_none())
}

/// The step at which a listener was asked about the SYN and threw it away: its drop counter grew meanwhile, and no
/// SYN-ACK came of it.
pub(super) fn thrown_away_by_listener<'a>(case: &Case<'a>) -> Option<(&'a Step, &'a Listener)> {
    if case.steps().any(|step| step.event.part == Part::SynAck) {
        return None;
    }
    case.steps().find_map(|step| match &step.event.payload {
        Payload::Listener(listener) if step.verdict.is_some_and(|grown| grown != 0) => Some((step, listener)),
        _ => None,
    })
}

fn is_accept_queue_full(ack_backlog: u32, max_ack_backlog: u32) -> bool {
    // `sk_acceptq_is_full` (include/net/sock.h, 3.10 to 7.3).
    ack_backlog != UNKNOWN_NUMBER && max_ack_backlog != UNKNOWN_NUMBER && ack_backlog > max_ack_backlog
}

/// Do the limits on handshakes forbid another one? `tcp_conn_request` (`net/ipv4/tcp_input.c`, 4.4 to 7.3).
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
    // The last quarter is kept for clients that the kernel has met before.
    let last_quarter = max_syn_backlog != UNKNOWN_NUMBER
        && i64::from(max_syn_backlog) - i64::from(syn_queue) < i64::from(max_syn_backlog >> 2);
    backlog_full || last_quarter
}

/// The listener that threw the SYN away; `None` also where a SYN that came later explains nothing.
fn refusing_listener<'a>(case: &Case<'a>) -> Option<(&'a Step, &'a Listener)> {
    matches!(case.situation, Situation::Silent | Situation::Late)
        .then(|| thrown_away_by_listener(case))
        .flatten()
}

/// The listener that threw the SYN away although none of its queues was full, as was seen.
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
    Some(Proof {
        explanation: format!(
            "The SYN reached the listener of {} at {}, which threw it away: {} connections wait for accept(), {} may.",
            owner(case.flow, step),
            step.event.tuple.destination(),
            listener.ack_backlog,
            listener.max_ack_backlog,
        ),
        evidence: queues(case, step, listener),
    })
}

fn syn_queue_full(case: &Case<'_>) -> Option<Proof> {
    let (step, listener) = refusing_listener(case)?;
    // A SYN that an ended connection lets in is not held to these limits.
    let let_in = case
        .steps()
        .any(|step| step.event.hook == Hook::TcpTimewait && step.verdict == Some(time_wait::SYN));
    if let_in || !is_syn_queue_full(listener) {
        return None;
    }
    Some(Proof {
        explanation: format!(
            "The SYN reached the listener of {} at {}, which threw it away: {} handshakes are under way, and SYN cookies \
             are off.",
            owner(case.flow, step),
            step.event.tuple.destination(),
            listener.syn_queue,
        ),
        evidence: queues(case, step, listener),
    })
}

/// How full the listener's queues were when it was asked about a SYN, and what came of that.
pub(super) fn queues(case: &Case<'_>, step: &Step, listener: &Listener) -> Vec<Evidence> {
    let seen = |what: &str, value: String| Evidence::seen(what, value, Hook::TcpConnRequest);
    let mut out = vec![seen(
        "listener",
        format!("{} ({})", step.event.tuple.destination(), evidence::place(step)),
    )];
    out.extend(queue(step));
    if listener.syn_queue != UNKNOWN_NUMBER {
        out.push(seen(
            "handshakes in the listener's SYN queue",
            listener.syn_queue.to_string(),
        ));
    }
    if listener.max_syn_backlog != UNKNOWN_NUMBER {
        out.push(seen(
            "net.ipv4.tcp_max_syn_backlog there",
            listener.max_syn_backlog.to_string(),
        ));
    }
    if listener.syncookies != UNKNOWN_NUMBER {
        out.push(seen(
            "net.ipv4.tcp_syncookies there",
            listener.syncookies.to_string(),
        ));
    }
    if let Some(grown) = step.verdict {
        out.push(seen("listener's drop counter grew by", grown.to_string()));
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
    let step = case.discarded.filter(|step| judge::refused_by_listener(step))?;
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
    let times = flow
        .steps
        .iter()
        .filter(|step| judge::refused_by_listener(step))
        .count();
    let after = match (case.situation, flow.accepted) {
        (Situation::Refused, _) => "The ACK was answered with RST.",
        (_, true) => "A later one was taken.",
        (_, false) => "The client believes that it is connected.",
    };
    let mut evidence = vec![Evidence::seen(
        "listener",
        format!("{} ({})", step.event.tuple.destination(), evidence::place(step)),
        Hook::TcpSynRecvSock,
    )];
    evidence.extend(queue(step));
    evidence.push(Evidence::seen(
        "ACKs thrown away",
        times.to_string(),
        Hook::TcpSynRecvSock,
    ));
    evidence.push(Evidence::seen(
        "SYN-ACKs sent",
        flow.synacks.to_string(),
        Hook::DevStartXmit,
    ));
    Some(Proof {
        explanation: format!(
            "The client's ACK reached the listener of {} at {}, which threw it away: {ack_backlog} connections wait for \
             accept(), {max_ack_backlog} may. {after}",
            owner(flow, step),
            step.event.tuple.destination(),
        ),
        evidence,
    })
}

/// How full the listener's accept queue was.
pub(super) fn queue(step: &Step) -> Option<Evidence> {
    let (waiting, most) = match &step.event.payload {
        Payload::Socket(socket) => (socket.ack_backlog, socket.max_ack_backlog),
        Payload::Listener(listener) => (listener.ack_backlog, listener.max_ack_backlog),
        _ => return None,
    };
    (waiting != UNKNOWN_NUMBER && most != UNKNOWN_NUMBER).then(|| {
        Evidence::seen(
            "connections in the listener's accept queue",
            format!("{waiting} of {most}"),
            step.event.hook,
        )
    })
}
