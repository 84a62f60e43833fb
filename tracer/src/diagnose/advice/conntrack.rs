//! Advice about conntrack and NAT.

use super::command::{delete_entry, set};
use crate::diagnose::{
    case::{Case, Proof},
    cause::Cause,
    conntrack::Insertion,
    evidence::Key,
};

pub(super) fn of(cause: Cause, case: &Case<'_>, proof: &Proof) -> Option<String> {
    match cause {
        Cause::ConntrackTableFull => full(case, proof),
        Cause::ConntrackInsertFailed => clash(case),
        Cause::NatPortExhausted => exhausted(case),
        Cause::NatNoAddress => Some(
            match proof
                .value(Key::OutputDevice)
                .and_then(|place| place.split(' ').next())
            {
                Some(device) => format!(
                    "`ip -4 address show dev {device}` shows no address of global scope: add one to it, or to another device of \
                     the node. Addresses of scope link and host do not count; in a VRF, only those of its devices count."
                ),
                None => return None,
            },
        ),
        _ => None,
    }
}

fn full(case: &Case<'_>, proof: &Proof) -> Option<String> {
    const MAX: &str = "net.netfilter.nf_conntrack_max";
    let limit = proof.number(Key::ConntrackMax)?;
    let raised = limit.saturating_mul(2).max(1024).to_string();
    let set = set(case, MAX, &raised)?;
    Some(format!(
        "Raise the limit with {set}, or find out what fills the table (`conntrack -L` lists it). An entry takes about 300 bytes \
         of kernel memory. kube-proxy sets the limit when it starts, from --conntrack-max-per-core and --conntrack-min: change \
         it there too."
    ))
}

fn clash(case: &Case<'_>) -> Option<String> {
    let failed = Insertion::failed(case)?;
    let reply = &failed.wanted.reply;
    let family = if reply.is_v6() { "-f ipv6 " } else { "" };
    let (from, to) = (reply.source(), reply.destination());
    let list = format!(
        "`conntrack -L {family}-p tcp --reply-src {} --reply-dst {} --reply-port-src {} --reply-port-dst {}`",
        from.ip(),
        to.ip(),
        from.port(),
        to.port()
    );
    Some(match failed.clash {
        Some(clash) => format!(
            "{list} lists the connection that holds the tuple. If it is stale, delete it: {}. Masquerade with --random-fully \
             makes such conflicts rarer.",
            delete_entry(&clash.holder.original)
        ),
        None => format!(
            "{list} lists a connection that holds the tuple. If there is none, look for chaintoolong in `conntrack -S` and raise \
             net.netfilter.nf_conntrack_buckets."
        ),
    })
}

fn exhausted(case: &Case<'_>) -> Option<String> {
    let failed = Insertion::failed(case)?;
    let (backend, own) = (failed.wanted.reply.source(), failed.wanted.reply.destination());
    let family = if backend.is_ipv6() { "-f ipv6 " } else { "" };
    Some(format!(
        "The source ports of {} towards {backend} are used up (`conntrack -L {family}-p tcp --reply-src {} --reply-dst {} | wc \
         -l`): widen the rule's port range (--to-ports), spread the backend over more addresses or the masquerading over more \
         nodes, keep connections alive, or avoid masquerade (externalTrafficPolicy: Local).",
        own.ip(),
        backend.ip(),
        own.ip()
    ))
}
