//! Connections that IPVS does not track: `net.ipv4.vs.conntrack` is 0.
//!
//! IPVS then removes the conntrack entry from each packet that it sends (`ip_vs_notrack`, `include/net/ip_vs.h`, 3.10 to
//! 7.3): no rule of the node translates it, and its answer is INVALID for conntrack.

use tracer_common::record::ipvs_conn;

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof},
        evidence::{Evidence, Key},
    },
};

/// `IP_VS_CONN_F_NFCT` (`include/uapi/linux/ip_vs.h`, 3.10 to 7.3): the connection has a conntrack entry.
const NFCT: u32 = 0x1_0000;

const SETTING: &str = "net.ipv4.vs.conntrack";

/// Evidence that IPVS sent the deciding SYN without a conntrack entry: by the flag of its connection or, where that was not
/// read, by the setting.
fn evidence(case: &Case<'_>) -> Option<Evidence> {
    let (step, conn) = case.steps().find_map(|step| match &step.event.payload {
        Payload::IpvsConn(conn) if step.event.hook.is_ipvs_xmit() => Some((step, conn)),
        _ => None,
    })?;
    let setting = case.netns().and_then(|netns| netns.sysctls.number(SETTING));
    if conn.have & ipvs_conn::FLAGS == 0 {
        return (setting == Some(0))
            .then(|| Evidence::read(Key::IpvsConntrack, "0", "/proc/sys/net/ipv4/vs"));
    }
    (conn.flags & NFCT == 0).then(|| {
        Evidence::seen(
            Key::IpvsConntrack,
            "0 when the IPVS entry was created",
            step.event.hook,
        )
    })
}

/// Names the setting as the root, if IPVS sent the SYN without a conntrack entry.
pub(in crate::diagnose) fn name_root(case: &Case<'_>, proof: Proof) -> Proof {
    let Some(evidence) = evidence(case) else {
        return proof;
    };
    let mut proof = proof;
    proof
        .explanation
        .push_str(" The root cause is net.ipv4.vs.conntrack=0: IPVS sent the SYN without a conntrack entry, so the SYN-ACK \
                   matches none.");
    proof.evidence.push(evidence);
    let is_on_now = case
        .netns()
        .and_then(|netns| netns.sysctls.number(SETTING))
        .is_some_and(|value| value != 0);
    if is_on_now {
        return proof.advise(
            "net.ipv4.vs.conntrack is 1 again, so new connections are tracked. Find out what had set it to 0 (a file in \
             /etc/sysctl.d, a tuning agent): kube-proxy sets it to 1 when it starts.",
        );
    }
    proof.advise(
        "Run `sysctl -w net.ipv4.vs.conntrack=1`. kube-proxy sets it when it starts: find out what reset it to 0 (a file in \
         /etc/sysctl.d, a tuning agent). Each IPVS connection then takes an entry of the conntrack table.",
    )
}

/// Adds that IPVS sent the SYN without a conntrack entry, where other reasons may count too.
pub(in crate::diagnose) fn add_evidence(case: &Case<'_>, mut proof: Proof) -> Proof {
    proof.evidence.extend(evidence(case));
    proof
}
