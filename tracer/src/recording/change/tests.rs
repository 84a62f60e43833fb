use super::*;
use crate::facts::{
    ipvs::{Listens, RealServer, Service},
    ipvs_settings::Values,
    nft::{
        Family,
        rule::{Decides, Verdict, conditions::Conditions},
    },
};

fn rule(handle: u64) -> Rule {
    Rule {
        family: Family::Other(77),
        table: "filter".to_owned(),
        chain: "FORWARD".to_owned(),
        handle,
        number: 1,
        comment: None,
        decides: Decides::Verdict(Verdict::Jump("cali-FORWARD".to_owned())),
        dport: None,
        has_destination: false,
        dports: None,
        untracks: false,
        matches_invalid: false,
        translation: None,
        key: None,
        conditions: Conditions::default(),
    }
}

fn service(port: u16, weight: i32) -> Service {
    let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
    Service {
        listens: Listens::Address {
            protocol: 6,
            address: address(port),
        },
        scheduler: "rr".to_owned(),
        persistent: None,
        one_packet: false,
        real_servers: vec![RealServer {
            address: address(8080),
            forward: "Masq".to_owned(),
            weight,
            active: 1,
            inactive: 2,
        }],
    }
}

fn facts() -> Facts {
    let mut node_ports = NodePorts::default();
    node_ports.add(30_080, false, "shop/web".to_owned());
    let route = (7, IpAddr::from([10, 0, 0, 9]));
    let backend = (7, SocketAddr::from(([10, 244, 1, 2], 8080)));
    let mut gaps = Gaps::default();
    gaps.begin(3);
    gaps.end(7);
    let mut ipvs_settings = IpvsSettings::default();
    ipvs_settings.add(5, Values::default());
    let netns = NetnsFacts {
        services: vec![service(30_080, 1), service(30_081, 1)],
        ipvs_settings,
        node_ports,
        links: vec![Link::default()],
        ..NetnsFacts::default()
    };
    Facts {
        symbols: HashMap::from([(u64::MAX - 1, "nf_hook_slow+0xc3".to_owned())]),
        netns: HashMap::from([(7, netns), (8, NetnsFacts::default())]),
        routes: HashMap::from([(route, Route::None(101))]),
        unreachable_by_rule: HashMap::from([(backend, VecDeque::from([5, 6]))]),
        pids: HashMap::from([(7, 4242)]),
        netns_since: HashMap::from([(7, 3)]),
        nat_rules: HashMap::from([((7, backend.1, backend.1), NatRules::default())]),
        absent: [Hook::IpvsIn, Hook::NftDoChain].into(),
        gaps,
        lost_ns: Some(9),
        node: Some(Box::new(NodeState {
            kernel: "3.10.0-1160.el7.x86_64".to_owned(),
            ..NodeState::default()
        })),
        ..Facts::default()
    }
}

/// Writes the changes as a recording does, and reads them back.
fn through_json(changes: &[FactChange]) -> Vec<FactChange> {
    let text = serde_json::to_vec(changes).expect("JSON");
    serde_json::from_slice(&text).expect("the same changes")
}

#[test]
fn the_names_in_a_recording_stay() {
    let change = NetnsChange {
        inum: 7,
        removed_rules: Some(Patch::Replace(vec![(0, rule(3))])),
        ..NetnsChange::default()
    };
    assert_eq!(
        serde_json::to_string(&FactChange::Netns(Box::new(change))).expect("JSON"),
        r#"{"of":"netns","inum":7,"former":{"at":[[0,{"family":{"Other":77},"table":"filter","chain":"FORWARD","handle":3,"number":1,"comment":null,"decides":{"Verdict":{"Jump":"cali-FORWARD"}},"dport":null,"has_destination":false,"asks_invalid":false,"translation":null,"asks":[]}]]}}"#
    );
}

#[test]
fn all_facts_survive_writing_and_reading() {
    let mut read = Facts::default();
    for change in through_json(&all_of(&facts())) {
        assert!(change.apply(&mut read));
    }
    let mut expected = facts();
    // A namespace without facts is not written.
    expected.netns.remove(&8);
    assert_eq!(read, expected);
}

#[test]
fn only_changed_facts_are_written() {
    let mut before = facts();
    let mut now = facts();
    assert_eq!(diff(&mut before, &now, &ChangedFacts::all(&now)), []);
    now.symbols.clear();
    now.lost_ns = Some(10);
    now.netns.remove(&8);
    let netns = now.netns.get_mut(&7).expect("a netns");
    netns.services[1] = service(30_081, 0);
    netns.removed_rules.push_back(rule(3));
    let mut replayed = before.clone();
    let changed = ChangedFacts {
        netns: [7, 8].into(),
        ..ChangedFacts::all(&now)
    };
    let changes = through_json(&diff(&mut before, &now, &changed));
    assert_eq!(before, now);
    assert_eq!(changes.len(), 4, "{changes:?}");
    for change in changes {
        assert!(change.apply(&mut replayed));
    }
    assert_eq!(replayed, now);
}

#[test]
fn changes_of_a_newer_tracer_are_skipped() {
    let change: FactChange = serde_json::from_str(r#"{"of":"weather","is":"fine"}"#).expect("a change");
    assert_eq!(change, FactChange::Unknown);
    let mut known = facts();
    assert!(!change.apply(&mut known));
    assert_eq!(known, facts());
    let members = r#"{"of":"netns","inum":7,"sockets":[1],"sysctls":{"values":{"a":"b"}}}"#;
    let change: FactChange = serde_json::from_str(members).expect("a change");
    assert!(change.apply(&mut known));
    assert_eq!(known.netns[&7].sysctls.get("a"), Some("b"));
}

#[test]
fn a_patch_that_does_not_fit_changes_nothing() {
    let change = FactChange::Netns(Box::new(NetnsChange {
        inum: 7,
        services: Some(Patch::Replace(vec![(9, service(1, 1))])),
        ..NetnsChange::default()
    }));
    let mut known = facts();
    assert!(!change.apply(&mut known));
    assert_eq!(known, facts());
}
