//! Session affinity: a template decides where a client's connections go, not the scheduler.

use tracer_common::{
    hook::Hook,
    record::{IpvsConn, ipvs_conn},
};

use super::decision::Decision;
use crate::{
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
    },
    flow::model::real_server,
};

pub(super) const AFFINITY_STALE: Row = Row {
    cause: Cause::IpvsAffinityStale,
    group: Group::IpvsReuse,
    summary: "Session affinity pins the client to a real server that is draining.",
    proof: "ip_vs_schedule returned a new entry for a real server of weight 0, which no scheduler chooses, and the service \
            is persistent; or ip_vs_nat_xmit used an old entry in TIME_WAIT or CLOSE for such a server, which IPVS keeps \
            only because a persistence template controls it; and the SYN was not answered in time.",
    advice: Some(
        "Set net.ipv4.vs.expire_quiescent_template=1, as kube-proxy does: a draining real server then loses its templates. \
         Meanwhile the client is sent there until the template times out, and every connection it makes restarts that \
         timeout (`ipvsadm -Lnc` lists the template with client port 0).",
    ),
    scope: "IPVS with session affinity and expire_quiescent_template=0, on every kernel. Whether a template controls an \
            entry is read on kernels with BTF for modules (5.11 and later); on older ones, /proc/net/ip_vs shows that the \
            service is persistent.",
    hooks: &[
        &[Hook::IpvsSchedule, Hook::IpvsLookup],
        &[Hook::IpvsNatXmit, Hook::IpvsNatXmit6],
    ],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: stale,
};

const QUIESCENT: &str = "net.ipv4.vs.expire_quiescent_template";

fn stale(case: &Case<'_>) -> Option<Proof> {
    let (flow, attempt) = (case.flow, case.attempt);
    let seconds = case
        .netns()
        .and_then(|netns| netns.service(flow.node()))
        .and_then(|service| service.persistent);
    let last = case.decision();
    let pinned = Pinned::of(case, &last, seconds.is_some())?;
    let conn = pinned.conn;
    let server = real_server(conn).map_or_else(|| "a real server".to_owned(), |server| server.to_string());
    let mut evidence = vec![
        Evidence::seen(Key::EntryServer, server.clone(), pinned.hook),
        Evidence::seen(Key::EntryWeight, conn.weight.to_string(), pinned.hook),
        Evidence::seen(Key::IpvsEntry, pinned.origin, pinned.hook),
    ];
    if is_controlled(conn) {
        evidence.push(Evidence::seen(
            Key::Affinity,
            "a persistence template controls the entry",
            pinned.hook,
        ));
    }
    if let Some(seconds) = seconds {
        evidence.push(Evidence::read(
            Key::AffinityTimeout,
            format!("{seconds} s"),
            "/proc/net/ip_vs",
        ));
    }
    if let Some(value) = case.netns().and_then(|netns| netns.sysctls.number(QUIESCENT)) {
        evidence.push(Evidence::read(
            Key::IpvsExpireQuiescent,
            value.to_string(),
            "/proc/sys/net/ipv4/vs",
        ));
    }
    if last.expired.is_some() {
        evidence.push(Evidence::seen(
            Key::RetransmittedSyn,
            "dropped when IPVS expired that entry; the next SYN gets such an entry again",
            Hook::IpvsExpireNow,
        ));
    }
    evidence.extend(evidence::reset(flow, attempt));
    Some(Proof::new(
        format!(
            "Session affinity pins this client to {server}, which is draining (weight 0). IPVS sent the SYN there, and it \
             was not answered in time."
        ),
        evidence,
    ))
}

/// The entry that pins the client to a draining server.
struct Pinned<'a> {
    conn: &'a IpvsConn,
    /// The origin of the entry.
    origin: &'static str,
    hook: Hook,
}

impl<'a> Pinned<'a> {
    const NEW: &'static str = "new, created for this connection";
    const OLD: &'static str = "that of the old connection from this port";

    fn of(case: &Case<'a>, last: &Decision<'a>, persistent: bool) -> Option<Self> {
        // The flow's own first SYN created the entry that its retransmissions meet.
        let created = (0..=case.attempt).find_map(|index| {
            let new = Decision::of(case.flow, index).scheduled?;
            (new.conn != 0 && is_draining(new) && (is_controlled(new) || persistent)).then_some(new)
        });
        let is_created = |conn: &&IpvsConn| created.is_some_and(|created| created.conn == conn.conn);
        match case.situation {
            Situation::Silent | Situation::Refused | Situation::Late => {
                let used = last.sent_with?;
                if let Some(conn) = created.filter(|_| is_created(&used)) {
                    return Some(Self {
                        conn,
                        origin: Self::NEW,
                        hook: Hook::IpvsSchedule,
                    });
                }
                let old = last.reused()?;
                (is_controlled(old) && is_draining(old) && is_kept_by_affinity(old)).then_some(Self {
                    conn: old,
                    origin: Self::OLD,
                    hook: Hook::IpvsLookup,
                })
            }
            // With expire_nodest_conn a retransmitted SYN is dropped, because the server is draining.
            Situation::Dropped => {
                let expired = last.expired.filter(|_| last.is_drop()).filter(is_created)?;
                Some(Self {
                    conn: created.filter(|created| created.conn == expired.conn)?,
                    origin: Self::NEW,
                    hook: Hook::IpvsSchedule,
                })
            }
            Situation::Established => None,
        }
    }
}

fn is_controlled(conn: &IpvsConn) -> bool {
    conn.have & ipvs_conn::CONTROLLED != 0
}

fn is_draining(conn: &IpvsConn) -> bool {
    conn.have & ipvs_conn::WEIGHT != 0 && conn.weight == 0
}

/// Whether IPVS would reschedule the entry if no template controlled it: `is_new_conn_expected()`
/// (`net/netfilter/ipvs/ip_vs_core.c`).
fn is_kept_by_affinity(old: &IpvsConn) -> bool {
    old.have & ipvs_conn::STATE != 0
        && matches!(old.state, ipvs_conn::TIME_WAIT | ipvs_conn::CLOSE)
        && old.have & ipvs_conn::REUSE_MODE != 0
        && old.conn_reuse_mode != 0
}
