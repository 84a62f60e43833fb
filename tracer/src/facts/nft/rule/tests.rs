use super::{super::captured, *};
use crate::facts::{iptables::Packet, xt};

fn kube() -> Vec<Rule> {
    parse(captured(include_bytes!("../captured/kube.rules.bin")))
}

fn iptables() -> Vec<Rule> {
    parse(captured(include_bytes!("../captured/iptables.rules.bin")))
}

fn in_chain<'a>(rules: &'a [Rule], chain: &str) -> Vec<&'a Rule> {
    rules.iter().filter(|rule| rule.chain == chain).collect()
}

#[test]
fn reads_the_rules_of_nft() {
    let rules = kube();
    let outgoing = in_chain(&rules, "outgoing");
    let found: Vec<_> = outgoing
        .iter()
        .map(|rule| (rule.handle, rule.number, rule.decides.clone()))
        .collect();
    assert_eq!(
        found,
        [
            (2, 1, Decides::Verdict(Verdict::Drop)),
            (4, 2, Decides::Map("__map0".to_owned())),
            (5, 3, Decides::Reject),
            (6, 4, Decides::Nothing),
            (7, 5, Decides::Verdict(Verdict::Accept)),
        ]
    );
    let drop = outgoing[0];
    assert_eq!((drop.family, drop.table.as_str()), (Family::Inet, "hardening"));
    assert_eq!(drop.comment.as_deref(), Some("no way to the old backend"));
    assert_eq!((drop.dport, drop.has_destination), (Some(8080), true));
    assert!(drop.decides.drops(false) && !drop.decides.drops(true));
    assert!(outgoing[1].decides.drops(true) && outgoing[2].decides.rejects());
}

#[test]
fn knows_which_packets_cannot_fit() {
    let packet = |destination: [u8; 4], dport| Packet {
        source: [10, 0, 0, 2].into(),
        destination: destination.into(),
        input: None,
        output: None,
        inner: xt::Packet {
            sport: 40_000,
            dport,
            tcp_flags: None,
            mark: None,
            ctinfo: None,
            from_node: None,
        },
    };
    let all = kube();
    let drop = in_chain(&all, "outgoing")[0];
    let wanted = [10, 244, 1, 2];
    assert!(drop.conditions.can_fit(&packet(wanted, 8080)));
    assert!(
        !drop.conditions.can_fit(&packet([10, 244, 1, 3], 8080))
            && !drop.conditions.can_fit(&packet(wanted, 8081))
    );
    let all = iptables();
    let external = in_chain(&all, "KUBE-EXTERNAL-SERVICES");
    assert!(external[1].conditions.can_fit(&packet(wanted, 30_081)));
    assert!(!external[1].conditions.can_fit(&packet(wanted, 30_080)));
}

#[test]
fn reads_where_rules_lead() {
    let rules = kube();
    let external = in_chain(&rules, "external-HVFWP5L3-shop/web/tcp/http");
    assert_eq!(
        external[1].decides,
        Decides::Verdict(Verdict::Goto("service-HVFWP5L3-shop/web/tcp/http".to_owned()))
    );
    // The first lookup of the rule is only a condition.
    let check = in_chain(&rules, "nodeport-endpoints-check")[0];
    assert_eq!(check.decides, Decides::Map("no-endpoint-nodeports".to_owned()));
    let endpoint = in_chain(&rules, "endpoint-A5CMKJJO-shop/web/tcp/http__10.244.1.2/8080")[0];
    assert_eq!(endpoint.decides, Decides::Other("nat".to_owned()));
}

#[test]
fn reads_the_rules_of_iptables_nft() {
    let rules = iptables();
    let external = in_chain(&rules, "KUBE-EXTERNAL-SERVICES");
    assert_eq!(
        (
            external[0].number,
            external[0].comment.as_deref(),
            external[0].dport
        ),
        (1, Some("shop/web:http has no endpoints"), Some(30_080))
    );
    assert!(external[0].decides.rejects() && !external[0].has_destination);
    assert_eq!(
        (
            external[1].number,
            external[1].comment.as_deref(),
            external[1].dport
        ),
        (2, Some("shop/api has no local endpoints"), Some(30_081))
    );
    assert!(external[1].decides.drops(false));
    let ports = in_chain(&rules, "KUBE-NODEPORTS");
    assert_eq!(
        (
            ports[0].comment.as_deref(),
            ports[0].dport,
            ports[0].has_destination
        ),
        (Some("shop/web:http"), Some(30_080), false)
    );
    assert_eq!((ports[1].dport, ports[1].has_destination), (Some(30_082), true));
    let mark = in_chain(&rules, "KUBE-EXT-ABC")[0];
    assert_eq!(mark.decides, Decides::Extension("MARK".to_owned()));
}

#[test]
fn a_damaged_rule_is_left_out() {
    for answer in captured(include_bytes!("../captured/kube.rules.bin")) {
        for end in 0..answer.len() {
            let _ = parse_rule(&answer[..end]);
        }
    }
    assert_eq!(parse_rule(&[2, 0, 0, 0]), None);
}

#[test]
fn reads_where_rules_translate_to() {
    let to_pod = Translation::To {
        addresses: Some([10, 244, 1, 2].into()..=[10, 244, 1, 2].into()),
        ports: Some(8080..=8080),
    };
    for rules in [kube(), iptables()] {
        let found: Vec<_> = rules
            .iter()
            .filter_map(|rule| rule.translation.as_ref())
            .collect();
        assert_eq!(found, [&to_pod]);
    }
}

fn at(text: &str) -> std::net::SocketAddr {
    text.parse().expect("an address with a port")
}

/// An attribute of netlink.
fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).expect("a short value");
    let mut out = length.to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn be(kind: u16, number: u32) -> Vec<u8> {
    nla(kind, &number.to_be_bytes())
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    nla(kind, &nla(1, bytes))
}

fn body(expressions: &[(&str, Vec<Vec<u8>>)]) -> Body {
    let list: Vec<u8> = expressions
        .iter()
        .flat_map(|(name, data)| nla(1, &[nla(1, name.as_bytes()), nla(2, &data.concat())].concat()))
        .collect();
    Body::read(&list, Family::Ip)
}

#[test]
fn a_translation_can_be_looked_up() {
    let immediate = |register, bytes: &[u8]| ("immediate", vec![be(1, register), value(2, bytes)]);
    let nat = ("nat", vec![be(1, DNAT), be(2, 2), be(3, 1)]);
    let known = body(&[immediate(1, &[10, 244, 1, 2]), nat.clone()]);
    let only = Translation::To {
        addresses: Some([10, 244, 1, 2].into()..=[10, 244, 1, 2].into()),
        ports: None,
    };
    assert_eq!(known.translation, Some(only));
    // The mark was in that register before the map's answer was.
    let mark = [
        immediate(1, &[0, 0, 64, 0]),
        ("meta", vec![be(2, 3), be(3, 1)]),
        ("lookup", vec![nla(1, b"pods"), be(2, 2), be(3, 1)]),
        nat,
    ];
    let Some(Translation::Map(lookup)) = body(&mark).translation else {
        panic!("a translation by a map");
    };
    assert_eq!((lookup.map.as_str(), &lookup.ports), ("pods", &None));
    let pod = lookup.of_element(&[10, 244, 1, 2], false);
    assert!(pod.can_lead(at("10.0.0.1:80"), at("10.244.1.2:80")));
    assert!(!pod.can_lead(at("10.0.0.1:80"), at("10.244.1.3:80")));
    assert_eq!(lookup.of_element(&[10, 244], false), Translation::Unknown);
    // The register holds the mark, which is not known.
    let unread = [("meta", vec![be(1, 1), be(2, 3)]), mark[3].clone()];
    assert_eq!(body(&unread).translation, Some(Translation::Unknown));
}

#[test]
fn a_rule_asks_for_invalid_by_mask_by_value_or_in_a_map() {
    const INVALID: u32 = 1;
    const NEW: u32 = 8;
    let state = || ("ct", vec![be(1, 1), be(2, STATE)]);
    let masked = |mask: u32| {
        (
            "bitwise",
            vec![be(1, 1), be(2, 1), be(3, 4), value(4, &mask.to_ne_bytes())],
        )
    };
    let is = |bits: u32| ("cmp", vec![be(1, 1), be(2, EQUAL), value(3, &bits.to_ne_bytes())]);
    let in_map = || ("lookup", vec![nla(1, b"m"), be(2, 1), be(3, 0)]);
    for (asks, expressions) in [
        (true, vec![state(), masked(INVALID | NEW)]),
        (false, vec![state(), masked(NEW)]),
        (true, vec![state(), is(INVALID)]),
        (true, vec![state(), in_map()]),
        (false, vec![in_map()]),
        (false, vec![is(INVALID)]),
    ] {
        assert_eq!(body(&expressions).matches_invalid, asks, "{expressions:?}");
    }
}

#[test]
fn a_rule_names_ports_by_a_range_a_set_or_the_map_that_translates() {
    let dport = || {
        (
            "payload",
            vec![be(1, 9), be(2, TRANSPORT_HEADER), be(3, DPORT), be(4, 2)],
        )
    };
    let address = || {
        (
            "payload",
            vec![be(1, 1), be(2, NETWORK_HEADER), be(3, 16), be(4, 4)],
        )
    };
    let port = |kind, port: u16| value(kind, &port.to_be_bytes());
    let cmp = |operation, number| ("cmp", vec![be(1, 9), be(2, operation), port(3, number)]);
    let range = |operation| {
        let data = vec![be(1, 9), be(2, operation), port(3, 80), port(4, 89)];
        ("range", data)
    };
    let in_set = |register, flags| ("lookup", vec![nla(1, b"web"), be(2, register), be(5, flags)]);
    let in_map = |register| ("lookup", vec![nla(1, b"pods"), be(2, register), be(3, 1)]);
    let nat = || ("nat", vec![be(1, DNAT), be(2, 2), be(3, 1)]);
    let ports = || Some(Dports::Ranges([(80, 89)].into_iter().collect()));
    let set = |name: &str, unit| {
        Some(Dports::Set {
            name: name.to_owned(),
            unit,
        })
    };
    for (expected, expressions) in [
        (ports(), vec![dport(), cmp(5, 80), cmp(3, 89)]),
        (ports(), vec![dport(), range(0)]),
        // Ports outside of the range, and a comparison of something else.
        (None, vec![dport(), range(1)]),
        (None, vec![address(), range(0)]),
        (None, vec![dport(), cmp(5, 1), cmp(3, u16::MAX)]),
        (set("web", 0), vec![dport(), in_set(9, 0)]),
        (None, vec![dport(), in_set(9, 1)]),
        // `ip daddr . tcp dport @web`: the port is in the second part of the key.
        (set("web", 1), vec![address(), dport(), in_set(1, 0)]),
        (None, vec![address(), in_set(1, 0)]),
        (set("pods", 0), vec![dport(), in_map(9), nat()]),
        // The result is used for something else.
        (None, vec![dport(), in_map(9)]),
    ] {
        // `ip daddr` is in `NFT_REG_1`, which is 16 bytes long: the port follows in its second 4 bytes.
        let body = body(&expressions);
        let found = body.dports.finish(body.translation.as_ref());
        assert_eq!(found, expected, "{expressions:?}");
    }
}

#[test]
fn notrack_excludes_from_connection_tracking() {
    assert!(body(&[("notrack", vec![])]).untracks);
    assert!(!body(&[("counter", vec![])]).untracks);
}
