//! `tracer export --to pcapng`, read back by an independent reader.

mod story;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use pcap_parser::{Block, Linktype, PcapNGOption, parse_block_le};
use serde_json::Value;
use story::{MS, PATIENCE, Story, clock};
use tracer::{
    diagnose,
    export::capture::Capture,
    finding::{Finding, head::Head, run::Health},
};

/// A packet as read.
#[derive(Debug)]
struct Packet {
    hook: String,
    nanos: u64,
    bytes: Vec<u8>,
    comments: Vec<String>,
}

/// The content of a capture.
#[derive(Debug, Default)]
struct Read {
    /// System and comment of each section.
    sections: Vec<String>,
    packets: Vec<Packet>,
    /// Lost packets by interface.
    lost: Vec<(String, u64)>,
}

fn texts(options: &[PcapNGOption], code: u16) -> Vec<String> {
    options
        .iter()
        .filter(|option| option.code.0 == code)
        .map(|option| option.as_str().expect("text").to_owned())
        .collect()
}

fn read(mut bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let mut interfaces = Vec::new();
    while !bytes.is_empty() {
        let (rest, block) = parse_block_le(bytes).expect("a block");
        bytes = rest;
        match block {
            Block::SectionHeader(section) => {
                assert_eq!((section.major_version, section.minor_version), (1, 0));
                assert_eq!(section.section_len, -1);
                interfaces.clear();
                let of = |code| texts(&section.options, code).join(" ");
                assert_eq!(of(4), format!("tracer {}", env!("CARGO_PKG_VERSION")));
                read.sections.push(format!("{}; {}", of(3), of(1)));
            }
            Block::InterfaceDescription(interface) => {
                assert_eq!(interface.linktype, Linktype::RAW);
                assert_eq!(interface.if_tsresol, 9);
                let name = interface.if_name().expect("a name").expect("text").to_owned();
                let about = interface.if_description().expect("what it is for").expect("text");
                assert!(about.len() > 10, "{about}");
                interfaces.push((name, interface.snaplen));
            }
            Block::EnhancedPacket(packet) => {
                let (name, most) = &interfaces[packet.if_id as usize];
                assert!(packet.caplen == packet.origlen && packet.caplen <= *most);
                read.packets.push(Packet {
                    hook: name.clone(),
                    nanos: u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low),
                    bytes: packet.data[..packet.caplen as usize].to_vec(),
                    comments: texts(&packet.options, 1),
                });
            }
            Block::InterfaceStatistics(statistics) => {
                let lost = statistics.isb_ifdrop().expect("a count").expect("a number");
                read.lost
                    .push((interfaces[statistics.if_id as usize].0.clone(), lost));
            }
            other => panic!("{other:?}"),
        }
    }
    read
}

fn tracer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .output()
        .expect("the command runs")
}

/// The output of a command that succeeds without a message.
fn written(arguments: &[&str]) -> Vec<u8> {
    let output = tracer(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{arguments:?}: {errors}"
    );
    output.stdout
}

fn recordings() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut out: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "trace"))
        .collect();
    out.sort();
    out.iter()
        .map(|path| path.to_str().expect("text").to_owned())
        .collect()
}

/// The last report of each flow.
fn flows(recording: &str) -> BTreeMap<u64, Value> {
    let lines = String::from_utf8(written(&["replay", "--json", recording])).expect("text");
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines
        .filter(|line| line["type"] == "flow")
        .map(|flow| (flow["id"].as_u64().expect("a number"), flow))
        .collect()
}

/// The sum of the 16-bit words, which a checksum makes all ones.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    let sum: u64 = words
        .map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)))
        .sum();
    sum % 0xffff
}

#[test]
fn every_step_is_a_packet_at_its_hook_with_what_happened_there() {
    for recording in recordings() {
        let capture = read(&written(&["export", "--to", "pcapng", &recording]));
        assert!(
            capture.packets.is_sorted_by_key(|packet| packet.nanos),
            "{recording}"
        );
        assert_eq!(capture.sections.len(), 1);
        assert!(
            ["Linux 6.12", "Linux 5.10"]
                .iter()
                .any(|kernel| capture.sections[0].starts_with(kernel)),
            "{:?}",
            capture.sections
        );
        assert!(capture.sections[0].contains("Not recorded"));
        for (id, flow) in flows(&recording) {
            let of_flow = format!("flow {id},");
            let packets: Vec<&Packet> = capture
                .packets
                .iter()
                .filter(|packet| {
                    packet
                        .comments
                        .last()
                        .is_some_and(|place| place.starts_with(&of_flow))
                })
                .collect();
            let mut left: Vec<(&str, &str)> = packets
                .iter()
                .flat_map(|packet| {
                    packet
                        .comments
                        .iter()
                        .map(|comment| (packet.hook.as_str(), comment.as_str()))
                })
                .filter(|(_, comment)| !comment.starts_with("flow "))
                .collect();
            for step in flow["path"].as_array().expect("a list") {
                let text = |name: &str| step[name].as_str().unwrap_or_default();
                let mut expected = text("note").to_owned();
                if let Some(verdict) = step["verdict"].as_str() {
                    expected = format!("{verdict}: {expected}");
                }
                let verdict = text("verdict");
                let is_drop = ["NF_DROP", "NF_DROP_REASON"].contains(&verdict);
                if is_drop || text("note").contains("dropped in") {
                    expected = format!("DROP {expected}");
                }
                let at = left
                    .iter()
                    .position(|packet| *packet == (text("hook"), expected.as_str()))
                    .unwrap_or_else(|| {
                        panic!(
                            "{recording}: {expected} at {} is not among {left:#?}",
                            text("hook")
                        )
                    });
                left.remove(at);
            }
            assert!(left.is_empty(), "{recording}: {left:#?}");
            // The last report of the flow; and its first packet has a comment about the flow.
            let summaries: Vec<&String> = packets
                .iter()
                .filter_map(|packet| packet.comments.first())
                .filter(|comment| comment.starts_with(&format!("flow {id}: ")))
                .collect();
            let member = |name: &str| flow[name].as_str().unwrap_or_default();
            let last = summaries.last().expect("a summary");
            assert!(
                last.starts_with(&format!("flow {id}: {}", member("fate"))),
                "{last}"
            );
            assert!(
                last.contains(member("cause")) && last.contains(member("explanation")),
                "{last}"
            );
            assert_eq!(packets[0].comments.first(), summaries.first().copied());
        }
    }
}

/// The flags of a SYN in the TCP header.
const SYN: u8 = 0x02;

#[test]
fn headers_are_complete_and_belong_to_the_flow() {
    for recording in recordings() {
        let capture = read(&written(&["export", "--to", "pcapng", &recording]));
        let mut isns: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for packet in &capture.packets {
            let bytes = &packet.bytes;
            assert_eq!((bytes[0], bytes.len()), (0x45, 40));
            assert_eq!(usize::from(bytes[2]) << 8 | usize::from(bytes[3]), bytes.len());
            assert_eq!(sum(&bytes[..20]), 0);
            assert_eq!(sum(&[&bytes[12..], &[0, 6, 0, 20]].concat()), 0);
            let place = packet.comments.last().expect("where it was");
            let id = place
                .trim_start_matches("flow ")
                .split(',')
                .next()
                .expect("a number");
            // NAT changes addresses and ports, and leaves the SYN's number alone.
            if bytes[33] == SYN {
                let isn = isns
                    .entry(id.to_owned())
                    .or_insert_with(|| bytes[24..28].to_vec());
                assert_eq!(bytes[24..28], isn[..], "{packet:?}");
            }
        }
        let first = &capture.packets[0];
        assert_eq!(first.hook, "netif_receive_skb");
        assert_eq!(first.bytes[33], 2, "a SYN");
    }
}

#[test]
fn a_file_is_written_for_its_owner_and_no_recording_is_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("out.pcapng");
    let name = file.to_str().expect("text");
    let recording = &recordings()[0];
    let whole = written(&["export", "--to", "pcapng", recording]);
    assert_eq!(written(&["export", "--to", "pcapng", recording, "-o", name]), b"");
    assert_eq!(fs::read(&file).expect("a file"), whole);
    assert_eq!(
        fs::metadata(&file).expect("a file").permissions().mode() & 0o777,
        0o600
    );
    let lines = written(&["export", "--to", "jsonl", recording]);
    assert_eq!(lines, written(&["replay", "--json", recording]));
    written(&["export", "--to", "jsonl", recording, "-o", name]);
    assert_eq!(fs::read(&file).expect("a file"), lines);

    fs::copy(recording, &file).expect("a copy");
    let output = tracer(&["export", "--to", "pcapng", name, "-o", name]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("is one of the recordings"), "{errors}");
    assert_eq!(
        fs::read(&file).expect("a file"),
        fs::read(recording).expect("a file")
    );
    let output = tracer(&["export", "--to", "pcapng", "/nonexistent.trace", "-o", name]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        fs::read(&file).expect("a file"),
        fs::read(recording).expect("a file")
    );
    let output = tracer(&["export", "--to", "pcapng", recording, "-o", "/dev/full"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("/dev/full: No space left"), "{errors}");
}

#[test]
fn filters_choose_flows_and_all_runs_are_in_one_section() {
    let recordings = recordings();
    let mut arguments = vec!["export", "--to", "pcapng"];
    arguments.extend(recordings.iter().map(String::as_str));
    let all = read(&written(&arguments));
    assert_eq!(all.sections.len(), 1);
    let one_by_one: usize = recordings
        .iter()
        .map(|recording| {
            read(&written(&["export", "--to", "pcapng", recording]))
                .packets
                .len()
        })
        .sum();
    assert_eq!(all.packets.len(), one_by_one);
    arguments.extend(["--fate", "dropped"]);
    let dropped = read(&written(&arguments));
    let is_of = |packet: &&Packet| packet.comments[0].contains(": dropped, netfilter.rule-dropped");
    assert!(dropped.packets.iter().any(|packet| is_of(&packet)));
    assert!(dropped.packets.len() < all.packets.len());
}

/// Adds what is known at this time to the capture.
fn report(story: &mut Story, at: u64, capture: &mut Capture<&mut Vec<u8>>) {
    let facts = story.facts.clone();
    story.engine.poll(at, |flow, fate| {
        let diagnosis = diagnose::diagnose(flow, fate, &facts);
        let finding = Finding {
            flow,
            fate,
            diagnosis: &diagnosis,
            facts: &facts,
            clock: &clock(),
        };
        capture.add(&finding).expect("memory has room");
    });
}

#[test]
fn a_drop_with_a_reason_is_marked_like_any_other() {
    let mut out = Vec::new();
    let mut capture = Capture::new(&mut out);
    capture.begin(&Head::default()).expect("memory has room");
    let mut story = Story::new();
    story.arrives(MS);
    story.dropped_with_reason(2 * MS);
    report(&mut story, MS + PATIENCE + 100 * MS, &mut capture);
    capture.end().expect("memory has room");
    let capture = read(&out);
    let marked = capture.packets.iter().flat_map(|packet| &packet.comments);
    let marked: Vec<&String> = marked
        .filter(|comment| comment.starts_with("DROP NF_DROP_REASON: "))
        .collect();
    assert_eq!(marked.len(), 1, "{:?}", capture.packets);
}

#[test]
fn a_flow_reported_again_adds_what_is_new() {
    let mut out = Vec::new();
    let mut capture = Capture::new(&mut out);
    // Packets wait for two seconds.
    capture.begin(&Head::default()).expect("memory has room");
    let mut story = Story::new();
    for syn in [1, 1000, 3000, 9000] {
        story.arrives(syn * MS);
        story.dropped((syn + 1) * MS);
        if syn != 1 {
            report(&mut story, syn * MS + PATIENCE + 100 * MS, &mut capture);
        }
    }
    assert!(capture.has(1) && !capture.has(2));
    capture.lost(&Health {
        lost_by_hook: vec![("kfree_skb".to_owned(), 3), ("tcp_connect".to_owned(), 1)],
        ..Health::default()
    });
    capture.end().expect("memory has room");
    assert_eq!(capture.out_of_order(), 0);
    let read = read(&out);
    assert_eq!(read.packets.len(), 8);
    let summaries: Vec<usize> = (0..8)
        .filter(|&index| read.packets[index].comments[0].starts_with("flow 1: dropped"))
        .collect();
    // The first packet was still held at the second report, which replaced its comment, but not at the third.
    assert_eq!(summaries, [0, 6]);
    let drops = read.packets.iter().filter(|packet| packet.hook == "kfree_skb");
    let marked = |packet: &&Packet| {
        packet
            .comments
            .iter()
            .any(|comment| comment.starts_with("DROP SYN "))
    };
    assert_eq!(drops.filter(marked).count(), 4);
    assert_eq!(
        read.lost,
        [("kfree_skb".to_owned(), 3), ("tcp_connect".to_owned(), 1)]
    );
}

#[test]
fn packets_of_different_flows_come_in_the_order_of_their_times() {
    let mut out = Vec::new();
    let mut capture = Capture::new(&mut out);
    let head = Head {
        patience_ns: PATIENCE,
        ..Head::default()
    };
    capture.begin(&head).expect("memory has room");
    let mut story = Story::new();
    story.arrives(MS);
    story.dropped(2 * MS);
    let first = (story.flow, story.port);
    for flow in 8..12 {
        (story.flow, story.port) = (flow, 40_000 + u16::try_from(flow).expect("a small number"));
        story.arrives(flow * 100 * MS);
        story.dropped((flow * 100 + 1) * MS);
    }
    // So the first is reported last.
    (story.flow, story.port) = first;
    story.arrives(2900 * MS);
    story.dropped(2901 * MS);
    report(&mut story, 10 * PATIENCE, &mut capture);
    capture.end().expect("memory has room");
    let read = read(&out);
    assert_eq!(read.packets.len(), 12);
    assert!(read.packets.is_sorted_by_key(|packet| packet.nanos));
    assert_eq!(read.packets[2].nanos - read.packets[0].nanos, 799 * MS);
}
