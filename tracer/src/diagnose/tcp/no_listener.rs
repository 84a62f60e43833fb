//! Nothing listens where the SYN arrived.

use tracer_common::{hook::Hook, tcp::Part};

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
        service,
        tcp::{owner, refusal},
    },
};

pub(in crate::diagnose) const ROWS: &[Row] = &[Row {
    cause: Cause::TcpNoListener,
    group: Group::BackendTcp,
    summary: "Nothing listens on the backend's port.",
    proof: "tcp_v4_send_reset was called for the SYN without a socket, and the RST went back to the client.",
    advice: Some(
        "The SYN reached the pod but nothing listens on that port: check targetPort and the container. A listener bound to \
             another address, device or VRF does not count.",
    ),
    scope: "Every kernel and dataplane, if the backend is on this node. Also for an untranslated SYN to a port that nothing on \
            the node names as a service port; if something does, the cause is service.not-translated.",
    hooks: &[&[Hook::TcpSendReset]],
    absence: Absence::Nothing,
    light: Light::WithPath,
    detect: no_listener,
}];

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
            Key::RstSentBy,
            format!("{who} ({})", evidence::place(reset)),
            Hook::TcpSendReset,
        ),
        Evidence::seen(Key::SynSocket, "none", Hook::TcpSendReset),
    ];
    if let Some(step) = case
        .steps()
        .find(|step| matches!(step.event.payload, Payload::Drop(_)) && step.event.part == Part::Syn)
    {
        evidence.extend(evidence::dropped(step, case.facts));
    }
    let words =
        format!("The SYN reached {who} at {target}, but nothing listens there: its TCP answered with RST.");
    if !service::is_untranslated(case, reset) {
        return Some(Proof::new(words, evidence));
    }
    let port = target.port();
    let unused = service::port(case, reset).filter(|port| service::is_unused(port));
    let also = if unused.is_some() {
        " No service uses this port, as far as this node's rules, IP sets and IPVS services show."
    } else {
        ""
    };
    evidence.extend(unused.map(|port| service::named_by_nothing(port, reset)));
    Some(Proof::new(words + also, evidence).advise(format!(
        "Check whether a service has this NodePort (`kubectl get service -A | grep {port}`). If one has, kube-proxy has not set \
         it up on this node: check that kube-proxy runs here, and its log. If none has, the client uses a wrong or old port, \
         or the program of this node that should listen there is not running."
    )))
}
