//! Which of the hooks that are not wanted all the time are wanted now.

use std::{collections::VecDeque, time::Duration};

use tracer_common::{hook::When, record::Phase, uapi::verdict};

use crate::{
    decode::event::{Event, Payload},
    facts::kallsyms::Symbols,
};

/// Functions that free a packet on which a rule, or another hook function of netfilter, gave the verdict to drop it.
/// `nf_hook_slow` (`net/netfilter/core.c`, 3.10 to 7.3) does where the verdict comes back to it, `nft_do_chain` where
/// nf_tables frees the packet itself to name a drop reason (6.1.y, 6.7 and later).
const RULE_DROP_SITES: [&str; 2] = ["nf_hook_slow", "nft_do_chain"];

/// How long hooks stay wanted after the last packet that a rule may have discarded. A client sends its SYN again for
/// two minutes, each time after a longer pause.
const KEEP: Duration = Duration::from_mins(5);

/// Packets whose verdict was seen are told apart from others by their buffers; between verdict and discarding lie
/// some microseconds, so a few are enough.
const MOST_EXPLAINED: usize = 64;

/// What was seen that makes hooks wanted.
#[derive(Debug, Default)]
pub struct Demand {
    /// Buffers of packets of which a hook has shown who gave the verdict to drop them.
    explained: VecDeque<u64>,
    /// When a packet was last discarded by a rule, as far as is known; monotonic nanoseconds.
    rule_drop_ns: Option<u64>,
}

impl Demand {
    /// Takes note of an event, in the order in which they happened on each CPU.
    pub fn see(&mut self, event: &Event, symbols: &Symbols) {
        if event.phase == Phase::Return && event.hook.gives_own_verdict() {
            if verdict::is_drop(event.verdict) {
                self.explained.truncate(MOST_EXPLAINED - 1);
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

    /// Are hooks of this kind wanted now (monotonic nanoseconds)?
    #[must_use]
    pub fn wants(&self, when: When, now_ns: u64) -> bool {
        match when {
            When::Always | When::WithoutDropReasons => true,
            When::AfterRuleDrop => self
                .rule_drop_ns
                .is_some_and(|seen| u128::from(now_ns.saturating_sub(seen)) <= KEEP.as_nanos()),
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

    fn discarded(skb: u64, location: u64) -> Event {
        let drop = Drop {
            location,
            ..Drop::default()
        };
        event(Hook::KfreeSkb, Phase::Entry, skb, 0, Payload::Drop(drop))
    }

    fn wanted(events: &[Event]) -> bool {
        let mut demand = Demand::default();
        for event in events {
            demand.see(event, &symbols());
        }
        demand.wants(When::AfterRuleDrop, SECOND)
    }

    #[test]
    fn a_packet_that_netfilter_discarded_makes_the_hooks_for_rules_wanted_for_a_while() {
        let mut demand = Demand::default();
        assert!(!demand.wants(When::AfterRuleDrop, SECOND));
        assert!(demand.wants(When::Always, SECOND));
        demand.see(&discarded(1, IN_NF_HOOK_SLOW), &symbols());
        assert!(demand.wants(When::AfterRuleDrop, SECOND));
        assert!(demand.wants(When::AfterRuleDrop, 301 * SECOND));
        assert!(!demand.wants(When::AfterRuleDrop, 302 * SECOND));
    }

    #[test]
    fn a_packet_that_others_discarded_does_not() {
        assert!(!wanted(&[discarded(1, IN_TCP)]));
        // IPVS gave the verdict, so no rule did.
        let ipvs = event(Hook::IpvsIn, Phase::Return, 1, NF_DROP, Payload::Packet);
        assert!(!wanted(&[ipvs.clone(), discarded(1, IN_NF_HOOK_SLOW)]));
        assert!(wanted(&[ipvs.clone(), discarded(2, IN_NF_HOOK_SLOW)]));
        // The buffer's next packet is another one.
        assert!(wanted(&[
            ipvs,
            discarded(1, IN_NF_HOOK_SLOW),
            discarded(1, IN_NF_HOOK_SLOW)
        ]));
        let accepted = event(Hook::IpvsIn, Phase::Return, 1, 1, Payload::Packet);
        assert!(wanted(&[accepted, discarded(1, IN_NF_HOOK_SLOW)]));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut demand = Demand::default();
        for skb in 0..10_000 {
            let verdict = event(Hook::CtConfirm, Phase::Return, skb, NF_DROP, Payload::Packet);
            demand.see(&verdict, &symbols());
        }
        assert_eq!(demand.explained.len(), MOST_EXPLAINED);
    }
}
