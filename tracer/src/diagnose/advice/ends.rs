//! Advice about the backend, the return path and the client.

use tracer_common::{hook::Hook, tcp::Part};

use super::command::{list_entry, netns_of, run};
use crate::diagnose::{
    case::{Case, Proof},
    cause::Cause,
    evidence::Key,
};

pub(super) fn of(cause: Cause, case: &Case<'_>, proof: &Proof) -> Option<String> {
    match cause {
        Cause::BackendSilent => silent(case, proof),
        Cause::BackendSlow => {
            let step = case
                .flow
                .steps
                .iter()
                .find(|step| step.event.hook == Hook::TcpConnRequest)?;
            Some(format!(
                "Check the load of the backend {} and of the node it runs on (`cat /proc/pressure/cpu`, CPU limits of the pod).",
                step.event.tuple.destination()
            ))
        }
        Cause::ClientSilent => Some(client_silent(case, proof)),
        Cause::ReturnNotTranslated => Some(not_translated(case, proof)),
        Cause::ReturnBypassed => bypassed(case),
        _ => None,
    }
}

fn silent(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let delivered = case.delivery();
    let backend = case.flow.backend_of(case.attempt)?;
    if proof.value(Key::ListenerAccepted).is_some() || proof.value(Key::DroppedIn).is_some() {
        let step = case
            .steps()
            .find(|step| step.netns != case.flow.netns && step.event.netns != 0)?;
        return Some(format!(
            "The packet was dropped inside the backend's own network namespace: look at its rules ({}), its XDP and tc programs, \
             and the policy of the network plugin for {}.",
            run(case, netns_of(step), "nft list ruleset"),
            backend.ip()
        ));
    }
    let arrived = delivered
        .is_some_and(|step| step.event.hook == Hook::NetifReceive && !case.flow.is_on_node(&step.event));
    Some(if arrived {
        let step = delivered?;
        format!(
            "The SYN arrived in the network namespace of {backend}: check there that the program runs, that its CPU is not \
             throttled, and what its own firewall drops ({}).",
            run(case, netns_of(step), "nft list ruleset")
        )
    } else {
        let through = delivered.and_then(|step| step.event.dev.get());
        let through = through.map_or_else(String::new, |device| format!(" through {device}"));
        format!(
            "The SYN to {backend} left this node{through}. Trace on the node where {} runs (`kubectl get pod -A -o wide` shows \
             it), and check firewalls in between.",
            backend.ip()
        )
    })
}

fn client_silent(case: &Case<'_>, proof: &Proof) -> String {
    let client = case.flow.client();
    if proof.value(Key::SynAckSocket).is_some() || proof.value(Key::RstFromClient).is_some() {
        return format!(
            "This node did its part. The client {client} gave up before the answer arrived: check its connect timeout, and why \
             the answer came late."
        );
    }
    let left = proof.value(Key::SynAckLeftBy).unwrap_or("this node");
    match proof.value(Key::SynCameInBy) {
        Some(came) => format!(
            "This node did its part. The SYN came in through {came} and the answer left through {left}: check firewalls on that \
             other path to {}, or make both use one path.",
            client.ip()
        ),
        None => format!(
            "This node did its part: the answer left through {left}. It, or the client's ACK, was lost on the path to {}: check \
             firewalls there.",
            client.ip()
        ),
    }
}

fn not_translated(case: &Case<'_>, proof: &Proof) -> String {
    let flow = case.flow;
    if let Some(service) = proof.value(Key::EntryService) {
        return format!(
            "The services {service} and {} send the client port {} to the same pod without masquerade. Let the client use \
             another port, or masquerade (externalTrafficPolicy: Cluster).",
            flow.node(),
            flow.client()
        );
    }
    let is_ipvs = flow.steps.iter().any(|step| step.event.hook == Hook::IpvsNatXmit);
    if is_ipvs {
        format!(
            "The IPVS entry of {} is gone (`ipvsadm -Lnc` lists those that exist): look for a restart of kube-proxy that \
             recreates services, for drop_entry, and for timeouts shorter than the backend takes to answer (`ipvsadm -L --timeout`).",
            flow.client()
        )
    } else {
        format!(
            "The conntrack entry of the SYN is gone or belongs to another connection ({}): `conntrack -E -e DESTROY` shows removed \
             entries.",
            list_entry(&flow.original)
        )
    }
}

fn bypassed(case: &Case<'_>) -> Option<String> {
    let flow = case.flow;
    let backend = flow.backend()?;
    let netns = flow
        .steps
        .iter()
        .find(|step| {
            step.event.part == Part::SynAck
                && step.event.hook == Hook::DevStartXmit
                && !flow.is_on_node(&step.event)
        })
        .map(netns_of);
    let route = netns.map_or_else(String::new, |netns| {
        format!(
            " ({} shows the path it takes)",
            run(case, netns, &format!("ip route get {}", flow.client().ip()))
        )
    });
    Some(format!(
        "{} reaches the client {} without this node{route}. Masquerade the client (externalTrafficPolicy: Cluster), or route the \
         backend's answers back through this node.",
        backend.ip(),
        flow.client().ip()
    ))
}
