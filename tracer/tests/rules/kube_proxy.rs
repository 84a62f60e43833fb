//! kube-proxy's rules: services without a local endpoint, the dataplane that translates, and the names of services.

use std::collections::BTreeSet;

use tracer::{
    decode::event::Payload,
    diagnose::{Dataplane, cause::Cause},
    facts::{
        NetnsFacts,
        kube_proxy::LocalNodePorts,
        nat_rule::{NatRule, NatRules},
        nft::{
            Family, Policy,
            map::{Element, Map},
            rule::{Decides, Verdict},
        },
    },
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{self, IpvsService, chain},
    uapi::verdict::{NF_ACCEPT, NF_DROP},
};

use crate::{
    ruleset::{base, by, diagnosis_of, filter, name, rule},
    story::{MS, NODE, Story, has, original, translated},
};

/// The ruleset of kube-proxy's nftables mode, with a NodePort whose service has no endpoint on this node.
fn kube_nftables() -> NetnsFacts {
    let key = vec![6, 0, 0, 0, 0x75, 0x80, 0, 0];
    NetnsFacts {
        chains: vec![base("kube-proxy", "INPUT", "filter", Policy::Accept)],
        rules: vec![rule(
            "kube-proxy",
            "nodeport-endpoints-check",
            1,
            14,
            Decides::Map("no-endpoint-nodeports".to_owned()),
        )],
        maps: vec![Map {
            family: Family::Ip,
            table: "kube-proxy".to_owned(),
            name: "no-endpoint-nodeports".to_owned(),
            elements: vec![Element {
                key,
                verdict: Verdict::Drop,
                comment: Some("shop/web:http".to_owned()),
            }],
        }],
        ..NetnsFacts::default()
    }
}

#[test]
fn kube_proxy_drops_where_the_node_has_no_endpoint() {
    let chain = record::Chain {
        table: name("kube-proxy"),
        seen: chain::LOOKUP | chain::BY_LOOKUP,
        ..by(14, 0)
    };
    let diagnosis = diagnosis_of(kube_nftables(), chain);
    assert_eq!(diagnosis.cause, Some(Cause::PolicyLocalNoEndpoint));
    assert!(has(&diagnosis, "map-element-comment", "shop/web:http"));
    // Another program's map of the same name.
    let mut other = kube_nftables();
    other.chains[0].table = "mine".to_owned();
    other.rules[0].table = "mine".to_owned();
    let chain = record::Chain {
        table: name("mine"),
        ..chain
    };
    assert_eq!(
        diagnosis_of(other, chain).cause,
        Some(Cause::NetfilterRuleDropped)
    );
}

#[test]
fn the_comment_of_kube_proxy_gives_the_reason_for_a_drop() {
    let with = |comment: &str| {
        let mut facts = filter();
        facts.rules[2].comment = Some(comment.to_owned());
        diagnosis_of(facts, by(12, 0)).cause
    };
    assert_eq!(
        with("shop/web:http has no local endpoints"),
        Some(Cause::PolicyLocalNoEndpoint)
    );
    for other in [
        "shop/web:http has no endpoints",
        "shop/web",
        "it has no local endpoints",
    ] {
        assert_eq!(with(other), Some(Cause::NetfilterRuleDropped), "{other}");
    }
}

/// The weight of a real server that was not read.
const UNREAD: i32 = i32::MIN;

fn left_by_ipvs(dests: &[i32], local: &[u16]) -> Option<Cause> {
    let mut story = Story::new();
    let facts = NetnsFacts {
        local_node_ports: LocalNodePorts::of(local.iter().copied().collect(), BTreeSet::new()),
        ..NetnsFacts::default()
    };
    story.facts.netns.insert(NODE, facts);
    story.arrives(MS);
    story.ipvs(2 * MS, NF_DROP, |story| {
        let service = IpvsService {
            service: 1,
            num_dests: u32::try_from(dests.len()).expect("a few"),
            ..IpvsService::default()
        };
        story.syn(2 * MS + 1, Hook::IpvsLeave, Payload::IpvsService(service));
        if !dests.contains(&UNREAD) {
            let mut all = record::IpvsDests {
                counted: service.num_dests,
                complete: 1,
                ..record::IpvsDests::default()
            };
            for (slot, &weight) in all.listed.iter_mut().zip(dests) {
                slot.weight = weight;
                all.with_weight += u32::from(weight > 0);
            }
            story.syn(2 * MS + 1, Hook::IpvsLeave, Payload::IpvsDests(Box::new(all)));
        }
        let icmp = record::Icmp {
            icmp_type: 3,
            code: 3,
        };
        story.syn(2 * MS + 2, Hook::IcmpSend, Payload::Icmp(icmp));
    });
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.dataplane),
        (Fate::Refused, Some(Dataplane::Ipvs))
    );
    diagnosis.cause
}

/// kube-proxy 1.20: a rule of the nat table marks the SYN, and kubelet's rule in the filter table drops it.
fn kube_1_20(comments: &[&str]) -> NetnsFacts {
    let jump = |to: &str| Decides::Verdict(Verdict::Jump(to.to_owned()));
    let mut facts = filter();
    facts.rules[2].comment = Some("kubernetes firewall for dropping marked packets".to_owned());
    let mut nat = base("nat", "PREROUTING", "nat", Policy::Accept);
    if let Some(base) = &mut nat.base {
        base.hook = 0;
    }
    facts.chains.push(nat);
    facts.rules.push(rule(
        "nat",
        "PREROUTING",
        1,
        40,
        jump("KUBE-XLB-4RVEOPF7SFZ35ZAV"),
    ));
    for (number, comment) in comments.iter().enumerate() {
        let mut marking = rule(
            "nat",
            "KUBE-XLB-4RVEOPF7SFZ35ZAV",
            number + 1,
            50 + number as u64,
            jump("KUBE-MARK-DROP"),
        );
        marking.comment = Some((*comment).to_owned());
        facts.rules.push(marking);
    }
    facts
}

#[test]
fn the_rule_that_marked_the_syn_gives_the_reason_for_a_drop() {
    let none = "shop/localnone:http has no local endpoints";
    let told = diagnosis_of(kube_1_20(&[none]), by(12, 0));
    assert_eq!(told.cause, Some(Cause::PolicyLocalNoEndpoint));
    let value = "rule 1 of chain KUBE-XLB-4RVEOPF7SFZ35ZAV in table ip nat";
    assert!(has(&told, "marking-rule", value));
    for others in [&[][..], &["source ranges"], &[none, "source ranges"]] {
        let told = diagnosis_of(kube_1_20(others), by(12, 0));
        assert_eq!(told.cause, Some(Cause::NetfilterRuleDropped), "{others:?}");
    }
    // Marked packets are dropped by a rule that is not kubelet's.
    let mut facts = kube_1_20(&[none]);
    facts.rules[2].comment = None;
    assert_eq!(
        diagnosis_of(facts, by(12, 0)).cause,
        Some(Cause::NetfilterRuleDropped)
    );
}

#[test]
fn ipvs_without_a_real_server_is_the_policy_only_for_such_a_node_port() {
    assert_eq!(left_by_ipvs(&[], &[30_080]), Some(Cause::PolicyLocalNoEndpoint));
    assert_eq!(left_by_ipvs(&[], &[30_081]), Some(Cause::IpvsNoDestination));
    assert_eq!(left_by_ipvs(&[UNREAD; 2], &[30_080]), Some(Cause::Unknown));
    // The last endpoint drains, or one of two.
    assert_eq!(left_by_ipvs(&[0], &[30_080]), Some(Cause::PolicyLocalNoEndpoint));
    assert_eq!(left_by_ipvs(&[0], &[30_081]), Some(Cause::IpvsNoDestination));
    // One has weight, and the scheduler refused the client.
    assert_eq!(left_by_ipvs(&[0, 1], &[30_080]), Some(Cause::IpvsNoDestination));
}

#[test]
fn the_translator_is_the_dataplane() {
    for (hook, dataplane) in [
        (Hook::XtDnat, Dataplane::Iptables),
        (Hook::XtDnatV0, Dataplane::Iptables),
        (Hook::NftNat, Dataplane::Nftables),
    ] {
        let mut story = Story::new();
        story.arrives(MS);
        story.syn(2 * MS, hook, Payload::Packet);
        story.reaches_pod(3 * MS);
        story.answered(4 * MS);
        story.acknowledged(5 * MS);
        let (_, fate, diagnosis) = story.only();
        assert_eq!((fate, diagnosis.dataplane), (Fate::Established, Some(dataplane)));
    }
}

#[test]
fn a_service_is_named_as_in_the_rules() {
    let mut story = Story::new();
    story.served(MS);
    let (flow, ..) = story.only();
    assert_eq!(story.facts.service(flow.netns, flow.node()), None);
    let names = &mut story.facts.netns.entry(NODE).or_default().node_ports;
    names.add(30_080, true, "shop/six".to_owned());
    names.add(30_081, false, "shop/api".to_owned());
    assert_eq!(story.facts.service(flow.netns, flow.node()), None);
    let names = &mut story.facts.netns.entry(NODE).or_default().node_ports;
    names.add(30_080, false, "shop/web".to_owned());
    assert_eq!(story.facts.service(flow.netns, flow.node()), Some("shop/web"));
}

#[test]
fn the_only_rule_that_leads_to_the_backend_is_named() {
    let rule = |number| NatRule {
        table: "ip kube-proxy".to_owned(),
        chain: "service-KHN6ECMT-shop/web/tcp/http".to_owned(),
        number,
        handle: Some(100 + number as u64),
        comment: None,
    };
    let evidence = |hook: Option<Hook>, rules: Vec<NatRule>| {
        let mut story = Story::new();
        story.arrives(MS);
        if let Some(hook) = hook {
            story.syn(2 * MS, hook, Payload::Packet);
        }
        let entry = Payload::Conntrack(record::Conntrack {
            original: original(story.port),
            reply: translated(story.port).reversed(),
            ..record::Conntrack::default()
        });
        story.returns(2 * MS + 1, Hook::NatSetup, NF_ACCEPT, entry);
        story.reaches_pod(3 * MS);
        // The conntrack entry translates the retransmission; no rule sees it.
        story.arrives(1_001 * MS);
        story.reaches_pod(1_002 * MS);
        let pod = translated(story.port).destination();
        let node = original(story.port).destination();
        let known = NatRules {
            rules,
            at_ns: 50 * MS,
        };
        story.facts.nat_rules.insert((NODE, node, pod), known);
        let (_, fate, diagnosis) = story.only();
        assert_eq!(
            (fate, diagnosis.cause),
            (Fate::Unanswered, Some(Cause::BackendSilent))
        );
        diagnosis
    };
    let one = evidence(Some(Hook::NftNat), vec![rule(2)]);
    let words = "rule 2 (handle 102) of chain service-KHN6ECMT-shop/web/tcp/http in table ip kube-proxy, service shop/web";
    assert!(has(&one, "nat-rule", words));
    assert!(
        one.evidence
            .iter()
            .any(|fact| fact.source.ends_with("49 ms after the SYN"))
    );
    let two = evidence(Some(Hook::NftNat), vec![rule(2), rule(3)]);
    assert!(has(&two, "nat-rule", "one of: rule 2 (handle 102)"));
    // conntrack or IPVS translated.
    assert!(!has(&evidence(None, vec![rule(2)]), "nat-rule", ""));
    assert!(!has(&evidence(Some(Hook::NftNat), Vec::new()), "nat-rule", ""));
}
