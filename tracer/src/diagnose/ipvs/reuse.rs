//! A SYN from a port of which IPVS still holds the entry of an older connection.

use tracer_common::{
    hook::Hook,
    record::{IpvsConn, conntrack, ipvs_conn},
};

use super::decision::Decision;
use crate::{
    diagnose::{
        case::{Case, Proof, Situation},
        catalogue::{ASKED, Row},
        cause::Cause,
        evidence::{self, Evidence},
    },
    flow::model::real_server,
};

pub(super) const REUSE_DROPPED: Row = Row {
    cause: Cause::IpvsReuseDropped,
    says: "The client reused a port; IPVS found the old connection in TIME_WAIT or CLOSE, expired it and dropped this \
           SYN; the next SYN gets through.",
    proof: "ip_vs_conn_in_get_proto returned an entry in TIME_WAIT or CLOSE, ip_vs_conn_expire_now was called on it, \
            IPVS returned NF_DROP without scheduling, and neither a draining nor a removed real server explains it.",
    advice: Some(
        "Set net.ipv4.vs.conn_reuse_mode=0 together with expire_nodest_conn=1 (kernels before 4.1 by number, such as \
         CentOS 7's 3.10, may have the setting too: look whether the file exists). Kernels of 5.9 and later drop the SYN \
         only if the last connection ended by RST or lost its final ACK: let the backend close with FIN. Keep connections \
         alive, so that clients reuse fewer ports.",
    ),
    occurs: "IPVS. Every reuse on kernels 4.6 to 5.8 and on CentOS and RHEL 7 and 8; on newer ones, 7.3 included, when \
             the last connection ended by RST or lost its final ACK.",
    hooks: &[ASKED, &[Hook::IpvsLookup], &[Hook::IpvsExpireNow]],
    find: |case| match expired(case)? {
        (Branch::Reuse, proof) => Some(proof),
        _ => None,
    },
};

pub(super) const NODEST_EXPIRED: Row = Row {
    cause: Cause::IpvsNodestExpired,
    says: "The old connection's real server is draining or gone; IPVS expired the entry and dropped this SYN with it; \
           the next one is scheduled anew.",
    proof: "ip_vs_conn_in_get_proto returned an entry whose real server has weight 0 or is not in the service any \
            more, ip_vs_conn_expire_now was called on it, IPVS returned NF_DROP without scheduling, and \
            expire_nodest_conn is 1.",
    advice: Some(
        "Expected while a backend drains or after it was removed: the next SYN gets through. Shorten the drain, keep \
         connections alive, or let the backend close with FIN so that no old conntrack entry is left.",
    ),
    occurs: "IPVS with expire_nodest_conn=1, on every kernel; since 5.9 only if conntrack still holds the old \
             connection.",
    hooks: &[ASKED, &[Hook::IpvsLookup], &[Hook::IpvsExpireNow]],
    find: |case| match expired(case)? {
        (Branch::NoDest, proof) => Some(proof),
        _ => None,
    },
};

pub(super) const DEST_UNAVAILABLE: Row = Row {
    cause: Cause::IpvsDestUnavailable,
    says: "The old connection points to a removed real server and expire_nodest_conn is 0: every SYN is dropped in \
           silence until the entry times out.",
    proof: "ip_vs_conn_in_get_proto returned an entry whose real server is not in the service any more, and IPVS \
            returned NF_DROP without expiring it and without scheduling.",
    advice: Some(
        "Set net.ipv4.vs.expire_nodest_conn=1. Until then the client's port works again when the old entry times out \
         (120 s after a close, 900 s if it was established): see `ipvsadm -Lnc`.",
    ),
    occurs: "IPVS with expire_nodest_conn=0, on every kernel.",
    hooks: &[ASKED, &[Hook::IpvsLookup], &[Hook::IpvsExpireNow]],
    find: unavailable,
};

pub(super) const REUSE_STALE_BACKEND: Row = Row {
    cause: Cause::IpvsReuseStaleBackend,
    says: "The SYN was sent to the real server of an old connection although that server is draining or removed.",
    proof: "ip_vs_conn_in_get_proto returned an entry of an older connection whose real server has weight 0 or is not \
            in the service any more, and ip_vs_nat_xmit (or ip_vs_dr_xmit, ip_vs_tunnel_xmit) sent the SYN with that same \
            entry; no answer finished the handshake.",
    advice: Some(
        "Set net.ipv4.vs.expire_nodest_conn=1, so that entries of draining backends are not used for new connections \
         (kernels since 5.16 and many stable ones do so even with conn_reuse_mode=0).",
    ),
    occurs: "IPVS with conn_reuse_mode=0, or an entry in a state that is never rescheduled; on every kernel with \
             expire_nodest_conn=0.",
    hooks: &[
        &[Hook::IpvsLookup],
        &[Hook::IpvsNatXmit, Hook::IpvsDirectXmit, Hook::IpvsTunnelXmit],
    ],
    find: stale_backend,
};

/// Which branch of `ip_vs_in` expired the entry.
enum Branch {
    /// The one for servers that drain or are gone.
    NoDest,
    /// The one for ports that are reused.
    Reuse,
}

/// Lookup found an entry, IPVS expired it at once and dropped the SYN: three branches do that, told apart by what
/// the entry and the settings were.
fn expired(case: &Case<'_>) -> Option<(Branch, Proof)> {
    let decision = case.decision();
    let found = decision.found.filter(|_| decision.said_drop())?;
    decision.expired.filter(|expired| expired.conn == found.conn)?;
    let flow = case.flow;
    let draining = found.have & ipvs_conn::WEIGHT != 0 && found.weight == 0;
    let removed = found.have & ipvs_conn::AVAILABLE != 0 && found.available == 0;
    let settings = Settings::of(case, &decision, found);
    let (expire_nodest, reuse_mode) = (settings.expire_nodest_conn, settings.conn_reuse_mode);
    let state = (found.have & ipvs_conn::STATE != 0).then_some(found.state);
    let ended = matches!(state, Some(ipvs_conn::TIME_WAIT | ipvs_conn::CLOSE));
    // is_new_conn_expected (ip_vs_core.c, 4.1 to 7.3) lets no other connection be one that has ended.
    let goes_on = state.is_some_and(|state| !ended && state != ipvs_conn::FIN_WAIT);
    let mut evidence = evidence::old_entry(found);
    evidence.push(Evidence::seen(
        "IPVS expired that entry",
        "at once",
        Hook::IpvsExpireNow,
    ));
    evidence.extend(decision.evidence_of_verdict());
    let conntrack_says = evidence::old_conntrack(found);
    if let Some(conntrack) = &conntrack_says {
        evidence.push(Evidence::seen(
            "conntrack entry of the SYN",
            conntrack.clone(),
            Hook::IpvsLookup,
        ));
    }
    evidence.extend(settings.evidence());
    evidence.extend(evidence::earlier(flow));

    // ip_vs_in asks for a draining server first, then for an ended connection (unless conn_reuse_mode is 0), and only
    // then for a removed server. Where it is not known which of the last two it was, there is no cause.
    if removed && !draining && ended && reuse_mode.is_none() {
        return None;
    }
    let not_reuse = !ended || reuse_mode == Some(0);
    // Of a connection that goes on only the branches for servers expire the entry, and only with expire_nodest_conn.
    let is_set = expire_nodest == Some(1) || (expire_nodest.is_none() && goes_on);
    if is_set && (draining || (removed && not_reuse)) {
        // A server that drained is removed with weight 0.
        let why = if removed {
            "was removed from the service"
        } else {
            "is draining (weight 0)"
        };
        let proof = Proof {
            explanation: format!(
                "The client's port still had an IPVS entry for {}, which {why}. IPVS expired that entry and discarded \
                 this SYN with it; the next SYN is scheduled anew.",
                backend_name(found),
            ),
            evidence,
        };
        return Some((Branch::NoDest, proof));
    }
    // Neither branch for servers was possible, or it is not known that it was: only an ended connection is left,
    // and that must have been seen.
    if !ended || ((draining || removed) && expire_nodest.is_none()) {
        return None;
    }
    let state = evidence::state(found).unwrap_or_default();
    let conntrack = match found.have & ipvs_conn::CT_STATUS {
        0 => "conntrack was in use for it",
        _ if found.ct_status & conntrack::CONFIRMED != 0 => "conntrack still held the old connection",
        _ => "this kernel does so whenever the SYN has a conntrack entry, even a new one",
    };
    let proof = Proof {
        explanation: format!(
            "The client reused source port {} while IPVS still held the last connection in {state}. IPVS expired that \
             entry and discarded this SYN, because {conntrack}; the client has to wait for its retransmission.",
            flow.client().port(),
        ),
        evidence,
    };
    Some((Branch::Reuse, proof))
}

/// Lookup found an entry and the SYN was dropped without anything else: the entry's real server is gone.
fn unavailable(case: &Case<'_>) -> Option<Proof> {
    let (flow, decision) = (case.flow, case.decision());
    let found = decision.found.filter(|_| decision.said_drop())?;
    if decision.expired.is_some() || decision.scheduling.is_some() {
        return None;
    }
    if found.have & ipvs_conn::AVAILABLE == 0 || found.available != 0 {
        return None;
    }
    let mut evidence = evidence::old_entry(found);
    evidence.extend(decision.evidence_of_verdict());
    evidence.push(Evidence::seen(
        "that entry was not expired",
        "it drops the next SYN too",
        Hook::IpvsLookup,
    ));
    evidence.extend(Settings::of(case, &decision, found).evidence());
    evidence.extend(evidence::earlier(flow));
    Some(Proof {
        explanation: format!(
            "The client's port still has an IPVS entry for {}, which was removed from the service. IPVS discards every \
             SYN from this port in silence until the entry times out.",
            backend_name(found),
        ),
        evidence,
    })
}

/// The SYN was sent to the real server of an old entry although that server is draining or gone.
fn stale_backend(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Silent | Situation::Refused) {
        return None;
    }
    let (flow, attempt) = (case.flow, case.attempt);
    // The flow's own first SYN made the entry that its retransmissions meet: only the first can meet an old one.
    let first = (0..=attempt).find(|&index| Decision::of(flow, index).asked.is_some())?;
    let old = Decision::of(flow, first).reused()?;
    let decision = Decision::of(flow, attempt);
    let used = decision.reused().filter(|conn| conn.conn == old.conn)?;
    let mut evidence = evidence::old_entry(old);
    let draining = used.have & ipvs_conn::WEIGHT != 0 && used.weight == 0;
    let removed = used.have & ipvs_conn::AVAILABLE != 0 && used.available == 0;
    if !draining && !removed {
        return None;
    }
    evidence.push(Evidence::seen(
        "IPVS sent the SYN with that old entry",
        backend_name(used),
        decision.sent_by.unwrap_or(Hook::IpvsNatXmit),
    ));
    evidence.extend(Settings::of(case, &decision, used).evidence());
    evidence.extend(evidence::earlier(flow));
    evidence.extend(evidence::reset(flow, attempt));
    Some(Proof {
        explanation: format!(
            "The client reused source port {}, and IPVS sent the SYN to the real server of the old connection, {}, \
             although it is {}.",
            flow.client().port(),
            backend_name(used),
            if removed {
                "no longer in the service"
            } else {
                "draining (weight 0)"
            },
        ),
        evidence,
    })
}

/// The settings that decide, as the kernel had them at that moment or, where that cannot be read, as their files said soon
/// after it.
struct Settings {
    conn_reuse_mode: Option<i64>,
    expire_nodest_conn: Option<i64>,
    /// Which were read from the kernel's memory: bits of `ipvs_conn`.
    have: u32,
}

impl Settings {
    fn of(case: &Case<'_>, decision: &Decision<'_>, conn: &IpvsConn) -> Self {
        let at = decision.asked.map(|step| step.event.time_ns);
        let files = case
            .netns()
            .zip(at)
            .map(|(netns, at)| netns.ipvs_settings.at(at))
            .unwrap_or_default();
        let has = |bit: u32| conn.have & bit != 0;
        Self {
            conn_reuse_mode: if has(ipvs_conn::REUSE_MODE) {
                Some(i64::from(conn.conn_reuse_mode))
            } else {
                files.conn_reuse_mode
            },
            expire_nodest_conn: if has(ipvs_conn::EXPIRE_NODEST) {
                Some(i64::from(conn.expire_nodest_conn))
            } else {
                files.expire_nodest_conn
            },
            have: conn.have,
        }
    }

    fn evidence(&self) -> impl Iterator<Item = Evidence> {
        let setting = |name: &str, bit: u32, value: Option<i64>| {
            let (name, value) = (format!("net.ipv4.vs.{name}"), value?.to_string());
            Some(if self.have & bit == 0 {
                Evidence::read(name, value, "/proc/sys/net/ipv4/vs")
            } else {
                Evidence::seen(name, value, Hook::IpvsLookup)
            })
        };
        [
            setting("conn_reuse_mode", ipvs_conn::REUSE_MODE, self.conn_reuse_mode),
            setting(
                "expire_nodest_conn",
                ipvs_conn::EXPIRE_NODEST,
                self.expire_nodest_conn,
            ),
        ]
        .into_iter()
        .flatten()
    }
}

fn backend_name(conn: &IpvsConn) -> String {
    real_server(conn).map_or_else(|| "its old real server".to_owned(), |backend| backend.to_string())
}
