//! A SYN from a client port for which IPVS still holds the entry of an old connection.

use tracer_common::{
    hook::Hook,
    record::{IpvsConn, conntrack, ipvs_conn},
};

use super::{
    at_rest,
    decision::{Decision, REQUEST},
};
use crate::{
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
    },
    flow::model::real_server,
};

pub(super) const REUSE_DROPPED: Row = Row {
    cause: Cause::IpvsReuseDropped,
    group: Group::IpvsReuse,
    summary: "The client reused its source port while IPVS still held the old connection. IPVS dropped this SYN; the \
              retransmission gets through.",
    proof: "ip_vs_conn_in_get_proto returned an entry in TIME_WAIT or CLOSE, ip_vs_conn_expire_now was called on it, \
            IPVS returned NF_DROP without scheduling, and neither a draining nor a removed real server explains it. At \
            depth light: ip_vs_conn_expire_now was called on an entry in TIME_WAIT or CLOSE with the client's own tuple, and \
            nf_hook_slow freed the SYN next on the same CPU, with no call of ip_vs_schedule and with drop_packet=0.",
    advice: Some(
        "Set net.ipv4.vs.conn_reuse_mode=0 together with expire_nodest_conn=1 (kernels that report a version before 4.1, \
         such as CentOS 7's 3.10, may have the setting too: check whether the file exists). Kernels 5.9 and later drop the \
         SYN only if the old connection ended with RST or lost its final ACK: make the backend close with FIN. Keep \
         connections alive, so that clients reuse fewer ports.",
    ),
    scope: "IPVS. On kernels 4.6 to 5.8 and on CentOS and RHEL 7 and 8, every reuse; on newer ones, including 7.3, when the \
            old connection ended with RST or lost its final ACK.",
    hooks: &[REQUEST, &[Hook::IpvsLookup], &[Hook::IpvsExpireNow]],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect: |case| match expired(case)? {
        (Branch::Reuse, proof) => Some(proof),
        _ => None,
    },
};

pub(super) const NODEST_EXPIRED: Row = Row {
    cause: Cause::IpvsNodestExpired,
    group: Group::IpvsReuse,
    summary: "The real server of the old connection is draining or removed. IPVS expired the entry and dropped this SYN; it \
              schedules the next one as a new connection.",
    proof: "ip_vs_conn_in_get_proto returned an entry whose real server has weight 0 or was removed from the service, \
            ip_vs_conn_expire_now was called on it, IPVS returned NF_DROP without scheduling, and expire_nodest_conn is 1.",
    advice: Some(
        "Expected while a backend drains or after it was removed: the retransmission gets through. Shorten the drain, keep \
         connections alive, or make the backend close with FIN so that no old conntrack entry remains.",
    ),
    scope: "IPVS with expire_nodest_conn=1, on every kernel; since 5.9 only while conntrack still holds the old \
            connection.",
    hooks: &[REQUEST, &[Hook::IpvsLookup], &[Hook::IpvsExpireNow]],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect: |case| match expired(case)? {
        (Branch::NoDest, proof) => Some(proof),
        _ => None,
    },
};

pub(super) const DEST_UNAVAILABLE: Row = Row {
    cause: Cause::IpvsDestUnavailable,
    group: Group::IpvsReuse,
    summary: "The old connection points to a removed real server and expire_nodest_conn is 0: IPVS silently drops every SYN \
              from this port until the entry times out.",
    proof: "ip_vs_conn_in_get_proto returned an entry whose real server was removed from the service, and IPVS returned \
            NF_DROP without expiring it and without scheduling.",
    advice: Some(
        "Set net.ipv4.vs.expire_nodest_conn=1. Otherwise the client's port works again when the old entry times out \
         (120 s after a close, 900 s if it was established): see `ipvsadm -Lnc`.",
    ),
    scope: "IPVS with expire_nodest_conn=0, on every kernel.",
    hooks: &[REQUEST, &[Hook::IpvsLookup], &[Hook::IpvsExpireNow]],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: unavailable,
};

pub(super) const REUSE_STALE_BACKEND: Row = Row {
    cause: Cause::IpvsReuseStaleBackend,
    group: Group::IpvsReuse,
    summary: "IPVS sent the SYN to the real server of an old connection, although that server is draining or removed.",
    proof: "ip_vs_conn_in_get_proto returned an entry of an old connection whose real server has weight 0 or was removed \
            from the service, and ip_vs_nat_xmit (or ip_vs_dr_xmit, ip_vs_tunnel_xmit) sent the SYN with that same entry; \
            no answer finished the handshake.",
    advice: Some(
        "Set net.ipv4.vs.expire_nodest_conn=1: IPVS then expires the entries of draining real servers instead of using them for \
         new connections. With conn_reuse_mode=0, this needs kernel 5.16 or a stable release with that fix.",
    ),
    scope: "IPVS with conn_reuse_mode=0, or with an entry in a state that is never rescheduled; on every kernel with \
            expire_nodest_conn=0.",
    hooks: &[
        &[Hook::IpvsLookup],
        &[Hook::IpvsNatXmit, Hook::IpvsDirectXmit, Hook::IpvsTunnelXmit],
    ],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: stale_backend,
};

/// The branch of `ip_vs_in` that expired the entry.
enum Branch {
    /// The one for draining and removed servers.
    NoDest,
    /// The one for reused ports.
    Reuse,
}

/// Proves that the lookup found an entry, and that IPVS expired it at once and dropped the SYN. Three branches do that; the
/// entry and the settings show which.
fn expired(case: &Case<'_>) -> Option<(Branch, Proof)> {
    let decision = case.decision();
    let at_rest = at_rest::Expired::of(case);
    let found = if let Some(expired) = &at_rest {
        expired.conn
    } else {
        let found = decision.found.filter(|_| decision.is_drop())?;
        decision.expired.filter(|expired| expired.conn == found.conn)?;
        found
    };
    let flow = case.flow;
    let draining = found.have & ipvs_conn::WEIGHT != 0 && found.weight == 0;
    let removed = found.have & ipvs_conn::AVAILABLE != 0 && found.available == 0;
    let mut settings = Settings::of(case, &decision, found);
    if at_rest.is_some() {
        settings.source = Hook::IpvsExpireNow;
    }
    let (expire_nodest, reuse_mode) = (settings.expire_nodest_conn, settings.conn_reuse_mode);
    let state = (found.have & ipvs_conn::STATE != 0).then_some(found.state);
    let ended = matches!(state, Some(ipvs_conn::TIME_WAIT | ipvs_conn::CLOSE));
    // is_new_conn_expected (ip_vs_core.c, 4.1 to 7.3) counts no other connection as ended.
    let goes_on = state.is_some_and(|state| !ended && state != ipvs_conn::FIN_WAIT);
    let mut evidence = evidence::old_entry(found);
    if let Some(expired) = &at_rest {
        evidence = expired.sources(evidence);
    }
    evidence.push(Evidence::seen(
        Key::OldEntryExpired,
        "at once",
        Hook::IpvsExpireNow,
    ));
    evidence.extend(decision.evidence_of_verdict());
    if let Some(expired) = &at_rest {
        evidence.extend(evidence::dropped(expired.dropped, case.facts));
    }
    if let Some(conntrack) = evidence::old_conntrack(found) {
        evidence.push(Evidence::seen(
            Key::SynConntrackEntry,
            conntrack,
            Hook::IpvsLookup,
        ));
    }
    evidence.extend(settings.evidence());
    evidence.extend(evidence::earlier(flow));

    // ip_vs_in checks for a draining server first, then for an ended connection (unless conn_reuse_mode is 0), and only
    // then for a removed server. Where it is not known which of the last two it was, there is no cause.
    if removed && !draining && ended && reuse_mode.is_none() {
        return None;
    }
    let not_reuse = !ended || reuse_mode == Some(0);
    // For a connection that goes on, only the branches for servers expire the entry, and only with expire_nodest_conn.
    let is_set = expire_nodest == Some(1) || (expire_nodest.is_none() && goes_on);
    if is_set && (draining || (removed && not_reuse)) {
        // A draining server that is removed has weight 0 as well.
        let why = if removed {
            "was removed from the service"
        } else {
            "is draining (weight 0)"
        };
        let proof = Proof::new(
            format!(
                "IPVS still held an entry for the client's port, to {}, which {why}. IPVS expired the entry and dropped \
                 this SYN; it schedules the next SYN as a new connection.",
                backend_name(found),
            ),
            evidence,
        );
        return Some((Branch::NoDest, proof));
    }
    // Neither branch for servers was possible, or it is not known that one was: what remains is an ended connection, and
    // that must have been seen.
    if !ended || ((draining || removed) && expire_nodest.is_none()) {
        return None;
    }
    let state = evidence::state(found).unwrap_or_default();
    let conntrack = match found.have & ipvs_conn::CT_STATUS {
        0 => "it had a conntrack entry",
        _ if found.ct_status & conntrack::CONFIRMED != 0 => "conntrack still held the old connection",
        _ => "this kernel does so whenever the SYN has a conntrack entry, even a new one",
    };
    let proof = Proof::new(
        format!(
            "The client reused source port {} while IPVS still held the old connection in {state}. IPVS expired that \
             entry and dropped this SYN, because {conntrack}. The client must wait for its retransmission.",
            flow.client().port(),
        ),
        evidence,
    );
    Some((Branch::Reuse, proof))
}

/// Proves that the lookup found an entry whose real server was removed, and that IPVS dropped the SYN without doing anything
/// else.
fn unavailable(case: &Case<'_>) -> Option<Proof> {
    let (flow, decision) = (case.flow, case.decision());
    let found = decision.found.filter(|_| decision.is_drop())?;
    if decision.expired.is_some() || decision.scheduling.is_some() {
        return None;
    }
    if found.have & ipvs_conn::AVAILABLE == 0 || found.available != 0 {
        return None;
    }
    let mut evidence = evidence::old_entry(found);
    evidence.extend(decision.evidence_of_verdict());
    evidence.push(Evidence::seen(
        Key::OldEntryExpired,
        "no: it drops the next SYN too",
        Hook::IpvsLookup,
    ));
    evidence.extend(Settings::of(case, &decision, found).evidence());
    evidence.extend(evidence::earlier(flow));
    Some(Proof::new(
        format!(
            "IPVS still holds an entry for the client's port, to {}, which was removed from the service. IPVS silently drops \
             every SYN from this port until the entry times out.",
            backend_name(found),
        ),
        evidence,
    ))
}

/// Proves that IPVS sent the SYN to the real server of an old entry, although that server is draining or removed.
fn stale_backend(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Silent | Situation::Refused) {
        return None;
    }
    let (flow, attempt) = (case.flow, case.attempt);
    // The flow's own first SYN created the entry that its retransmissions meet: only the first can meet an old one.
    let first = (0..=attempt).find(|&index| Decision::of(flow, index).request.is_some())?;
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
        Key::OldEntryUsed,
        backend_name(used),
        decision.sent_by.unwrap_or(Hook::IpvsNatXmit),
    ));
    evidence.extend(Settings::of(case, &decision, used).evidence());
    evidence.extend(evidence::earlier(flow));
    evidence.extend(evidence::reset(flow, attempt));
    Some(Proof::new(
        format!(
            "The client reused source port {}, and IPVS sent the SYN to the real server of the old connection, {}, although \
             it {}.",
            flow.client().port(),
            backend_name(used),
            if removed {
                "was removed from the service"
            } else {
                "is draining (weight 0)"
            },
        ),
        evidence,
    ))
}

/// The settings that decide: as the kernel had them at that moment or, where that is not readable, as their files had them
/// soon after.
struct Settings {
    conn_reuse_mode: Option<i64>,
    expire_nodest_conn: Option<i64>,
    /// The members that were read from the kernel's memory: bits of `ipvs_conn`.
    have: u32,
    /// The hook that read them.
    source: Hook,
}

impl Settings {
    fn of(case: &Case<'_>, decision: &Decision<'_>, conn: &IpvsConn) -> Self {
        let at = decision.request.map(|step| step.event.time_ns);
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
            source: Hook::IpvsLookup,
        }
    }

    fn evidence(&self) -> impl Iterator<Item = Evidence> {
        let setting = |key: Key, bit: u32, value: Option<i64>| {
            let value = value?.to_string();
            Some(if self.have & bit == 0 {
                Evidence::read(key, value, "/proc/sys/net/ipv4/vs")
            } else {
                Evidence::seen(key, value, self.source)
            })
        };
        [
            setting(Key::IpvsReuseMode, ipvs_conn::REUSE_MODE, self.conn_reuse_mode),
            setting(
                Key::IpvsExpireNodest,
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
