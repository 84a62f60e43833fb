//! From events to fates and causes.

mod story;

use story::{MS, NODE, PATIENCE, Story, causes, entry, has};
use tracer::{
    decode::event::Payload,
    diagnose::{Dataplane, Diagnosis, cause::Cause},
    facts::ipvs_settings::Values,
    flow::{begun::Begun, fate::Fate, model::Flow},
};
use tracer_common::{
    hook::Hook,
    record::{self, IpvsConn, IpvsService, ipvs_conn},
    uapi::verdict::{NF_DROP, NF_STOLEN},
};

#[test]
fn a_flow_that_began_before_the_recording_does_not_start_mid_handshake() {
    let mut story = Story::new();
    let mut begun = Begun::default();
    begun.add(story.flow);
    story.engine.begin_after(begun);
    // Its first SYN is seen only at IPVS; then another one arrives.
    story.ipvs(MS, NF_STOLEN, |story| story.lookup(MS, IpvsConn::default()));
    story.arrives(1_000 * MS);
    story
        .engine
        .finish(5_000 * MS, |flow, fate| panic!("{fate}: {flow:?}"));
    assert_eq!(story.engine.next_id(), 1);
}

#[test]
fn a_handshake_at_the_first_try_is_established_and_has_no_cause() {
    let mut story = Story::new();
    story.served(MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
    assert_eq!(diagnosis.dataplane, Some(Dataplane::Ipvs));
    assert_eq!((flow.attempts.len(), flow.synacks, flow.stall_ns()), (1, 1, None));
    assert_eq!(
        flow.backend().map(|backend| backend.to_string()).as_deref(),
        Some("10.244.1.2:8080")
    );
}

fn stalled_by(conn: IpvsConn) -> (Flow, Fate, Diagnosis) {
    let mut story = Story::new();
    story.expired_and_dropped(MS, conn);
    story.served(1_001 * MS);
    story.only()
}

#[test]
fn a_port_reused_in_time_wait_or_close_stalls_for_a_second() {
    for (state, name) in [(ipvs_conn::TIME_WAIT, "TIME_WAIT"), (ipvs_conn::CLOSE, "CLOSE")] {
        let (flow, fate, diagnosis) = stalled_by(entry(state, 1, 1, 0));
        assert_eq!(
            (fate, diagnosis.cause),
            (Fate::Stalled, Some(Cause::IpvsReuseDropped))
        );
        assert!(has(&diagnosis, "old-entry-state", name), "{diagnosis:?}");
        assert_eq!(flow.stall_ns(), Some(1_000 * MS));
    }
}

#[test]
fn a_draining_server_is_a_separate_cause_where_its_entries_are_expired() {
    let (_, _, diagnosis) = stalled_by(entry(ipvs_conn::CLOSE, 0, 1, 1));
    assert_eq!(diagnosis.cause, Some(Cause::IpvsNodestExpired));
    let (_, _, diagnosis) = stalled_by(entry(ipvs_conn::CLOSE, 0, 1, 0));
    assert_eq!(diagnosis.cause, Some(Cause::IpvsReuseDropped));
}

#[test]
fn unreadable_values_prove_no_cause() {
    let unread = IpvsConn {
        have: 0,
        ..entry(ipvs_conn::CLOSE, 1, 1, 0)
    };
    let (_, fate, diagnosis) = stalled_by(unread);
    assert_eq!((fate, diagnosis.cause), (Fate::Stalled, Some(Cause::Unknown)));
    // Weight 0, but it is unknown whether this node expires the entries of draining servers.
    let half = entry(ipvs_conn::CLOSE, 0, 1, 1);
    let half = IpvsConn {
        have: half.have & !ipvs_conn::EXPIRE_NODEST,
        ..half
    };
    assert_eq!(stalled_by(half).2.cause, Some(Cause::Unknown));
}

#[test]
fn an_expired_entry_in_another_state_is_not_port_reuse() {
    assert_eq!(stalled_by(entry(1, 1, 1, 0)).2.cause, Some(Cause::Unknown));
}

#[test]
fn a_removed_server_drops_every_syn() {
    let mut story = Story::new();
    for at in [MS, 1_001 * MS] {
        story.arrives(at);
        story.ipvs(at + 1, NF_DROP, |story| {
            story.lookup(at + 1, entry(ipvs_conn::TIME_WAIT, 1, 0, 0));
        });
        story.dropped(at + 2);
    }
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::IpvsDestUnavailable))
    );
    assert_eq!(flow.attempts.len(), 2);
}

#[test]
fn a_syn_that_ipvs_drops_with_a_healthy_server_has_an_unknown_cause() {
    let mut story = Story::new();
    story.arrives(MS);
    story.ipvs(MS + 1, NF_DROP, |story| story.lookup(MS + 1, entry(1, 1, 1, 0)));
    story.dropped(MS + 2);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Dropped, Some(Cause::Unknown)));
}

#[test]
fn an_old_entry_of_a_draining_server_is_not_a_silent_pod() {
    for (weight, expected) in [(0, Cause::IpvsReuseStaleBackend), (1, Cause::BackendSilent)] {
        let mut story = Story::new();
        let old = entry(ipvs_conn::TIME_WAIT, weight, 1, 0);
        story.arrives(MS);
        story.ipvs(MS + 1, NF_STOLEN, |story| {
            story.lookup(MS + 1, old);
            story.syn(MS + 1, Hook::IpvsNatXmit, Payload::IpvsConn(old));
        });
        story.reaches_pod(MS + 2);
        let (_, fate, diagnosis) = story.only();
        assert_eq!((fate, diagnosis.cause), (Fate::Unanswered, Some(expected)));
    }
}

#[test]
fn a_service_without_servers_refuses() {
    let mut story = Story::new();
    story.arrives(MS);
    story.ipvs(MS + 1, NF_DROP, |story| {
        story.lookup(MS + 1, IpvsConn::default());
        let service = IpvsService {
            service: 1,
            num_dests: 0,
            ..IpvsService::default()
        };
        story.syn(MS + 2, Hook::IpvsLeave, Payload::IpvsService(service));
        story.syn(
            MS + 3,
            Hook::IcmpSend,
            Payload::Icmp(record::Icmp {
                icmp_type: 3,
                code: 3,
            }),
        );
        story.schedules(MS + 4, 0);
    });
    story.dropped(MS + 5);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Refused, Some(Cause::IpvsNoDestination))
    );
    assert!(has(&diagnosis, "icmp-to-client", "port unreachable"));
}

#[test]
fn a_copy_that_a_tap_drops_is_not_the_end_of_the_packet() {
    let mut story = Story::new();
    story.arrives(MS);
    story.dropped(MS + 1);
    story.reaches_pod(MS + 2);
    assert_eq!(story.only().1, Fate::Unanswered);
}

#[test]
fn a_late_answer_is_a_slow_backend_only_if_the_first_syn_was_kept() {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    story.listener_accepts(3 * MS);
    story.arrives(1_001 * MS);
    story.answered(1_100 * MS);
    story.acknowledged(1_110 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Stalled, Some(Cause::BackendSlow)));

    // Here the second SYN reaches the listener as a new one: the first was dropped.
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    story.listener_accepts(3 * MS);
    story.served(1_001 * MS);
    assert_eq!(story.only().2.cause, Some(Cause::Unknown));
}

#[test]
fn an_answer_that_the_client_ignores_is_not_the_backends_fault() {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    story.listener_accepts(3 * MS);
    story.answered(4 * MS);
    story.arrives(1_001 * MS);
    story.answered(1_002 * MS);
    story.acknowledged(1_003 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Stalled, Some(Cause::ClientSilent))
    );
}

#[test]
fn the_second_flow_of_a_port_refers_to_the_first() {
    let mut story = Story::new();
    story.served(MS);
    story.flow = 8;
    story.expired_and_dropped(500 * MS, entry(ipvs_conn::CLOSE, 1, 1, 0));
    let outcomes = story.judged();
    assert_eq!(outcomes.len(), 2);
    let (flow, fate, diagnosis) = &outcomes[1];
    assert_eq!(
        (*fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::IpvsReuseDropped))
    );
    assert_eq!(
        flow.earlier.as_ref().map(|earlier| earlier.id),
        Some(outcomes[0].0.id)
    );
    assert!(has(diagnosis, "earlier-flow", "established"));
}

#[test]
fn two_flows_do_not_share_steps() {
    let mut story = Story::new();
    story.arrives(MS);
    (story.flow, story.port) = (8, 40_002);
    story.served(MS + 1);
    (story.flow, story.port) = (7, 40_001);
    story.ipvs(MS + 40, NF_DROP, |story| {
        story.lookup(MS + 40, entry(ipvs_conn::CLOSE, 1, 1, 0));
        story.expires(MS + 40, entry(ipvs_conn::CLOSE, 1, 1, 0));
    });
    story.dropped(MS + 41);
    let outcomes = story.judged();
    let fate_of = |port| {
        outcomes
            .iter()
            .find(|(flow, ..)| flow.client().port() == port)
            .map(|(_, fate, _)| *fate)
    };
    assert_eq!(
        (fate_of(40_001), fate_of(40_002)),
        (Some(Fate::Dropped), Some(Fate::Established))
    );
}

#[test]
fn a_flow_is_pending_until_its_timeout() {
    let mut story = Story::new();
    story.arrives(MS);
    let mut reported = Vec::new();
    story
        .engine
        .poll(MS + PATIENCE - 1, |_, fate| reported.push(fate));
    assert_eq!(reported, []);
    story
        .engine
        .finish(MS + PATIENCE - 1, |_, fate| reported.push(fate));
    assert_eq!(reported, [Fate::Pending]);
}

#[test]
fn a_fate_that_changes_is_reported_again() {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    let mut reported = Vec::new();
    story
        .engine
        .poll(MS + PATIENCE, |flow, fate| reported.push((flow.id, fate)));
    story.served(7_001 * MS);
    story
        .engine
        .poll(8_000 * MS, |flow, fate| reported.push((flow.id, fate)));
    assert_eq!(reported, [(1, Fate::Unanswered), (1, Fate::Stalled)]);
}

#[test]
fn a_backend_is_not_called_silent_while_records_are_lost() {
    for (lost_ns, expected) in [(None, Cause::BackendSilent), (Some(2 * MS), Cause::Unknown)] {
        let mut story = Story::new();
        story.facts.lost_ns = lost_ns;
        story.arrives(MS);
        story.reaches_pod(2 * MS);
        let (_, _, diagnosis) = story.only();
        assert_eq!(diagnosis.cause, Some(expected));
        assert_eq!(has(&diagnosis, "records-lost", ""), lost_ns.is_some());
    }
}

#[test]
fn a_backend_whose_tcp_dropped_the_syn_is_not_called_silent() {
    let mut story = Story::new();
    story.facts.symbols.insert(0x1234, "tcp_v4_rcv+0x9a".to_owned());
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    story.dropped_in_pod(3 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Unanswered, Some(Cause::Unknown)));
    assert!(has(&diagnosis, "dropped-in", "tcp_v4_rcv"));
}

#[test]
fn packets_after_the_final_fate_change_nothing() {
    let mut story = Story::new();
    story.served(MS);
    let mut reported = Vec::new();
    story.engine.poll(500 * MS, |_, fate| reported.push(fate));
    story.engine.poll(1_600 * MS, |_, fate| reported.push(fate));
    story.answered(1_700 * MS);
    story.dropped(1_701 * MS);
    story.engine.poll(9_000 * MS, |_, fate| reported.push(fate));
    story.engine.finish(9_000 * MS, |_, fate| reported.push(fate));
    assert_eq!(reported, [Fate::Established]);
}

#[test]
fn the_reuse_mode_decides_for_a_removed_server_with_weight() {
    let removed = entry(ipvs_conn::CLOSE, 1, 0, 1);
    let with_mode = |mode| IpvsConn {
        have: removed.have | ipvs_conn::REUSE_MODE,
        conn_reuse_mode: mode,
        ..removed
    };
    assert_eq!(stalled_by(with_mode(1)).2.cause, Some(Cause::IpvsReuseDropped));
    assert_eq!(stalled_by(with_mode(0)).2.cause, Some(Cause::IpvsNodestExpired));
    assert_eq!(stalled_by(removed).2.cause, Some(Cause::Unknown));
    // The connection had not ended: only the server can be the reason.
    assert_eq!(
        stalled_by(entry(1, 1, 0, 1)).2.cause,
        Some(Cause::IpvsNodestExpired)
    );
}

/// The IPVS settings, as read at these times.
fn stalled_with(conn: IpvsConn, settings: &[(u64, i64)]) -> Diagnosis {
    let mut story = Story::new();
    story.expired_and_dropped(10_000 * MS, conn);
    story.served(11_000 * MS);
    let known = story.facts.netns.entry(NODE).or_default();
    for &(at, expire_nodest_conn) in settings {
        let values = Values {
            conn_reuse_mode: Some(1),
            expire_nodest_conn: Some(expire_nodest_conn),
        };
        known.ipvs_settings.add(at * MS, values);
    }
    story.only().2
}

#[test]
fn the_setting_in_effect_when_the_syn_arrived_counts() {
    let draining = |state| IpvsConn {
        have: ipvs_conn::BACKEND | ipvs_conn::STATE | ipvs_conn::WEIGHT | ipvs_conn::AVAILABLE,
        ..entry(state, 0, 1, 0)
    };
    let ended = |settings: &[(u64, i64)]| stalled_with(draining(ipvs_conn::CLOSE), settings).cause;
    assert_eq!(ended(&[(10_050, 1)]), Some(Cause::IpvsNodestExpired));
    assert_eq!(ended(&[(10_050, 0)]), Some(Cause::IpvsReuseDropped));
    assert_eq!(ended(&[(10_050, 1), (10_900, 0)]), Some(Cause::IpvsNodestExpired));
    // It changed some time before that reading, or its value is unknown.
    assert_eq!(ended(&[(9_000, 1), (10_050, 0)]), Some(Cause::Unknown));
    assert_eq!(ended(&[(10_050, 1), (9_000, 1)]), Some(Cause::IpvsNodestExpired));
    for settings in [&[][..], &[(9_000, 1)], &[(14_000, 0)]] {
        assert_eq!(ended(settings), Some(Cause::Unknown), "{settings:?}");
    }
    // SYN_RECV: the connection has not ended, so only its server can be the reason for the expiry.
    let diagnosis = stalled_with(draining(3), &[]);
    assert_eq!(diagnosis.cause, Some(Cause::IpvsNodestExpired));
    assert_eq!(
        stalled_with(draining(ipvs_conn::FIN_WAIT), &[]).cause,
        Some(Cause::Unknown)
    );
}

#[test]
fn a_rule_that_only_the_second_syn_shows_explains_both() {
    let mut story = Story::new();
    story.arrives(MS);
    story.dropped(2 * MS);
    story.arrives(1_001 * MS);
    story.dropped_by_rule(1_002 * MS);
    story.served(2_001 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!((fate, flow.attempts.len()), (Fate::Stalled, 3));
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    let rule = Some(Cause::NetfilterRuleDropped);
    assert_eq!(causes(&diagnosis), [rule, rule, None]);
    assert!(has(&diagnosis, "table", "hardening"));
    assert!(has(&diagnosis, "earlier-syn", "at the same place"));

    // A drop that no rule was seen to decide is not blamed on a rule.
    let mut story = Story::new();
    story.arrives(MS);
    story.dropped(2 * MS);
    story.served(1_000 * MS);
    assert_eq!(story.only().2.cause, Some(Cause::Unknown));
}

#[test]
fn a_syn_that_ipvs_dropped_is_not_explained_by_a_rule_that_dropped_the_next() {
    let mut story = Story::new();
    story.arrives(MS);
    story.ipvs(2 * MS, NF_DROP, |story| story.lookup(3 * MS, IpvsConn::default()));
    story.dropped(4 * MS);
    story.arrives(1_001 * MS);
    story.dropped_by_rule(1_002 * MS);
    story.served(2_001 * MS);
    let diagnosis = story.only().2;
    assert_eq!(diagnosis.cause, Some(Cause::Unknown));
    let both = [Some(Cause::Unknown), Some(Cause::NetfilterRuleDropped), None];
    assert_eq!(causes(&diagnosis), both);
}

#[test]
fn an_undecided_flow_is_reported_shortly_after_each_of_its_syns() {
    let mut story = Story::new();
    story.engine.keep_pending();
    let open = |story: &mut Story, now: u64| {
        let mut syns = Vec::new();
        story
            .engine
            .take_pending(now, |flow| syns.push(flow.attempts.len()));
        syns
    };
    story.expired_and_dropped(MS, entry(ipvs_conn::TIME_WAIT, 1, 1, 0));
    assert_eq!(open(&mut story, 250 * MS), Vec::<usize>::new());
    assert_eq!(open(&mut story, 251 * MS), [1]);
    assert_eq!(open(&mut story, 900 * MS), Vec::<usize>::new());
    story.expired_and_dropped(1_001 * MS, entry(ipvs_conn::TIME_WAIT, 1, 1, 0));
    assert_eq!(open(&mut story, 1_300 * MS), [2]);
    story.served(3_001 * MS);
    assert_eq!(open(&mut story, 4_000 * MS), Vec::<usize>::new());
    let (flow, fate, _) = story.only();
    assert_eq!((flow.attempts.len(), fate), (3, Fate::Stalled));
}

#[test]
fn a_flow_that_is_evicted_early_is_reported_with_its_current_fate() {
    const FLOWS: u64 = 200_001;
    let mut story = Story::new();
    for flow in 0..FLOWS {
        story.flow = flow;
        story.arrives(MS + flow);
    }
    let mut reported = Vec::new();
    story
        .engine
        .poll(500 * MS, |flow, fate| reported.push((flow.id, fate)));
    assert_eq!(reported, [(1, Fate::Pending)]);
}
