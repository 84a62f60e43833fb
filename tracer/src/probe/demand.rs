//! The on-demand hooks that are wanted now.

use std::{collections::VecDeque, time::Duration};

use tracer_common::{hook::When, record::Phase, uapi::verdict};

use crate::{
    decode::event::{Event, Payload},
    facts::kallsyms::Symbols,
    finding::depth::Depth,
    flow::suspicion::Suspicion,
};

/// Functions that free a packet after a rule, or another hook function of netfilter, decided to drop it: `nf_hook_slow`
/// (`net/netfilter/core.c`, 3.10 to 7.3) on the verdict that it gets back, and `nft_do_chain` where nf_tables frees the
/// packet itself to name a drop reason (6.1.y, 6.7 and later).
const RULE_DROP_SITES: [&str; 2] = ["nf_hook_slow", "nft_do_chain"];

/// How long hooks stay wanted after the last packet that a rule may have dropped. A client retransmits its SYN for two
/// minutes, with growing pauses.
const KEEP: Duration = Duration::from_mins(5);

/// How many packets with a known verdict are remembered, by their buffers. The drop follows the verdict within
/// microseconds, so a few are enough.
const MAX_EXPLAINED: usize = 64;

/// Decides from the events seen which on-demand hooks are wanted.
#[derive(Debug, Default)]
pub struct Demand {
    /// Buffers of packets for which a hook has shown who decided to drop them.
    explained: VecDeque<u64>,
    /// When a rule may last have dropped a packet, monotonic nanoseconds.
    rule_drop_ns: Option<u64>,
    /// The depth that the user chose.
    depth: Depth,
    /// How long all hooks stay attached after the last suspicion, nanoseconds.
    deep_for_ns: u64,
    /// When something last looked wrong, monotonic nanoseconds.
    suspected_ns: Option<u64>,
}

impl Demand {
    /// Wants hooks as this depth does.
    #[must_use]
    pub fn new(depth: Depth, deep_for: Duration) -> Self {
        Self {
            depth,
            deep_for_ns: u64::try_from(deep_for.as_nanos()).unwrap_or(u64::MAX),
            ..Self::default()
        }
    }

    /// Takes into account what looks wrong at `now_ns`, monotonic nanoseconds. Returns the first of it that makes more hooks
    /// wanted.
    pub fn suspect(
        &mut self,
        suspicions: impl IntoIterator<Item = Suspicion>,
        now_ns: u64,
    ) -> Option<Suspicion> {
        let first = suspicions.into_iter().next()?;
        let was_wanted = self.wants(When::OnSuspicion, now_ns);
        self.suspected_ns = Some(now_ns);
        (!was_wanted && self.wants(When::OnSuspicion, now_ns)).then_some(first)
    }

    /// Takes an event into account. Events of one CPU must come in order.
    pub fn observe(&mut self, event: &Event, symbols: &Symbols) {
        if event.phase == Phase::Return && event.hook.gives_own_verdict() {
            if verdict::is_drop(event.verdict) {
                self.explained.truncate(MAX_EXPLAINED - 1);
                self.explained.push_front(event.skb);
            }
            return;
        }
        let Payload::Drop(drop) = &event.payload else {
            return;
        };
        if let Some(index) = self.explained.iter().position(|&skb| skb == event.skb) {
            self.explained.remove(index);
            return;
        }
        let site = symbols.locate(drop.location);
        if site.is_some_and(|site| RULE_DROP_SITES.contains(&site.symbol)) {
            self.rule_drop_ns = Some(event.time_ns);
        }
    }

    /// Whether hooks of this kind are wanted at this time, monotonic nanoseconds.
    #[must_use]
    pub fn wants(&self, when: When, now_ns: u64) -> bool {
        match when {
            When::Always | When::WithoutDropReasons => true,
            When::OnSuspicion => match self.depth {
                Depth::Full => true,
                Depth::Auto => self
                    .suspected_ns
                    .is_some_and(|seen| now_ns.saturating_sub(seen) <= self.deep_for_ns),
                Depth::Light | Depth::Unknown => false,
            },
            When::AfterRuleDrop => {
                self.depth != Depth::Light
                    && self
                        .rule_drop_ns
                        .is_some_and(|seen| u128::from(now_ns.saturating_sub(seen)) <= KEEP.as_nanos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::{
        hook::Hook,
        record::{Drop, Header},
        tcp::SYN,
        uapi::verdict::NF_DROP,
    };

    use super::*;
    use crate::flow::suspicion::Sign;

    const SECOND: u64 = 1_000_000_000;
    const IN_NF_HOOK_SLOW: u64 = 0xffff_ffff_8100_00c3;
    const IN_TCP: u64 = 0xffff_ffff_8100_1010;

    fn symbols() -> Symbols {
        let list = "ffffffff81000000 T nf_hook_slow\nffffffff81001000 T tcp_v4_rcv\n";
        Symbols::parse(list.as_bytes()).unwrap()
    }

    fn event(hook: Hook, phase: Phase, skb: u64, verdict: i32, what: Payload) -> Event {
        let header = Header {
            time_ns: SECOND,
            skb,
            hook: hook as u16,
            phase: phase as u8,
            verdict,
            tcp_flags: SYN,
            ..Header::default()
        };
        Event::new(&header, what).unwrap()
    }

    fn dropped(skb: u64, location: u64) -> Event {
        let drop = Drop {
            location,
            ..Drop::default()
        };
        event(Hook::KfreeSkb, Phase::Entry, skb, 0, Payload::Drop(drop))
    }

    fn wanted(events: &[Event]) -> bool {
        let mut demand = Demand::default();
        for event in events {
            demand.observe(event, &symbols());
        }
        demand.wants(When::AfterRuleDrop, SECOND)
    }

    #[test]
    fn a_drop_in_netfilter_makes_the_rule_hooks_wanted_for_a_while() {
        let mut demand = Demand::default();
        assert!(!demand.wants(When::AfterRuleDrop, SECOND));
        assert!(demand.wants(When::Always, SECOND));
        demand.observe(&dropped(1, IN_NF_HOOK_SLOW), &symbols());
        assert!(demand.wants(When::AfterRuleDrop, SECOND));
        assert!(demand.wants(When::AfterRuleDrop, 301 * SECOND));
        assert!(!demand.wants(When::AfterRuleDrop, 302 * SECOND));
    }

    #[test]
    fn a_suspicion_raises_the_depth_for_a_while() {
        let seen = Suspicion {
            port: 30_080,
            sign: Sign::Retransmission,
        };
        let at = |depth| Demand::new(depth, Duration::from_mins(1));
        let mut auto = at(Depth::Auto);
        assert!(!auto.wants(When::OnSuspicion, SECOND));
        assert_eq!(auto.suspect([], SECOND), None);
        assert_eq!(auto.suspect([seen], SECOND), Some(seen));
        assert_eq!(auto.suspect([seen], 31 * SECOND), None);
        assert!(auto.wants(When::OnSuspicion, 91 * SECOND));
        assert!(!auto.wants(When::OnSuspicion, 92 * SECOND));
        assert_eq!(auto.suspect([seen], 93 * SECOND), Some(seen));
        let mut light = at(Depth::Light);
        assert_eq!(light.suspect([seen], SECOND), None);
        light.observe(&dropped(1, IN_NF_HOOK_SLOW), &symbols());
        assert!(!light.wants(When::OnSuspicion, SECOND) && !light.wants(When::AfterRuleDrop, SECOND));
        assert!(at(Depth::Full).wants(When::OnSuspicion, SECOND));
    }

    #[test]
    fn a_drop_elsewhere_does_not() {
        assert!(!wanted(&[dropped(1, IN_TCP)]));
        // The verdict was that of IPVS, not of a rule.
        let ipvs = event(Hook::IpvsIn, Phase::Return, 1, NF_DROP, Payload::Packet);
        assert!(!wanted(&[ipvs.clone(), dropped(1, IN_NF_HOOK_SLOW)]));
        assert!(wanted(&[ipvs.clone(), dropped(2, IN_NF_HOOK_SLOW)]));
        // The same buffer again: another packet.
        assert!(wanted(&[
            ipvs,
            dropped(1, IN_NF_HOOK_SLOW),
            dropped(1, IN_NF_HOOK_SLOW)
        ]));
        let accepted = event(Hook::IpvsIn, Phase::Return, 1, 1, Payload::Packet);
        assert!(wanted(&[accepted, dropped(1, IN_NF_HOOK_SLOW)]));
    }

    #[test]
    fn few_packets_are_remembered() {
        let mut demand = Demand::default();
        for skb in 0..10_000 {
            let verdict = event(Hook::CtConfirm, Phase::Return, skb, NF_DROP, Payload::Packet);
            demand.observe(&verdict, &symbols());
        }
        assert_eq!(demand.explained.len(), MAX_EXPLAINED);
    }
}
