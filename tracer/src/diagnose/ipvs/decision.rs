//! What IPVS decided about one SYN.
//!
//! `ip_vs_in` (`net/netfilter/ipvs/ip_vs_core.c`, 3.10 to 7.3) looks the connection up, may expire an old entry, may
//! schedule a new one, and transmits. Which of these happened, in which order, and what it returned tell the cause.

use tracer_common::{
    hook::Hook,
    record::{IpvsConn, IpvsDests, IpvsLimits, IpvsService},
};

use crate::{
    decode::event::Payload,
    diagnose::evidence::Evidence,
    flow::model::{Flow, Step},
};

const NF_DROP: i32 = 0;
const NF_VERDICT_MASK: i32 = 0xff;

/// What IPVS did with one SYN.
#[derive(Clone, Copy, Default)]
pub(crate) struct Decision<'flow> {
    /// The hook function itself.
    pub(crate) asked: Option<&'flow Step>,
    /// The entry that the lookup found; `None` if it found none or was not seen.
    pub(crate) found: Option<&'flow IpvsConn>,
    pub(crate) looked_up: bool,
    /// The entry that was expired on the spot.
    pub(crate) expired: Option<&'flow IpvsConn>,
    /// A new connection was about to be scheduled; what `tcp_conn_schedule` returned.
    pub(crate) scheduling: Option<i32>,
    /// The service that was scheduled for.
    pub(crate) service: Option<&'flow IpvsService>,
    /// The entry that scheduling made; one without address if it made none.
    pub(crate) scheduled: Option<&'flow IpvsConn>,
    /// The scheduler found no real server.
    pub(crate) left: Option<&'flow IpvsService>,
    /// The real servers that there were then.
    pub(crate) dests: Option<&'flow IpvsDests>,
    /// What limits new connections, when no entry was made.
    pub(crate) limits: Option<&'flow IpvsLimits>,
    /// The entry that was transmitted with.
    pub(crate) sent_with: Option<&'flow IpvsConn>,
    /// The function that did.
    pub(crate) sent_by: Option<Hook>,
}

impl<'flow> Decision<'flow> {
    /// Collects what was seen of one SYN.
    pub(crate) fn of(flow: &'flow Flow, attempt: usize) -> Self {
        let mut out = Self::default();
        for step in flow.steps_of(attempt) {
            match (step.event.hook, &step.event.payload) {
                (hook, Payload::Packet | Payload::Route(_)) if hook.is_ipvs_request() => {
                    out.asked = Some(step)
                }
                (Hook::IpvsLookup, Payload::IpvsConn(conn)) => {
                    out.looked_up = true;
                    out.found = Some(conn).filter(|conn| conn.conn != 0);
                }
                (Hook::IpvsExpireNow, Payload::IpvsConn(conn)) => out.expired = Some(conn),
                (Hook::IpvsTcpSchedule, what) => {
                    out.scheduling = step.verdict;
                    if let Payload::IpvsLimits(limits) = what {
                        out.limits = Some(limits);
                    }
                }
                (Hook::IpvsSchedule, Payload::IpvsService(service)) => out.service = Some(service),
                (Hook::IpvsSchedule, Payload::IpvsConn(conn)) => out.scheduled = Some(conn),
                (Hook::IpvsLeave, Payload::IpvsService(service)) => out.left = Some(service),
                (Hook::IpvsLeave, Payload::IpvsDests(dests)) => out.dests = Some(dests),
                (hook, Payload::IpvsConn(conn)) if hook.is_ipvs_xmit() => {
                    (out.sent_with, out.sent_by) = (Some(conn), Some(hook));
                }
                _ => {}
            }
        }
        out
    }

    /// Did the hook function return that the packet is to be dropped?
    pub(crate) fn said_drop(&self) -> bool {
        self.verdict()
            .is_some_and(|verdict| verdict & NF_VERDICT_MASK == NF_DROP)
    }

    pub(crate) fn verdict(&self) -> Option<i32> {
        self.asked.and_then(|step| step.verdict)
    }

    /// Did IPVS drop the SYN because `tcp_conn_schedule` (`net/netfilter/ipvs/ip_vs_proto_tcp.c`, 4.4 to 7.3) said so, for
    /// another reason than that the scheduler found nothing?
    pub(crate) fn scheduling_dropped(&self) -> bool {
        self.said_drop() && self.scheduling == Some(0) && self.left.is_none()
    }

    /// Was the SYN sent with an entry that an older connection left behind?
    pub(crate) fn reused(&self) -> Option<&'flow IpvsConn> {
        let found = self.found?;
        let sent = self.sent_with?;
        (found.conn == sent.conn && self.scheduling.is_none() && self.expired.is_none()).then_some(found)
    }

    pub(crate) fn evidence_of_verdict(&self) -> Option<Evidence> {
        let step = self.asked?;
        let verdict = step.verdict?;
        let name = match verdict & NF_VERDICT_MASK {
            0 => "NF_DROP",
            1 => "NF_ACCEPT",
            2 => "NF_STOLEN",
            _ => "another verdict",
        };
        Some(Evidence::seen(
            "verdict of IPVS on the SYN",
            format!("{name} ({verdict})"),
            step.event.hook,
        ))
    }
}
