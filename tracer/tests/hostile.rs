//! Recordings that nobody recorded. Each test is something that went wrong once.

mod story;

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use story::{MS, Story};
use tracer::{
    decode::record::RECORDS,
    finding::{head::Head, run::End},
    recording::{
        change::{Change, Entries},
        item::{Item, Learned},
        writer::{Builder, Writer},
    },
};
use tracer_common::hook::Hook;

/// A record about the packet of a flow at a hook.
fn record(time_ns: u64, flow: u64, hook: Hook, flags: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [time_ns, flow, 9, 0] {
        bytes.extend(word.to_le_bytes());
    }
    let (client, node) = ([10, 0, 0, 2], [10, 0, 0, 1]);
    let (mut ends, mut ports) = ([client, node], [40_000_u16, 30_080]);
    if flags == 0x12 {
        ends.reverse();
        ports.reverse();
    }
    for end in ends {
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        bytes.extend(end);
    }
    for port in ports {
        bytes.extend(port.to_le_bytes());
    }
    for word in [1_u32, 0, 1, 4, 2, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(b"eth0\0\0\0\0\0\0\0\0\0\0\0\0");
    bytes.extend((hook as u16).to_le_bytes());
    bytes.extend([0, 0, 0, 0, flags, 0, 0, 0, 0, 0]);
    bytes.extend([0; 64]);
    bytes
}

/// Writes a recording and plays it: its lines. Every way to look at it must come to an end.
fn played(name: &str, part: u32, next_flow: u64, items: &[Item<'_>]) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    write(&path, part, next_flow, items);
    let path = path.to_str().expect("text");
    for arguments in [
        &["report", path][..],
        &["replay", "--plain", "-v", path],
        &["export", "--to", "pcapng", path],
        &["export", "--to", "parquet", path],
    ] {
        run(arguments);
    }
    let lines = run(&["replay", "--json", path]);
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    lines.collect()
}

fn write(path: &Path, part: u32, next_flow: u64, items: &[Item<'_>]) {
    let head = Head {
        records: RECORDS,
        session: "one".to_owned(),
        part,
        patience_ns: u64::MAX,
        ..Head::default()
    };
    let mut writer = Writer::new(Vec::new(), &head).expect("memory has room");
    let mut builder = Builder::new(next_flow);
    for item in items {
        builder.add(item);
    }
    let chunk = builder.seal(next_flow).expect("a short chunk");
    writer.write(&chunk).expect("memory has room");
    fs::write(path, writer.finish().expect("memory has room")).expect("a file");
}

fn run(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .output()
        .expect("the command runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn numbers_at_the_end_of_all_numbers_are_numbers() {
    let last = u64::MAX;
    let (syn, synack, ack) = (0x02, 0x12, 0x10);
    let records = [
        record(1, 7, Hook::NetifReceive, syn),
        record(last - 1, 7, Hook::NetifReceive, syn),
        record(last - 1, 7, Hook::DevStartXmit, synack),
        record(last, 7, Hook::DevStartXmit, synack),
        record(last, 7, Hook::NetifReceive, ack),
        record(last, 8, Hook::NetifReceive, syn),
        record(last, 9, Hook::NetifReceive, syn),
    ];
    let mut items: Vec<Item<'_>> = records.iter().map(|record| Item::Record(record)).collect();
    items.push(Item::Tick(last));
    items.push(Item::End(End {
        now_ns: last,
        events: last,
        lost: last,
    }));
    for next_flow in [1, last] {
        let lines = played("last.trace", u32::MAX, next_flow, &items);
        assert!(lines.iter().any(|line| line["type"] == "flow"), "{lines:?}");
    }
}

#[test]
fn counts_of_several_files_do_not_overflow() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut paths = Vec::new();
    for part in [0, u32::MAX] {
        let path = folder.path().join(format!("{part}.trace"));
        let end = Item::End(End {
            events: u64::MAX,
            lost: u64::MAX,
            ..End::default()
        });
        write(&path, part, 1, &[end]);
        paths.push(path.to_str().expect("text").to_owned());
    }
    paths.push(paths[1].clone());
    let arguments = |first: &[&'static str]| -> Vec<String> {
        let first = first.iter().map(|word| (*word).to_owned());
        first.chain(paths.clone()).collect()
    };
    for first in [
        &["report"][..],
        &["export", "--to", "parquet"],
        &["export", "--to", "pcapng"],
    ] {
        let arguments = arguments(first);
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn facts_that_are_learned_for_flows_that_never_come_are_learned() {
    let fact = |number: u64| {
        Item::Facts(Learned {
            told: Some(u32::MAX),
            change: Change::Symbols(Entries {
                set: vec![(number, "f".to_owned())],
                gone: Vec::new(),
            }),
        })
    };
    let items: Vec<Item<'_>> = (0..10_000).map(fact).collect();
    let lines = played("learned.trace", 0, 1, &items);
    assert_eq!(lines.last().expect("a line")["type"], "end");
}

#[test]
fn flows_that_are_never_asked_for_are_bounded_all_the_same() {
    let mut story = Story::new();
    for flow in 1..=450_000_u64 {
        story.flow = flow;
        story.arrives(flow * MS);
    }
    // One SYN, again and again.
    let mut loops = Story::new();
    for syn in 1..=20_000 {
        loops.arrives(syn * 300 * MS);
    }
    let (flow, ..) = loops.only();
    assert_eq!(flow.attempts.len(), 512);
    assert!(flow.steps_left_out > 19_000, "{}", flow.steps_left_out);

    let mut told = 0_u32;
    story.engine.finish(u64::MAX / 2, |_, _| told += 1);
    assert!((200_000..=400_000).contains(&told), "{told}");
}
