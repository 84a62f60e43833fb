//! conntrack could not insert a new connection: its table is full, or another entry uses the tuple.

pub(super) mod invalid;
pub(super) mod pinned;

use tracer_common::{
    hook::Hook,
    record::{Clash, Conntrack},
    uapi::verdict,
};

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
};
use crate::decode::event::Payload;

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::ConntrackTableFull,
        group: Group::Conntrack,
        summary: "The conntrack table is full: the new connection got no entry, and its SYN was dropped.",
        proof: "__nf_conntrack_alloc returned an error for this connection, and inside that call early_drop, which is called \
                only when there are more entries than nf_conntrack_max, found no entry to evict.",
        advice: Some(
            "Raise net.netfilter.nf_conntrack_max (and nf_conntrack_buckets with it), or find out what fills the table \
             (`conntrack -L`, `conntrack -C`) and shorten the timeouts of idle entries. Entries of established connections \
             are never evicted early.",
        ),
        scope: "Every kernel and dataplane. The hooks are attached once netfilter has dropped a packet; a later SYN shows \
                the cause.",
        hooks: &[&[Hook::CtAlloc], &[Hook::CtEarlyDrop]],
        absence: Absence::Nothing,
        light: Light::Hidden,
        detect: table_full,
    },
    Row {
        cause: Cause::ConntrackInsertFailed,
        group: Group::Conntrack,
        summary: "conntrack could not insert the connection: another connection already uses that tuple.",
        proof: "__nf_conntrack_confirm returned NF_DROP for the SYN.",
        advice: Some(
            "Two connections wanted the same tuple at the same time, or an untranslated connection already has it: look for \
             the reply tuple in `conntrack -L`, and for insert_failed in `conntrack -S`. Masquerade with --random-fully makes \
             this rarer. If nothing conflicts, look for chaintoolong in `conntrack -S` and raise nf_conntrack_buckets.",
        ),
        scope: "Every kernel and dataplane.",
        hooks: &[&[Hook::CtConfirm]],
        absence: Absence::Nothing,
        light: Light::Proves,
        detect: insert_failed,
    },
];

/// A new entry that conntrack did not insert.
pub(super) struct Insertion<'a> {
    /// The entry.
    pub(super) wanted: &'a Conntrack,
    /// The entry that conflicts with it, if one was seen.
    pub(super) clash: Option<&'a Clash>,
}

impl<'a> Insertion<'a> {
    /// The last one of the deciding SYN.
    pub(super) fn failed(case: &Case<'a>) -> Option<Self> {
        if case.situation != Situation::Dropped {
            return None;
        }
        let (at, wanted) = case
            .steps()
            .enumerate()
            .filter_map(|(at, step)| match &step.event.payload {
                Payload::Conntrack(entry)
                    if step.event.hook == Hook::CtConfirm && step.verdict.is_some_and(verdict::is_drop) =>
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
            Evidence::seen(Key::ConntrackInsert, "refused (NF_DROP)", Hook::CtConfirm),
            Evidence::seen(
                Key::WantedTuple,
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
            out.push(Evidence::seen(
                Key::ClashingEntry,
                format!(
                    "{} -> {}, reply {} -> {}",
                    holder.original.source(),
                    holder.original.destination(),
                    holder.reply.source(),
                    holder.reply.destination()
                ),
                Hook::CtClash,
            ));
            let direction = if clash.direction == 0 { "original" } else { "reply" };
            out.push(Evidence::seen(Key::ClashingDirection, direction, Hook::CtClash));
            out.push(Evidence::seen(
                Key::ClashingState,
                evidence::conntrack_state(holder),
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
            "{} -> {} already uses that tuple",
            clash.holder.original.source(),
            clash.holder.original.destination()
        ),
        None => "no conflicting entry was seen; the hash chain may be too long, or the entry was flushed meanwhile".to_owned(),
    };
    Some(Proof::new(
        format!("conntrack could not insert the connection and dropped its SYN: {why}."),
        failed.evidence(),
    ))
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
    let entries = number("net.netfilter.nf_conntrack_count");
    let limit = number("net.netfilter.nf_conntrack_max");
    let mut evidence = vec![
        Evidence::seen(Key::NewEntry, "refused (ENOMEM)", Hook::CtAlloc),
        Evidence::seen(Key::EarlyDrop, "none found", Hook::CtEarlyDrop),
    ];
    let settings = [(Key::ConntrackCount, entries), (Key::ConntrackMax, limit)];
    evidence.extend(
        settings.into_iter().filter_map(|(key, value)| {
            Some(Evidence::read(key, value?.to_string(), "/proc/sys/net/netfilter"))
        }),
    );
    evidence.extend(
        case.dropped
            .into_iter()
            .flat_map(|step| evidence::dropped(step, case.facts)),
    );
    let numbers = match (entries, limit) {
        // The numbers were read shortly after the drop: below the limit, they no longer describe it.
        (Some(entries), Some(limit)) if entries >= limit => format!(" ({entries}/{limit})"),
        _ => String::new(),
    };
    Some(Proof::new(
        format!(
            "This node's conntrack table is full{numbers}: the new connection got no entry, and its SYN was dropped."
        ),
        evidence,
    ))
}
