//! conntrack had no place for a new connection, or did not know what to make of a packet.

use tracer_common::{
    hook::Hook,
    record::{Clash, Conntrack, conntrack},
};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
};
use crate::decode::event::Payload;

const NF_DROP: i32 = 0;

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::ConntrackTableFull,
        says: "The conntrack table is full: a new connection got no entry, and its SYN was dropped.",
        proof: "__nf_conntrack_alloc returned an error for this connection, and inside that call early_drop, which is only \
                asked when there are more entries than nf_conntrack_max, found none that could go.",
        advice: Some(
            "Raise net.netfilter.nf_conntrack_max (and nf_conntrack_buckets with it), or find out who fills the table \
             (`conntrack -L`, `conntrack -C`) and shorten the timeouts of what is idle; entries of established \
             connections are never dropped early.",
        ),
        occurs: "Every kernel and dataplane. The hooks are attached once netfilter has discarded a packet, so that a later \
                 SYN shows it.",
        hooks: &[&[Hook::CtAlloc], &[Hook::CtEarlyDrop]],
        find: table_full,
    },
    Row {
        cause: Cause::ConntrackInsertFailed,
        says: "conntrack could not take the new connection in, because another one holds the tuple that it wanted.",
        proof: "__nf_conntrack_confirm returned NF_DROP for the SYN.",
        advice: Some(
            "Two connections wanted the same tuple at the same time, or one that no NAT has changed is there already: see \
             `conntrack -L` for the tuple that is given, and `conntrack -S` for insert_failed; --random-fully for \
             masquerade makes it rarer. If nothing was in the way, look at chaintoolong there and raise \
             nf_conntrack_buckets.",
        ),
        occurs: "Every kernel and dataplane.",
        hooks: &[&[Hook::CtConfirm]],
        find: insert_failed,
    },
];

/// A new entry that was not let into the table.
pub(super) struct Insertion<'a> {
    /// The entry.
    pub(super) wanted: &'a Conntrack,
    /// The one in its way, if one was seen.
    pub(super) clash: Option<&'a Clash>,
}

impl<'a> Insertion<'a> {
    /// The last one of the SYN that tells.
    pub(super) fn failed(case: &Case<'a>) -> Option<Self> {
        if case.situation != Situation::Dropped {
            return None;
        }
        let (at, wanted) = case
            .steps()
            .enumerate()
            .filter_map(|(at, step)| match &step.event.payload {
                Payload::Conntrack(entry)
                    if step.event.hook == Hook::CtConfirm && step.verdict == Some(NF_DROP) =>
                {
                    Some((at, entry))
                }
                _ => None,
            })
            .last()?;
        let clash = case.steps().skip(at).find_map(|step| match &step.event.payload {
            Payload::Clash(clash) => Some(&**clash),
            _ => None,
        });
        Some(Self { wanted, clash })
    }

    pub(super) fn evidence(&self) -> Vec<Evidence> {
        let mut out = vec![
            Evidence::seen("insertion into the table", "refused (NF_DROP)", Hook::CtConfirm),
            Evidence::seen(
                "tuple wanted for the answer",
                format!(
                    "{} -> {}",
                    self.wanted.reply.source(),
                    self.wanted.reply.destination()
                ),
                Hook::CtConfirm,
            ),
        ];
        if let Some(clash) = self.clash {
            let holder = &clash.holder;
            let which = if clash.direction == 0 {
                "its own direction"
            } else {
                "its answer's direction"
            };
            out.push(Evidence::seen(
                "entry in the way",
                format!(
                    "{} -> {}, answered by {} -> {}",
                    holder.original.source(),
                    holder.original.destination(),
                    holder.reply.source(),
                    holder.reply.destination()
                ),
                Hook::CtClash,
            ));
            out.push(Evidence::seen("it holds the tuple in", which, Hook::CtClash));
            let answered = if holder.status & conntrack::SEEN_REPLY == 0 {
                "not answered yet"
            } else {
                "answered"
            };
            let state = conntrack::tcp_state_name(holder.tcp_state)
                .map_or_else(String::new, |state| format!("TCP state {state}, "));
            out.push(Evidence::seen(
                "state of that entry",
                format!("{state}{answered}"),
                Hook::CtClash,
            ));
        }
        out
    }
}

fn insert_failed(case: &Case<'_>) -> Option<Proof> {
    let failed = Insertion::failed(case)?;
    let why = match failed.clash {
        Some(clash) => format!(
            "the connection {} -> {} holds the tuple that it wanted",
            clash.holder.original.source(),
            clash.holder.original.destination()
        ),
        None => "which other entry was in the way was not seen, or none was (the hash chain was too long, or the entry \
                 was flushed meanwhile)"
            .to_owned(),
    };
    Some(Proof {
        explanation: format!("conntrack could not take the new connection in, and discarded its SYN: {why}."),
        evidence: failed.evidence(),
    })
}

fn table_full(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Dropped {
        return None;
    }
    let seen = |hook: Hook| case.steps().any(|step| step.event.hook == hook);
    if !seen(Hook::CtAlloc) || !seen(Hook::CtEarlyDrop) {
        return None;
    }
    let number = |name: &str| case.netns().and_then(|netns| netns.sysctls.number(name));
    let count = number("net.netfilter.nf_conntrack_count");
    let most = number("net.netfilter.nf_conntrack_max");
    let mut evidence = vec![
        Evidence::seen("entry for the new connection", "refused (ENOMEM)", Hook::CtAlloc),
        Evidence::seen("an entry that could go", "none found", Hook::CtEarlyDrop),
    ];
    let settings = [("nf_conntrack_count", count), ("nf_conntrack_max", most)];
    evidence.extend(settings.into_iter().filter_map(|(name, value)| {
        Some(Evidence::read(
            format!("net.netfilter.{name}"),
            value?.to_string(),
            "/proc/sys/net/netfilter",
        ))
    }));
    evidence.extend(
        case.discarded
            .into_iter()
            .flat_map(|step| evidence::discarded(step, case.facts)),
    );
    let numbers = match (count, most) {
        // They were read some moments later.
        (Some(count), Some(most)) if count >= most => format!(" ({count} entries, {most} allowed)"),
        _ => String::new(),
    };
    Some(Proof {
        explanation: format!(
            "The conntrack table of this node is full{numbers}: the new connection got no entry, and its SYN was discarded."
        ),
        evidence,
    })
}
