//! Advice about the backend's TCP.

use tracer_common::hook::Hook;

use super::command::{device, netns_of, run, setting};
use crate::{
    diagnose::{
        case::{Case, Proof},
        cause::Cause,
        evidence::Key,
        route::freed,
    },
    flow::model::Step,
};

const TIME_WAIT_TIMEOUT: &str = "net.netfilter.nf_conntrack_tcp_timeout_time_wait";
/// The time that a closed connection stays with the backend (`TCP_TIMEWAIT_LEN`), seconds.
const TIME_WAIT_S: i64 = 60;

pub(super) fn of(cause: Cause, case: &Case<'_>, proof: &Proof) -> Option<String> {
    match cause {
        Cause::TcpNoListener => no_listener(case),
        Cause::TcpAcceptQueueFull => accept_queue(case, Hook::TcpConnRequest),
        Cause::TcpFinalAckDropped => accept_queue(case, Hook::TcpSynRecvSock),
        Cause::TcpSynQueueFull => syn_queue(case, proof),
        Cause::TcpOldConnection => old_connection(case, proof),
        Cause::TcpBadChecksum => bad_checksum(case),
        Cause::TcpTimestampRejected | Cause::TcpTimewaitRefused => Some(time_wait(cause, case, proof)),
        _ => None,
    }
}

/// The last step at this hook, in whichever attempt.
fn at<'a>(case: &Case<'a>, hook: Hook) -> Option<&'a Step> {
    case.flow.steps.iter().rfind(|step| step.event.hook == hook)
}

fn no_listener(case: &Case<'_>) -> Option<String> {
    let step = case.steps().find(|step| step.event.hook == Hook::TcpSendReset)?;
    let port = step.event.tuple.dport;
    let look = run(case, netns_of(step), &format!("ss -ltn sport = :{port}"));
    let whose = if netns_of(step) == case.flow.netns {
        "this node"
    } else {
        "the pod"
    };
    Some(format!(
        "Nothing listens on port {port} of {whose} ({look}): check the Service's targetPort and the container. A listener bound \
         to another address, device or VRF does not count."
    ))
}

fn bad_checksum(case: &Case<'_>) -> Option<String> {
    let freed = freed::step(case)?;
    let part = freed.event.part;
    let came = case
        .flow
        .steps
        .iter()
        .find(|step| step.event.hook == Hook::NetifReceive && step.event.part == part)?;
    let device = device(case, came).unwrap_or_else(|| "any".to_owned());
    let from = came.event.tuple.source();
    let capture = run(
        case,
        netns_of(came),
        &format!(
            "tcpdump -nvv -i {device} host {} and tcp port {}",
            from.ip(),
            from.port()
        ),
    );
    let count = run(case, netns_of(freed), "nstat -az TcpInCsumErrors");
    Some(format!(
        "Find out where the checksum goes wrong: {capture} marks it as incorrect if it is wrong on arrival. If so, a device \
         before this one did not fill it in (a faulty driver, tunnel or virtual switch): turn off its transmit offload with \
         `ethtool -K`. If not, a device between here and {} corrupts it. {count} counts such packets.",
        freed.event.tuple.destination()
    ))
}

fn accept_queue(case: &Case<'_>, hook: Hook) -> Option<String> {
    let step = at(case, hook)?;
    let port = step.event.tuple.dport;
    let look = run(case, netns_of(step), &format!("ss -ltn sport = :{port}"));
    Some(format!(
        "The application on port {port} accepts connections too slowly, or has stopped accepting: check its load and threads. \
         {look} shows the queue (Recv-Q) and its limit (Send-Q). A longer one (the backlog of listen(), at most \
         net.core.somaxconn there) helps only against bursts."
    ))
}

fn syn_queue(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let step = at(case, Hook::TcpConnRequest)?;
    if proof.number(Key::SynCookies)? != 0 {
        return None;
    }
    Some(format!(
        "Turn SYN cookies on for the listener: {} (now 0; the price: no window scaling for connections made with a cookie from a \
         client without timestamps). Or raise its backlog. Many handshakes that never finish are a SYN flood, or answers that do \
         not reach the clients.",
        run(case, netns_of(step), "sysctl -w net.ipv4.tcp_syncookies=1")
    ))
}

fn old_connection(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let value = proof.value(Key::OldConnection)?;
    let (client, rest) = value.split_once(" -> ")?;
    let (backend, state) = rest.split_once(", ")?;
    let dropped = case
        .steps()
        .find(|step| step.event.tuple.source().to_string() == client && step.netns != case.flow.netns)?;
    if state != "open" {
        return Some(format!(
            "The client reused its port while the backend was closing the connection {client} -> {backend}: keep connections \
             alive, or let the client's kernel choose the port."
        ));
    }
    let look = run(
        case,
        netns_of(dropped),
        &format!("ss -tnoi src {backend} dst {client}"),
    );
    Some(format!(
        "The backend does not know that its connection from {client} is gone ({look} shows it): the client vanished, its FIN or \
         RST was lost, or several clients share that address. Enable TCP keepalive in the backend, and close connections in the \
         client."
    ))
}

fn time_wait(cause: Cause, case: &Case<'_>, proof: &Proof) -> String {
    let mut out = Vec::new();
    match proof.value(Key::ClientSeenByBackend) {
        Some(seen) => out.push(format!(
            "The backend saw {seen} instead of {}: several clients share that address. Preserve their addresses \
             (externalTrafficPolicy: Local), or masquerade with --random-fully, so that they share ports less often.",
            case.flow.client()
        )),
        None if cause == Cause::TcpTimestampRejected => out.push(format!(
            "Check what {} is: a NAT in front of this node for machines with different clocks, or a client that was restarted.",
            case.flow.client().ip()
        )),
        None => out.push(format!(
            "The client {} reused the port within a minute: let it keep connections alive, or let its kernel choose the port.",
            case.flow.client()
        )),
    }
    if proof.value(Key::SynTimestamp) == Some("none") {
        out.push(
            "Enable TCP timestamps in the client: with a newer timestamp, the backend accepts the SYN."
                .to_owned(),
        );
    }
    if let Some(timeout) = setting(case, TIME_WAIT_TIMEOUT)
        && timeout.parse::<i64>().is_ok_and(|seconds| seconds < TIME_WAIT_S)
    {
        out.push(format!(
            "Make conntrack keep closed connections as long as the backend does: `sysctl -w {TIME_WAIT_TIMEOUT}={TIME_WAIT_S}` \
             (now {timeout})."
        ));
    }
    out.join(" ")
}
