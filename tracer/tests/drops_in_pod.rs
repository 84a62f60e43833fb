//! SYNs that something in the backend's network namespace drops: BPF programs, another MAC address, a wrong checksum.

mod story;

use story::{MS, NODE, POD, Story, has, translated};
use tracer::{
    decode::event::Payload,
    diagnose::{Diagnosis, cause::Cause},
    facts::{
        NetnsFacts,
        link::{AttachPoint, Link, Program},
        neighbour::Neighbour,
        route::{Route, RouteEntry},
    },
    flow::fate::Fate,
};
use tracer_common::{hook::Hook, record, tcp::Part};

const FREED: u64 = 0x1234;
const NOT_SPECIFIED: u32 = 2;
const REASON: u32 = 7;
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The pod frees the SYN here: with this reason, or on a kernel without reasons. Its device has these programs and filters.
struct Freed<'a> {
    function: &'a str,
    reason: Option<&'a str>,
    programs: &'a [AttachPoint],
    other_filters: &'a [AttachPoint],
    is_local: bool,
    neighbour: Option<[u8; 6]>,
}

const PLAIN: Freed<'_> = Freed {
    function: "ip_rcv_core",
    reason: None,
    programs: &[],
    other_filters: &[],
    is_local: true,
    neighbour: None,
};

impl Freed<'_> {
    fn story(&self) -> Story {
        let mut story = Story::new();
        let facts = &mut story.facts;
        facts.symbols.insert(FREED, format!("{}+0x1b", self.function));
        if let Some(reason) = self.reason {
            facts
                .drop_reasons
                .insert(NOT_SPECIFIED, "NOT_SPECIFIED".to_owned());
            facts.drop_reasons.insert(REASON, reason.to_owned());
        }
        let programs = self.programs.iter().zip(31..).map(|(&at, id)| Program {
            at,
            id,
            name: "block".to_owned(),
            cgroup: None,
        });
        let link = Link {
            index: 2,
            name: "eth0".to_owned(),
            mac: Some(OWN),
            programs: programs.collect(),
            other_filters: self.other_filters.to_vec(),
            ..Link::default()
        };
        let pod = NetnsFacts {
            links: vec![link],
            ..NetnsFacts::default()
        };
        let (device, to) = (4, translated(story.port).daddr.ip());
        let node = NetnsFacts {
            links: vec![Link {
                index: device,
                name: "cali1".to_owned(),
                ..Link::default()
            }],
            neighbours: self
                .neighbour
                .map(|mac| Neighbour {
                    address: to,
                    device,
                    mac,
                })
                .into_iter()
                .collect(),
            ..NetnsFacts::default()
        };
        facts.netns.insert(POD, pod);
        facts.netns.insert(NODE, node);
        let route = RouteEntry {
            kind: if self.is_local { 2 } else { 1 },
            device: None,
            gateway: None,
        };
        facts.routes.insert((POD, to), Route::Found(route));
        story
    }

    fn drop(&self, reason: Option<&str>) -> Payload {
        Payload::Drop(record::Drop {
            location: FREED,
            reason: match (self.reason, reason) {
                (None, _) => u32::MAX,
                (Some(_), None) => NOT_SPECIFIED,
                (Some(_), Some(_)) => REASON,
            },
            reserved: 0,
        })
    }

    fn told(&self) -> (Fate, Option<Cause>, Diagnosis) {
        self.told_with(self.reason)
    }

    fn told_with(&self, reason: Option<&str>) -> (Fate, Option<Cause>, Diagnosis) {
        let mut story = self.story();
        story.arrives(MS);
        story.reaches_pod(MS + 1);
        let tuple = translated(story.port);
        story.see(MS + 5, Hook::KfreeSkb, Part::Syn, tuple, POD, self.drop(reason));
        let (_, fate, diagnosis) = story.only();
        (fate, diagnosis.cause, diagnosis)
    }
}

const BPF: Option<Cause> = Some(Cause::BpfDropped);
const SILENT: Option<Cause> = Some(Cause::BackendSilent);

#[test]
fn an_xdp_program_is_named_by_the_reason_or_the_function() {
    let by_reason = Freed {
        function: "do_xdp_generic",
        reason: Some("XDP"),
        programs: &[AttachPoint::XdpGeneric, AttachPoint::TcIngress],
        ..PLAIN
    };
    let (fate, cause, diagnosis) = by_reason.told();
    assert_eq!((fate, cause), (Fate::Unanswered, BPF));
    assert!(has(
        &diagnosis,
        "bpf-program",
        "generic XDP program block (id 31)"
    ));
    assert!(!has(&diagnosis, "bpf-program", "tc ingress"));
    assert!(
        diagnosis
            .advice
            .is_some_and(|advice| advice.contains("prog show id 31"))
    );
    // Detached since, and on a kernel without reasons.
    let by_function = Freed {
        function: "veth_xdp_rcv_skb",
        ..PLAIN
    };
    let (_, cause, diagnosis) = by_function.told();
    assert_eq!(cause, BPF);
    let advice = diagnosis.advice.expect("advice");
    assert!(advice.contains("bpftool net show dev eth0`"), "{advice}");
    let elsewhere = Freed {
        function: "tcp_v4_rcv",
        programs: &[AttachPoint::Xdp],
        ..PLAIN
    };
    assert_eq!(elsewhere.told().1, Some(Cause::Unknown));
}

/// A program of a cgroup, attached to the pod's processes.
fn with_cgroup(freed: &Freed<'_>, at: AttachPoint) -> (Option<Cause>, Diagnosis) {
    let mut story = freed.story();
    let program = Program {
        at,
        id: 41,
        name: "policy".to_owned(),
        cgroup: Some("/kubepods/pod1".to_owned()),
    };
    story
        .facts
        .netns
        .entry(POD)
        .or_default()
        .cgroup_programs
        .push(program);
    story.arrives(MS);
    story.reaches_pod(MS + 1);
    let tuple = translated(story.port);
    story.see(
        MS + 5,
        Hook::KfreeSkb,
        Part::Syn,
        tuple,
        POD,
        freed.drop(freed.reason),
    );
    let (_, _, diagnosis) = story.only();
    (diagnosis.cause, diagnosis)
}

#[test]
fn a_program_of_a_cgroup_is_named_where_nothing_else_drops_so() {
    use AttachPoint::{CgroupEgress, CgroupIngress};
    let by_filter = Freed {
        function: "tcp_v4_rcv",
        reason: Some("SOCKET_FILTER"),
        ..PLAIN
    };
    // A security module may have dropped it too.
    let (cause, diagnosis) = with_cgroup(&by_filter, CgroupIngress);
    assert_eq!(cause, Some(Cause::Unknown));
    let candidate = "may have dropped it: cgroup ingress program policy of cgroup /kubepods/pod1 (id 41)";
    assert!(has(&diagnosis, "bpf-program", candidate), "{diagnosis:?}");
    // A kernel with a separate drop reason for security modules.
    let mut story = by_filter.story();
    story.facts.drop_reasons.insert(99, "PFMEMALLOC".to_owned());
    story.facts.netns.entry(POD).or_default().cgroup_programs = vec![Program {
        at: CgroupIngress,
        id: 41,
        name: "policy".to_owned(),
        cgroup: Some("/".to_owned()),
    }];
    story.arrives(MS);
    story.reaches_pod(MS + 1);
    let tuple = translated(story.port);
    let drop = by_filter.drop(by_filter.reason);
    story.see(MS + 5, Hook::KfreeSkb, Part::Syn, tuple, POD, drop);
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, BPF);
    assert!(
        diagnosis
            .explanation
            .contains("or a filter of the receiving socket itself")
    );
    assert!(
        diagnosis
            .advice
            .is_some_and(|advice| advice.contains("prog show id 41"))
    );
    // Without reasons, only outgoing packets have their own drop location.
    let output = Freed {
        function: "ip_finish_output",
        ..PLAIN
    };
    assert_eq!(with_cgroup(&output, CgroupEgress).0, BPF);
    assert_ne!(with_cgroup(&output, CgroupIngress).0, BPF);
    let input = Freed {
        function: "tcp_v4_rcv",
        ..PLAIN
    };
    let (cause, diagnosis) = with_cgroup(&input, CgroupIngress);
    assert_eq!(cause, Some(Cause::Unknown));
    assert!(has(&diagnosis, "bpf-program", candidate), "{diagnosis:?}");
}

#[test]
fn a_tc_program_is_named_only_if_no_other_filter_could_have_dropped_it() {
    const INGRESS: &[AttachPoint] = &[AttachPoint::TcIngress];
    for (function, reason) in [
        ("__netif_receive_skb_core", None),
        ("__netif_receive_skb_core", Some("TC_INGRESS")),
    ] {
        let tc = Freed {
            function,
            reason,
            programs: INGRESS,
            ..PLAIN
        };
        assert_eq!(tc.told().1, BPF, "{reason:?}");
        let mixed = Freed {
            other_filters: INGRESS,
            ..tc
        };
        assert_eq!(mixed.told().1, SILENT, "{reason:?}");
        let none = Freed {
            programs: &[],
            other_filters: &[],
            ..mixed
        };
        assert_eq!(none.told().1, SILENT, "{reason:?}");
    }
    // A kernel that knows the reason would have reported it.
    let other = Freed {
        function: "__netif_receive_skb_core",
        reason: Some("TC_INGRESS"),
        programs: INGRESS,
        ..PLAIN
    };
    assert_eq!(other.told_with(None).1, SILENT);
}

#[test]
fn several_programs_at_one_place_are_listed() {
    let several = Freed {
        function: "__netif_receive_skb_core",
        programs: &[AttachPoint::TcIngress, AttachPoint::TcIngress],
        ..PLAIN
    };
    let (_, cause, diagnosis) = several.told();
    assert_eq!(cause, BPF);
    assert!(
        diagnosis.explanation.starts_with("One of 2 BPF programs"),
        "{diagnosis:?}"
    );
    assert!(has(&diagnosis, "bpf-program", "id 31") && has(&diagnosis, "bpf-program", "id 32"));
}

#[test]
fn a_frame_for_another_mac_address_is_named_by_the_reason_or_the_neighbour_entry() {
    const WRONG: Option<Cause> = Some(Cause::NeighWrongAddress);
    let by_reason = Freed {
        reason: Some("OTHERHOST"),
        ..PLAIN
    };
    let (fate, cause, diagnosis) = by_reason.told();
    assert_eq!((fate, cause), (Fate::Unanswered, WRONG));
    assert!(has(&diagnosis, "device-address", "02:00:00:00:00:01"));
    let advice = diagnosis.advice.expect("advice");
    assert!(advice.contains("`ip neigh show 10.244.1.2`"), "{advice}");
    let by_entry = Freed {
        neighbour: Some(OTHER),
        ..PLAIN
    };
    let (_, cause, diagnosis) = by_entry.told();
    assert_eq!(cause, WRONG);
    assert!(has(
        &diagnosis,
        "neighbour-address",
        "02:00:00:00:00:02 for 10.244.1.2"
    ));
    assert!(
        diagnosis
            .advice
            .is_some_and(|advice| advice.contains("ip neigh del 10.244.1.2 dev cali1"))
    );
    for not in [
        PLAIN,
        Freed {
            neighbour: Some(OWN),
            ..PLAIN
        },
        Freed {
            is_local: false,
            ..by_entry
        },
        Freed {
            is_local: false,
            ..by_reason
        },
        Freed {
            function: "ip_local_deliver_finish",
            neighbour: Some(OTHER),
            ..PLAIN
        },
    ] {
        assert_eq!(not.told().1, SILENT, "{}", not.function);
    }
}

#[test]
fn without_a_reason_the_segment_shows_a_wrong_checksum() {
    let told = |checksum: u16| {
        let freed = Freed {
            function: "tcp_v4_rcv",
            ..PLAIN
        };
        let mut story = freed.story();
        story.arrives(MS);
        story.reaches_pod(MS + 1);
        let tuple = translated(story.port);
        let mut bytes = [0; 60];
        bytes[..2].copy_from_slice(&tuple.sport.to_be_bytes());
        bytes[2..4].copy_from_slice(&tuple.dport.to_be_bytes());
        bytes[12..14].copy_from_slice(&[0x50, 2]);
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        let header = Payload::TcpHeader(Box::new(record::TcpHeader { length: 20, bytes }));
        story.see(MS + 2, Hook::KfreeSkb, Part::Syn, tuple, POD, header);
        story.see(MS + 2, Hook::KfreeSkb, Part::Syn, tuple, POD, freed.drop(None));
        let (flow, fate, diagnosis) = story.only();
        (flow.original.sport, fate, diagnosis)
    };
    let (_, fate, diagnosis) = told(1);
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::TcpBadChecksum))
    );
    let evidence = diagnosis
        .evidence
        .iter()
        .find(|evidence| evidence.key.name() == "checksum")
        .expect("evidence");
    let computed = evidence
        .value
        .strip_prefix("0x0001 in the header, 0x")
        .and_then(|rest| rest.strip_suffix(" computed"))
        .expect("both checksums");
    let right = u16::from_str_radix(computed, 16).expect("a number");
    assert_eq!(told(right).2.cause, Some(Cause::Unknown));
}

#[test]
fn a_wrong_checksum_is_named_by_its_reason_alone() {
    let bad = Freed {
        function: "tcp_v4_rcv",
        reason: Some("TCP_CSUM"),
        ..PLAIN
    };
    let (fate, cause, diagnosis) = bad.told();
    assert_eq!((fate, cause), (Fate::Unanswered, Some(Cause::TcpBadChecksum)));
    assert!(diagnosis.explanation.contains("backend's network namespace"));
    let advice = diagnosis.advice.expect("advice");
    let capture = "`tcpdump -nvv -i any host 10.0.0.2 and tcp port 40001`";
    assert!(advice.contains(capture), "{advice}");
    // Older kernels free other packets in that function too.
    assert_eq!(bad.told_with(None).1, Some(Cause::Unknown));
}
