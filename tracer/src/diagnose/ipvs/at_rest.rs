//! An entry that IPVS expired for a SYN, seen without the hooks that show the lookup and the verdict of IPVS.

use tracer_common::{
    hook::Hook,
    record::{IpvsConn, ipvs_conn},
    tcp::Part,
};

use crate::{
    decode::event::Payload,
    diagnose::{
        case::Case,
        evidence::{self, Evidence},
    },
    flow::model::Step,
};

/// The function of netfilter that frees a packet on the verdict of IPVS (`net/netfilter/core.c`, 3.10 to 7.3).
const DROP_SITE: &str = "nf_hook_slow";
/// The longest time from the expiry to the drop, nanoseconds. It takes microseconds, more under emulation.
const SAME_CALL_NS: u64 = 20_000_000;
/// The setting that makes `ip_vs_todrop` drop new connections before `ip_vs_schedule` is called
/// (`tcp_conn_schedule`, `net/netfilter/ipvs/ip_vs_proto_tcp.c`, 3.10 to 7.3).
const DROP_PACKET: &str = "net.ipv4.vs.drop_packet";

/// The entry that was expired, and the SYN's end.
pub(super) struct Expired<'a> {
    pub(super) conn: &'a IpvsConn,
    pub(super) dropped: &'a Step,
}

impl<'a> Expired<'a> {
    /// Proves that `ip_vs_in` expired an entry for the SYN and dropped it. `None` if the lookup was seen, which shows more.
    ///
    /// A softirq does both without a pause, so nothing else on that CPU comes between. A flush or `drop_entry` expires
    /// entries in process context, before or after it. Since 5.9, IPVS may expire the entry and schedule a new one: then
    /// `ip_vs_schedule` is called before anything drops the SYN, unless `drop_packet` is on or the service is gone.
    pub(super) fn of(case: &Case<'a>) -> Option<Self> {
        let flow = case.flow;
        if case.decision().looked_up {
            return None;
        }
        let dropped = case.dropped.filter(|step| step.event.part == Part::Syn)?;
        let syn = flow.attempts.get(case.attempt)?;
        let is_own = syn.skb != 0 && dropped.event.skb == syn.skb && dropped.event.tuple == flow.original;
        let function = case.dropped_in().map(evidence::function);
        if !is_own || function != Some(DROP_SITE) {
            return None;
        }
        // What the tracepoint reads about the freed packet are steps of their own.
        let is_of_drop =
            |step: &&Step| step.event.hook == Hook::KfreeSkb && step.event.skb == dropped.event.skb;
        let before: Vec<&Step> = case
            .steps()
            .filter(|step| step.event.time_ns <= dropped.event.time_ns)
            .collect();
        let freed = before.iter().rev().copied().take_while(is_of_drop).last();
        let freed_ns = freed.unwrap_or(dropped).event.time_ns;
        let mut before = before.into_iter().rev().skip_while(is_of_drop);
        let expired = before.next()?;
        let Payload::IpvsConn(conn) = &expired.event.payload else {
            return None;
        };
        let is_arrival = |step: &Step| {
            step.event.hook == Hook::NetifReceive
                && step.event.skb == syn.skb
                && step.event.cpu == dropped.event.cpu
        };
        let is_at_once = expired.event.hook == Hook::IpvsExpireNow
            && expired.event.skb == 0
            && expired.event.cpu == dropped.event.cpu
            && freed_ns.saturating_sub(expired.event.time_ns) <= SAME_CALL_NS;
        let was_decided = |step: &&Step| {
            matches!(
                step.event.hook,
                Hook::IpvsSchedule | Hook::IpvsLeave | Hook::CtConfirm | Hook::IpvsExpireNow
            )
        };
        let earlier: Vec<&Step> = before.collect();
        let came_in = earlier.iter().any(|step| is_arrival(step));
        if !is_at_once || !came_in || earlier.iter().any(was_decided) {
            return None;
        }
        // A persistence template may be what decides: that takes the lookup.
        let is_controlled = conn.have & ipvs_conn::CONTROL != 0 && conn.have & ipvs_conn::CONTROLLED != 0;
        let netns = case.netns()?;
        let may_schedule =
            netns.sysctls.number(DROP_PACKET) != Some(0) || netns.service(flow.node()).is_none();
        (!is_controlled && !may_schedule).then_some(Self { conn, dropped })
    }

    /// The evidence with the hook that showed it: that of the lookup was not attached.
    #[expect(clippy::unused_self, reason = "only this proof has that source")]
    pub(super) fn sources(&self, evidence: Vec<Evidence>) -> Vec<Evidence> {
        let expire = Hook::IpvsExpireNow.name();
        evidence
            .into_iter()
            .map(|fact| Evidence {
                source: expire.to_owned(),
                ..fact
            })
            .collect()
    }
}
