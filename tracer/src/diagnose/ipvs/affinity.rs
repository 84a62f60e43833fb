//! Session affinity: a template decides where a client's connections go, not the scheduler.

use tracer_common::{
    hook::Hook,
    record::{IpvsConn, ipvs_conn},
};

use super::decision::Decision;
use crate::{
    diagnose::{
        case::{Case, Proof, Situation},
        catalogue::Row,
        cause::Cause,
        evidence::{self, Evidence},
    },
    flow::model::real_server,
};

pub(super) const AFFINITY_STALE: Row = Row {
    cause: Cause::IpvsAffinityStale,
    says: "Session affinity pins the client to a real server that is draining.",
    proof: "ip_vs_schedule returned a new entry for a real server of weight 0, which no scheduler chooses, and the service \
            is persistent; or ip_vs_nat_xmit used an old entry in TIME_WAIT or CLOSE of such a server, which is left \
            in place only because a persistence template controls it; and no answer came of that SYN in time.",
    advice: Some(
        "Set net.ipv4.vs.expire_quiescent_template=1, as kube-proxy does: then a draining real server loses its templates. \
         Until then the client is sent there until the template times out, which each connection of it puts off \
         (`ipvsadm -Lnc` shows it with client port 0).",
    ),
    occurs: "IPVS with session affinity and expire_quiescent_template=0, on every kernel. That an entry is controlled by a \
             template is read on kernels with BTF for modules (5.11 and later); before, /proc/net/ip_vs tells that \
             the service is persistent.",
    hooks: &[
        &[Hook::IpvsSchedule, Hook::IpvsLookup],
        &[Hook::IpvsNatXmit, Hook::IpvsNatXmit6],
    ],
    find: stale,
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
        Evidence::seen("real server of the entry", server.clone(), pinned.hook),
        Evidence::seen("its weight", conn.weight.to_string(), pinned.hook),
        Evidence::seen("entry", pinned.how, pinned.hook),
    ];
    if controlled(conn) {
        evidence.push(Evidence::seen(
            "session affinity",
            "the entry is controlled by a persistence template",
            pinned.hook,
        ));
    }
    if let Some(seconds) = seconds {
        evidence.push(Evidence::read(
            "session affinity of the service",
            format!("{seconds} s"),
            "/proc/net/ip_vs",
        ));
    }
    if let Some(value) = case.netns().and_then(|netns| netns.sysctls.number(QUIESCENT)) {
        evidence.push(Evidence::read(
            QUIESCENT,
            value.to_string(),
            "/proc/sys/net/ipv4/vs",
        ));
    }
    if last.expired.is_some() {
        evidence.push(Evidence::seen(
            "the SYN that was sent again",
            "was discarded with that entry, which IPVS expired; the next one gets such an entry again",
            Hook::IpvsExpireNow,
        ));
    }
    evidence.extend(evidence::reset(flow, attempt));
    Some(Proof {
        explanation: format!(
            "Session affinity keeps this client at {server} although that real server is draining (weight 0): IPVS sent \
             the SYN there, and it was not answered in time."
        ),
        evidence,
    })
}

/// The entry that holds the client at a draining server.
struct Pinned<'a> {
    conn: &'a IpvsConn,
    how: &'static str,
    hook: Hook,
}

impl<'a> Pinned<'a> {
    fn of(case: &Case<'a>, last: &Decision<'a>, persistent: bool) -> Option<Self> {
        // The flow's own first SYN made the entry that its retransmissions meet.
        let made = (0..=case.attempt).find_map(|index| {
            let new = Decision::of(case.flow, index).scheduled?;
            (new.conn != 0 && drains(new) && (controlled(new) || persistent)).then_some(new)
        });
        let is_made = |conn: &&IpvsConn| made.is_some_and(|made| made.conn == conn.conn);
        match case.situation {
            Situation::Silent | Situation::Refused | Situation::Late => {
                let used = last.sent_with?;
                if let Some(conn) = made.filter(|_| is_made(&used)) {
                    return Some(Self {
                        conn,
                        how: "a new one, made for this connection",
                        hook: Hook::IpvsSchedule,
                    });
                }
                let old = last.reused()?;
                (controlled(old) && drains(old) && only_affinity_keeps(old)).then_some(Self {
                    conn: old,
                    how: "that of the last connection from this port",
                    hook: Hook::IpvsLookup,
                })
            }
            // With expire_nodest_conn a SYN that is sent again pays for the server that drains.
            Situation::Dropped => {
                let expired = last.expired.filter(|_| last.said_drop()).filter(is_made)?;
                Some(Self {
                    conn: made.filter(|made| made.conn == expired.conn)?,
                    how: "a new one, made for this connection",
                    hook: Hook::IpvsSchedule,
                })
            }
        }
    }
}

fn controlled(conn: &IpvsConn) -> bool {
    conn.have & ipvs_conn::CONTROLLED != 0
}

fn drains(conn: &IpvsConn) -> bool {
    conn.have & ipvs_conn::WEIGHT != 0 && conn.weight == 0
}

/// `is_new_conn_expected()` (`net/netfilter/ipvs/ip_vs_core.c`): would the entry be scheduled anew if no template
/// controlled it?
fn only_affinity_keeps(old: &IpvsConn) -> bool {
    old.have & ipvs_conn::STATE != 0
        && matches!(old.state, ipvs_conn::TIME_WAIT | ipvs_conn::CLOSE)
        && old.have & ipvs_conn::REUSE_MODE != 0
        && old.conn_reuse_mode != 0
}
