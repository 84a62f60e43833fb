//! `tracer export --to parquet`, read back row by row. `cargo xtask test` reads it with DuckDB and pandas as well.

mod story;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use bytes::Bytes;
use parquet::{
    basic::Compression,
    file::reader::{FileReader as _, SerializedFileReader},
    record::{Field, Row},
};
use serde_json::{Map, Value, json};
use story::{MS, PATIENCE, Story, clock};
use tracer::{
    diagnose,
    export::parquet::Table,
    finding::{
        Finding,
        head::Head,
        run::{End, Health},
    },
    flow::fate::Fate,
};

/// The content of a table.
struct Read {
    rows: Vec<Map<String, Value>>,
    about: BTreeMap<String, String>,
    /// Rows in each row group.
    groups: Vec<i64>,
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Int(number) => (*number).into(),
        Field::Long(number) => (*number).into(),
        Field::UShort(number) => (*number).into(),
        Field::UInt(number) => (*number).into(),
        Field::ULong(number) => (*number).into(),
        Field::Double(number) => (*number).into(),
        Field::Str(text) => text.clone().into(),
        Field::Group(row) => object(row).into(),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => panic!("{other:?}"),
    }
}

fn object(row: &Row) -> Map<String, Value> {
    row.get_column_iter()
        .map(|(name, field)| (name.clone(), value(field)))
        .collect()
}

fn read(bytes: Vec<u8>) -> Read {
    let reader = SerializedFileReader::new(Bytes::from(bytes)).expect("a table");
    let metadata = reader.metadata();
    for group in metadata.row_groups() {
        for column in group.columns() {
            assert!(matches!(column.compression(), Compression::ZSTD(_)));
        }
    }
    let about = metadata.file_metadata();
    assert_eq!(
        about.created_by(),
        Some(concat!("tracer ", env!("CARGO_PKG_VERSION")))
    );
    let about = about.key_value_metadata().expect("metadata");
    Read {
        rows: reader
            .get_row_iter(None)
            .expect("rows")
            .map(|row| object(&row.expect("a row")))
            .collect(),
        about: about
            .iter()
            .map(|entry| (entry.key.clone(), entry.value.clone().unwrap_or_default()))
            .collect(),
        groups: metadata
            .row_groups()
            .iter()
            .map(parquet::file::metadata::RowGroupMetaData::num_rows)
            .collect(),
    }
}

fn tracer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .output()
        .expect("the command runs")
}

/// The output of a command that succeeds without a message.
fn written(arguments: &[&str]) -> Vec<u8> {
    written_with(arguments, "")
}

/// The output of a command that succeeds with this message.
fn written_with(arguments: &[&str], message: &str) -> Vec<u8> {
    let output = tracer(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors == message,
        "{arguments:?}: {errors}"
    );
    output.stdout
}

fn recordings() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut out: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "trace"))
        .map(|path| path.to_str().expect("text").to_owned())
        .collect();
    out.sort();
    out
}

/// The last line of each flow of the same recordings, as rows.
fn expected(arguments: &[&str]) -> Vec<Map<String, Value>> {
    let lines =
        String::from_utf8(written(&[&["export", "--to", "jsonl"], arguments].concat())).expect("text");
    let (mut run, mut host) = (0, Value::Null);
    let mut rows: BTreeMap<(u64, u64), Map<String, Value>> = BTreeMap::new();
    for line in lines.lines() {
        let mut line: Map<String, Value> = serde_json::from_str(line).expect("JSON");
        if line["type"] == "start" {
            run += 1;
            host = line["host"].clone();
        }
        if line["type"] != "flow" {
            continue;
        }
        line.remove("type");
        for end in ["client", "node", "backend"] {
            let address = line.remove(end).expect("a member");
            for member in ["ip", "port"] {
                line.insert(format!("{end}_{member}"), address[member].clone());
            }
            if end == "backend" {
                line.insert("backend_name".to_owned(), address["name"].clone());
            }
        }
        for tuple in ["dnat", "snat"] {
            let tuple_value = line.remove(tuple).expect("a member");
            for end in ["source", "destination"] {
                for member in ["ip", "port"] {
                    let value = tuple_value[end][member].clone();
                    line.insert(format!("{tuple}_{end}_{member}"), value);
                }
            }
        }
        let start: jiff::Timestamp = line["start"].as_str().expect("text").parse().expect("a time");
        let nanos = i64::try_from(start.as_nanosecond()).expect("a time in range");
        line.insert("start".to_owned(), nanos.into());
        line.insert("run".to_owned(), run.into());
        line.insert("host".to_owned(), host.clone());
        let key = (run, line["id"].as_u64().expect("a number"));
        let before = rows
            .get(&key)
            .map_or(0, |row| row["told"].as_u64().expect("a number"));
        line.insert("told".to_owned(), (before + 1).into());
        rows.insert(key, line);
    }
    rows.into_values().collect()
}

#[test]
fn a_row_has_the_values_of_the_last_line_of_its_flow() {
    let recordings = recordings();
    let all: Vec<&str> = recordings.iter().map(String::as_str).collect();
    let mut calls: Vec<Vec<&str>> = all.iter().map(|name| vec![*name]).collect();
    calls.push(all);
    for arguments in calls {
        let expected = expected(&arguments);
        let read = read(written(
            &[&["export", "--to", "parquet"], &arguments[..]].concat(),
        ));
        assert!(!expected.is_empty());
        assert_eq!(read.rows, expected, "{arguments:?}");
        let about = |key: &str| read.about[key].as_str();
        assert_eq!((about("tracer.schema"), about("tracer.lost")), ("1", "0"));
        assert_eq!(about("tracer.version"), env!("CARGO_PKG_VERSION"));
        let kernels = ["6.12", "5.10"];
        assert!(
            kernels
                .iter()
                .any(|kernel| about("tracer.kernel").contains(kernel))
        );
        let runs: Vec<Value> = serde_json::from_str(about("tracer.runs")).expect("JSON");
        assert_eq!(runs.len(), arguments.len());
        assert_eq!(runs[0]["host"], about("tracer.host"));
        assert!(
            runs.iter().all(|run| run["events"].as_u64() > Some(0)),
            "{runs:?}"
        );
    }
}

#[test]
fn filters_select_rows_and_a_table_without_rows_is_readable() {
    let recordings = recordings();
    let all: Vec<&str> = recordings.iter().map(String::as_str).collect();
    for filter in [["--fate", "established"], ["--port", "1"]] {
        let arguments = [&all[..], &filter].concat();
        let message = match filter[0] {
            "--port" => "tracer: 0 of 36 flows match --port 1\n",
            _ => "",
        };
        let read = read(written_with(
            &[&["export", "--to", "parquet"], &arguments[..]].concat(),
            message,
        ));
        assert_eq!(read.rows, expected(&arguments));
        assert_eq!(read.rows.is_empty(), filter[0] == "--port");
    }
}

#[test]
fn a_full_disk_is_reported() {
    let output = tracer(&["export", "--to", "parquet", &recordings()[0], "-o", "/dev/full"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("/dev/full: No space left"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

/// Adds what is known at this time to the table; only these fates are selected.
fn report(story: &mut Story, at: u64, table: &mut Table<&mut Vec<u8>>, selected: &[Fate]) {
    let facts = story.facts.clone();
    table.now(at).expect("memory has room");
    story.engine.poll(at, |flow, fate| {
        let diagnosis = diagnose::diagnose(flow, fate, &facts);
        let finding = Finding {
            flow,
            fate,
            diagnosis: &diagnosis,
            facts: &facts,
            clock: &clock(),
        };
        table
            .add(&finding, selected.contains(&fate))
            .expect("memory has room");
    });
}

/// A client sends SYN after SYN, the last one is answered; then nothing happens for ten minutes.
fn reported_again(held: usize, selected: &[Fate]) -> (Read, u64) {
    let mut out = Vec::new();
    let table = Table::new(&mut out).expect("memory has room");
    let mut table = table.with_bounds(held, 1 << 20);
    let head = Head {
        patience_ns: PATIENCE,
        ..Head::default()
    };
    table.begin(&head).expect("memory has room");
    let mut story = Story::new();
    for syn in [1, 4_000, 12_000] {
        story.arrives(syn * MS);
        story.dropped((syn + 1) * MS);
        report(&mut story, syn * MS + PATIENCE + 100 * MS, &mut table, selected);
    }
    story.served(40_000 * MS);
    for second in 41..640 {
        report(&mut story, second * 1000 * MS, &mut table, selected);
    }
    table.lost(&Health {
        lost_by_hook: vec![("kfree_skb".to_owned(), 3)],
        ..Health::default()
    });
    table.end(&End {
        events: 40,
        lost: 3,
        ..End::default()
    });
    let superseded = table.close().expect("memory has room");
    (read(out), superseded)
}

const ALL: [Fate; 3] = [Fate::Dropped, Fate::Stalled, Fate::Established];

/// How often each row's flow had been reported, and its fate.
fn fates(read: &Read) -> Vec<Value> {
    read.rows
        .iter()
        .map(|row| json!([row["told"], row["fate"]]))
        .collect()
}

#[test]
fn a_flow_reported_again_has_one_row_the_last() {
    let (read, superseded) = reported_again(1 << 20, &ALL);
    assert_eq!(fates(&read), [json!([4, "stalled"])]);
    assert_eq!((superseded, read.rows[0]["syns"].as_u64()), (0, Some(4)));
    assert_eq!(read.about["tracer.lost"], "3");
    let runs: Vec<Value> = serde_json::from_str(&read.about["tracer.runs"]).expect("JSON");
    assert_eq!(runs[0]["lost_by_hook"], json!({"kfree_skb": 3}));
}

#[test]
fn without_room_for_held_rows_the_highest_told_is_the_last() {
    let (read, superseded) = reported_again(0, &ALL);
    let expected = [
        json!([1, "dropped"]),
        json!([2, "dropped"]),
        json!([3, "dropped"]),
        json!([4, "stalled"]),
    ];
    assert_eq!(fates(&read), expected);
    assert_eq!((superseded, read.about["tracer.superseded"].as_str()), (3, "3"));
}

#[test]
fn filters_apply_to_the_last_report_of_a_flow() {
    let (read, _) = reported_again(1 << 20, &[Fate::Dropped]);
    assert_eq!(fates(&read), [] as [Value; 0]);
    let (read, _) = reported_again(1 << 20, &[Fate::Stalled]);
    assert_eq!(fates(&read), [json!([4, "stalled"])]);
    // A row that is in the file already must not look like the last one.
    let (read, superseded) = reported_again(0, &[Fate::Dropped]);
    assert_eq!(fates(&read).last(), Some(&json!([4, "stalled"])));
    assert_eq!((read.rows.len(), superseded), (4, 3));
}

#[test]
fn rows_are_held_only_while_they_can_change_and_row_groups_are_bounded() {
    let mut out = Vec::new();
    let table = Table::new(&mut out).expect("memory has room");
    // One row is more than a row group may have.
    let mut table = table.with_bounds(1 << 20, 1);
    table.begin(&Head::default()).expect("memory has room");
    let mut story = Story::new();
    for flow in 1..20 {
        (story.flow, story.port) = (flow, 40_000 + u16::try_from(flow).expect("a small number"));
        story.served(flow * 10_000 * MS);
        report(&mut story, flow * 10_000 * MS + 1000 * MS, &mut table, &ALL);
        report(&mut story, flow * 10_000 * MS + 3000 * MS, &mut table, &ALL);
        report(&mut story, flow * 10_000 * MS + 4000 * MS, &mut table, &ALL);
    }
    // Rows that cannot change are in the file before the end.
    drop(table);
    assert!(out.len() > 19 * 500, "{}", out.len());

    let mut out = Vec::new();
    let mut table = Table::new(&mut out)
        .expect("memory has room")
        .with_bounds(1 << 20, 1);
    table.begin(&Head::default()).expect("memory has room");
    let mut story = Story::new();
    story.served(MS);
    report(&mut story, 1000 * MS, &mut table, &ALL);
    (story.flow, story.port) = (8, 40_002);
    story.served(2000 * MS);
    report(&mut story, 9000 * MS, &mut table, &ALL);
    table.close().expect("memory has room");
    let read = read(out);
    assert_eq!(read.groups, [1, 1]);
    assert_eq!(
        fates(&read),
        [json!([1, "established"]), json!([1, "established"])]
    );
}
