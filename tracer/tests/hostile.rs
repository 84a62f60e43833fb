//! Malformed and extreme recordings. Each test reproduces a past defect.

mod story;

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use story::{MS, Story};
use tracer::{
    decode::record::RECORDS,
    finding::{head::Head, run::End},
    recording::{
        change::{FactChange, TableChange},
        chunk::{self, Chunk, ChunkHeader},
        item::{self, FactUpdate, Item, ItemError, Items},
        writer::{ChunkBuilder, Writer},
    },
};
use tracer_common::hook::Hook;

/// A record of a flow's packet at a hook.
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

/// Writes a recording and returns the JSON lines of its replay. Every other command that reads it must finish too.
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
    let mut builder = ChunkBuilder::new(next_flow);
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
fn the_largest_numbers_do_not_overflow() {
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
        ..End::default()
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
fn facts_for_flows_that_never_appear_are_applied() {
    let fact = |number: u64| {
        Item::Facts(FactUpdate {
            reported: Some(u32::MAX),
            change: FactChange::Symbols(TableChange {
                set: vec![(number, "f".to_owned())],
                gone: Vec::new(),
            }),
        })
    };
    let items: Vec<Item<'_>> = (0..10_000).map(fact).collect();
    let lines = played("facts.trace", 0, 1, &items);
    assert_eq!(lines.last().expect("a line")["type"], "end");
}

#[test]
fn flows_that_are_never_polled_are_bounded() {
    let mut story = Story::new();
    for flow in 1..=450_000_u64 {
        story.flow = flow;
        story.arrives(flow * MS);
    }
    // One SYN over and over.
    let mut loops = Story::new();
    for syn in 1..=20_000 {
        loops.arrives(syn * 300 * MS);
    }
    let (flow, ..) = loops.only();
    assert_eq!(flow.attempts.len(), 512);
    assert!(flow.steps_left_out > 19_000, "{}", flow.steps_left_out);

    let mut reported = 0_u32;
    story.engine.finish(u64::MAX / 2, |_, _| reported += 1);
    assert!((200_000..=400_000).contains(&reported), "{reported}");
}

/// Runs tracer with as much memory as `--max-memory` allows by default: beyond it, the kernel refuses every allocation and
/// tracer aborts. All of its memory counts, not only that for reading recordings.
fn bounded(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("sh")
        .args([
            "-c",
            "ulimit -d 262144 && exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_tracer"),
        ])
        .args(arguments)
        .output()
        .expect("the command runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (
        output.status.code(),
        errors + &String::from_utf8_lossy(&output.stdout),
    )
}

/// Reads a crafted recording with every command, and checks the memory of each.
fn reads_within_bounds(name: &str, items: &[Item<'_>]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    write(&path, 0, 1, items);
    let size = fs::metadata(&path).expect("a file").len();
    let path = path.to_str().expect("text");
    let html = folder.path().join("page.html");
    let mut lines = 0;
    for arguments in [
        &["report", "--html", html.to_str().expect("text"), path][..],
        &["show", path, "1"],
        &["export", "--to", "parquet", path],
    ] {
        let (status, text) = bounded(arguments);
        // Not every recording has a flow to show.
        assert!(
            matches!(status, Some(0 | 1)),
            "{name}, {size} bytes: {arguments:?}: {status:?}: {text}"
        );
        lines += usize::from(text.contains("takes more than 256 MiB of memory: the rest was not read"));
    }
    println!("{name}: {size} bytes, {lines} commands stopped");
}

fn fact(change: &str) -> Item<'static> {
    let text = format!(r#"{{"told":1,"change":{change}}}"#);
    let payload = [
        &[item::kind::FACTS][..],
        &u32::try_from(text.len()).expect("short").to_le_bytes(),
    ]
    .concat();
    let payload: &'static [u8] = Box::leak([payload, text.into_bytes()].concat().into_boxed_slice());
    Items::of(payload).next().expect("an item").expect("a fact")
}

/// A list of `count` equal elements.
fn many(element: &str, count: usize) -> String {
    format!("[{}{element}]", format!("{element},").repeat(count - 1))
}

#[test]
fn no_recording_takes_more_memory_than_promised() {
    // Each text is short, but describes something large.
    for (name, list, change) in [
        ("symbols", r#"[1,""]"#, r#"{"of":"symbols","set":LIST,"gone":[]}"#),
        ("gone", "1", r#"{"of":"pids","set":[],"gone":LIST}"#),
        ("absent", "1", r#"{"of":"absent","hooks":LIST}"#),
        (
            "ports",
            r#"[false,1,[""]]"#,
            r#"{"of":"netns","inum":1,"node_ports":LIST}"#,
        ),
    ] {
        let change = change.replace("LIST", &many(list, 60_000));
        let items: Vec<Item<'_>> = (0..10).map(|_| fact(&change)).collect();
        reads_within_bounds(name, &items);
    }
    // Namespaces and table entries that are all different.
    let items: Vec<Item<'_>> = (0..40_000)
        .map(|inum| fact(&format!(r#"{{"of":"netns","inum":{inum}}}"#)))
        .collect();
    reads_within_bounds("namespaces", &items);
    // Flows that never end.
    let records: Vec<Vec<u8>> = (1..=300_000)
        .map(|flow| record(flow * 1_000, flow, Hook::NetifReceive, 0x02))
        .collect();
    let items: Vec<Item<'_>> = records.iter().map(|record| Item::Record(record)).collect();
    reads_within_bounds("flows", &items);
    // Many steps.
    let records: Vec<Vec<u8>> = (1..=300_000)
        .map(|number| record(number * 1_000, number / 50 + 1, Hook::DevStartXmit, 0x02))
        .collect();
    let items: Vec<Item<'_>> = records.iter().map(|record| Item::Record(record)).collect();
    reads_within_bounds("steps", &items);
}

#[test]
fn an_item_that_describes_too_much_ends_the_reading() {
    let list = many("[]", 6 << 20);
    let text = format!(r#"{{"told":1,"change":{{"of":"nonsense","list":{list}}}}}"#);
    let mut payload = vec![item::kind::FACTS];
    payload.extend(u32::try_from(text.len()).expect("short").to_le_bytes());
    payload.extend(text.into_bytes());
    assert_eq!(Items::of(&payload).next(), Some(Err(ItemError::TooLarge)));
    let header = ChunkHeader {
        kind: chunk::kind::LOG,
        next_flow: 1,
        ..ChunkHeader::default()
    };
    let head = Head {
        records: RECORDS,
        ..Head::default()
    };
    let mut writer = Writer::new(Vec::new(), &head).expect("memory has room");
    writer
        .write(&Chunk::new(header, payload).expect("a chunk"))
        .expect("memory has room");
    let bytes = writer.finish().expect("memory has room");
    assert!(bytes.len() < 10_000, "{} bytes", bytes.len());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("small.trace");
    fs::write(&path, bytes).expect("a file");
    let (status, output) = bounded(&["report", path.to_str().expect("text")]);
    assert_eq!(status, Some(0), "{output}");
    assert!(
        output.contains("takes more than 256 MiB of memory: the rest was not read"),
        "{output}"
    );
}
