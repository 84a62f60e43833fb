//! The decision of IPVS about one SYN.
//!
//! `ip_vs_in` (`net/netfilter/ipvs/ip_vs_core.c`, 3.10 to 7.3) looks up the connection, may expire an old entry, may
//! schedule a new one, and transmits. Which of these happened, in which order, and what it returned identify the cause.

use tracer_common::{
    hook::Hook,
    record::{IpvsConn, IpvsDests, IpvsLimits, IpvsService},
    uapi::verdict,
};

use crate::{
    decode::event::Payload,
    diagnose::evidence::{Evidence, Key},
    flow::model::{Flow, Step},
};

/// The hooks at which netfilter hands a SYN to IPVS.
pub(super) const REQUEST: &[Hook] = &[Hook::IpvsIn, Hook::IpvsRemoteRequest, Hook::IpvsLocalRequest];

/// The decision of IPVS about one SYN.
#[derive(Clone, Copy, Default)]
pub(in crate::diagnose) struct Decision<'flow> {
    /// The hook function itself.
    pub(in crate::diagnose) request: Option<&'flow Step>,
    /// The entry that the lookup found; `None` if it found none or was not seen.
    pub(in crate::diagnose) found: Option<&'flow IpvsConn>,
    pub(in crate::diagnose) looked_up: bool,
    /// The entry that was expired at once.
    pub(in crate::diagnose) expired: Option<&'flow IpvsConn>,
    /// The return value of `tcp_conn_schedule`, if it was called to schedule a new connection.
    pub(in crate::diagnose) scheduling: Option<i32>,
    /// The service for which a connection was scheduled.
    pub(in crate::diagnose) service: Option<&'flow IpvsService>,
    /// The entry that scheduling created; one with address 0 if it created none.
    pub(in crate::diagnose) scheduled: Option<&'flow IpvsConn>,
    /// The service whose scheduler found no real server.
    pub(in crate::diagnose) left: Option<&'flow IpvsService>,
    /// The real servers of that service at that moment.
    pub(in crate::diagnose) dests: Option<&'flow IpvsDests>,
    /// The limits on new connections, where no entry was created.
    pub(in crate::diagnose) limits: Option<&'flow IpvsLimits>,
    /// The entry with which the SYN was sent.
    pub(in crate::diagnose) sent_with: Option<&'flow IpvsConn>,
    /// The function that sent it.
    pub(in crate::diagnose) sent_by: Option<Hook>,
}

impl<'flow> Decision<'flow> {
    /// Collects what was seen of one SYN.
    pub(in crate::diagnose) fn of(flow: &'flow Flow, attempt: usize) -> Self {
        let mut out = Self::default();
        for step in flow.steps_of(attempt) {
            match (step.event.hook, &step.event.payload) {
                (hook, Payload::Packet | Payload::Route(_)) if hook.is_ipvs_request() => {
                    out.request = Some(step);
                }
                (Hook::IpvsLookup, Payload::IpvsConn(conn)) => {
                    out.looked_up = true;
                    out.found = Some(conn).filter(|conn| conn.conn != 0);
                }
                // Without a packet: no lookup of the entry was seen.
                (Hook::IpvsExpireNow, Payload::IpvsConn(conn)) if step.event.skb != 0 => {
                    out.expired = Some(conn);
                }
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

    /// Whether the hook function returned a verdict that drops the packet.
    pub(in crate::diagnose) fn is_drop(&self) -> bool {
        self.verdict().is_some_and(verdict::is_drop)
    }

    pub(in crate::diagnose) fn verdict(&self) -> Option<i32> {
        self.request.and_then(|step| step.verdict)
    }

    /// Whether IPVS dropped the SYN on the verdict of `tcp_conn_schedule` (`net/netfilter/ipvs/ip_vs_proto_tcp.c`, 4.4 to
    /// 7.3), and not because the scheduler found no real server.
    pub(in crate::diagnose) fn scheduling_dropped(&self) -> bool {
        self.is_drop() && self.scheduling == Some(0) && self.left.is_none()
    }

    /// The entry of an old connection with which the SYN was sent.
    pub(in crate::diagnose) fn reused(&self) -> Option<&'flow IpvsConn> {
        let found = self.found?;
        let sent = self.sent_with?;
        (found.conn == sent.conn && self.scheduling.is_none() && self.expired.is_none()).then_some(found)
    }

    pub(in crate::diagnose) fn evidence_of_verdict(&self) -> Option<Evidence> {
        let step = self.request?;
        let verdict = step.verdict?;
        let name = match verdict & verdict::NF_VERDICT_MASK {
            verdict::NF_DROP => "NF_DROP",
            verdict::NF_ACCEPT => "NF_ACCEPT",
            _ if verdict::is_drop_reason(verdict) => "NF_DROP_REASON",
            verdict::NF_STOLEN => "NF_STOLEN",
            _ => "another verdict",
        };
        Some(Evidence::seen(
            Key::IpvsVerdict,
            format!("{name} ({verdict})"),
            step.event.hook,
        ))
    }
}
