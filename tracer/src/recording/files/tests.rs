use tempfile::tempdir;

use super::*;
use crate::{
    decode::record::RECORDS,
    facts::{Facts, changed_facts::ChangedFacts},
    finding::run::End,
    finding::sink::RecordSink as _,
    flow::begun::Begun,
    recording::{
        chunk::ChunkHeader,
        flight_recorder::FlightRecorder,
        item::Item,
        reader::{Damage, Reader},
        recorder::Recorder,
        writer::TARGET_CHUNK_LEN,
    },
};

fn head() -> Head {
    Head {
        records: RECORDS,
        session: "a run".to_owned(),
        ..Head::default()
    }
}

/// A record that does not compress.
fn record(number: u64) -> Vec<u8> {
    let mut seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    // Time and flow.
    let mut out = [number.to_le_bytes(); 2].concat();
    for _ in 0..64 {
        for _ in 0..3 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
        }
        out.extend(seed.to_le_bytes());
    }
    out
}

/// Records `count` records, each followed by a tick and a changed fact.
fn record_all(sink: Box<dyn ChunkSink>, count: u64, write_out_at: Option<u64>) {
    let mut recorder = Recorder::new(sink);
    recorder.begin(head()).expect("room for the head");
    let mut facts = Facts::default();
    let changed = ChangedFacts {
        symbols: true,
        lost: true,
        ..ChangedFacts::default()
    };
    for number in 1..=count {
        recorder.record(&record(number));
        recorder.relieve(number + 1);
        recorder.tick(number, false, number + 1);
        facts.lost_ns = Some(number);
        facts.symbols.insert(number % 10, number.to_string());
        recorder.facts(None, &facts, &changed);
        if write_out_at == Some(number) {
            assert!(recorder.write_out(number + 1).expect("room").is_some());
        }
    }
    recorder.check().expect("room");
    recorder.end(&End::default());
    recorder.finish(count + 1).expect("room");
}

/// Reads a file: its head, the numbers of its records, the facts at its end, its damage, and the headers of its chunks.
fn read(path: &Path) -> (Head, Vec<u64>, Facts, Damage, Vec<ChunkHeader>) {
    let mut reader = Reader::new(File::open(path).expect("a file")).expect("a recording");
    let (mut numbers, mut facts, mut headers) = (Vec::new(), Facts::default(), Vec::new());
    while let Some(log) = reader.next_log().expect("a recording") {
        headers.push(log.header);
        for item in log.items() {
            match item.expect("an item") {
                Item::Record(bytes) => {
                    numbers.push(u64::from_le_bytes(*bytes.first_chunk().expect("a number")));
                }
                Item::Facts(update) => assert!(update.change.apply(&mut facts)),
                _ => {}
            }
        }
    }
    (reader.head().clone(), numbers, facts, reader.damage(), headers)
}

/// The flows that began before the start of a file, as the file lists them.
fn begun_before(path: &Path) -> Option<Begun> {
    let mut reader = Reader::new(File::open(path).expect("a file")).expect("a recording");
    let log = reader.next_log().expect("a recording").expect("a chunk");
    log.items().find_map(|item| match item {
        Ok(Item::Begun(begun)) => Some(begun),
        _ => None,
    })
}

/// Whether a file lists all flows before its first one as begun, and no other.
fn lists_begun(path: &Path, first: u64) -> bool {
    begun_before(path).is_some_and(|begun| begun.has(first - 1) && !begun.has(first))
}

fn facts_at(count: u64) -> Facts {
    Facts {
        lost_ns: Some(count),
        symbols: (count.saturating_sub(9).max(1)..=count)
            .map(|number| (number % 10, number.to_string()))
            .collect(),
        ..Facts::default()
    }
}

#[test]
fn one_file_holds_everything() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("node.trace");
    record_all(
        Box::new(FileSink::open(&path, None, None, Existing::Keep).expect("a file")),
        5000,
        None,
    );
    let (read_head, numbers, facts, damage, headers) = read(&path);
    assert_eq!(read_head, head());
    assert_eq!(numbers, (1..=5000).collect::<Vec<_>>());
    assert_eq!(facts, facts_at(5000));
    assert!(damage.is_complete && headers.len() > 1);
    // Each chunk has the number of its next flow, so that numbers do not shift when a chunk before it is lost.
    assert_eq!(headers[0].next_flow, 1);
    let first = headers[1].first_ns;
    assert!((first..=first + 1).contains(&headers[1].next_flow));
}

#[test]
fn rotated_files_can_be_read_together_or_alone() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("node.trace");
    let files = FileSink::open(&path, Some(1_500_000), Some(2), Existing::Keep).expect("a file");
    record_all(Box::new(files), 20_000, None);
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .collect();
    names.sort();
    let [older, newest] = names.as_slice() else {
        panic!("{names:?}")
    };
    assert!(older.to_string_lossy().ends_with(".trace"));
    let (first, mut numbers, _, damage, _) = read(older);
    assert!(damage.is_complete && numbers[0] > 1 && first.part > 0);
    assert!(lists_begun(older, numbers[0]));
    let (second, more, facts, ..) = read(newest);
    assert_eq!(second.part, first.part + 1);
    // It is complete without the files before it.
    assert_eq!(facts, facts_at(20_000));
    numbers.extend(more);
    assert_eq!(numbers, (numbers[0]..=20_000).collect::<Vec<_>>());
}

#[test]
fn a_flight_recorder_keeps_the_newest_records_and_the_facts_before_them() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("node.trace");
    let flight = FlightRecorder::open(&path, 3_000_000, Existing::Keep).expect("a file");
    record_all(Box::new(flight), 20_000, Some(100));
    let (_, numbers, facts, damage, _) = read(&path);
    assert!(damage.is_complete && numbers[0] > 1, "{}", numbers[0]);
    assert!(lists_begun(&path, numbers[0]));
    assert_eq!(numbers, (numbers[0]..=20_000).collect::<Vec<_>>());
    assert_eq!(facts, facts_at(20_000));
    assert!(fs::metadata(&path).expect("a file").len() < 3_300_000);
    let (_, numbers, facts, ..) = read(&folder.path().join("node.0001.trace"));
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
    assert_eq!(begun_before(&folder.path().join("node.0001.trace")), None);
    assert_eq!(facts, facts_at(100));
}

#[test]
fn an_old_recording_is_kept_until_a_new_one_is_to_replace_it() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("node.trace");
    fs::write(&path, "an old recording").expect("a file");
    let file = |existing| FileSink::open(&path, None, None, existing);
    let flight = |existing| FlightRecorder::open(&path, 1 << 20, existing);
    assert!(file(Existing::Keep).is_err() && flight(Existing::Keep).is_err());
    drop(file(Existing::Replace).expect("a file"));
    drop(flight(Existing::Replace).expect("a file"));
    assert_eq!(fs::read(&path).expect("a file"), b"an old recording");
    record_all(Box::new(file(Existing::Replace).expect("a file")), 1, None);
    assert_eq!(read(&path).1, [1]);
    record_all(Box::new(flight(Existing::Replace).expect("a file")), 2, Some(1));
    assert_eq!(read(&path).1, [1, 2]);
    let files = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(files, 2, "the recording and what was written on request");
}

#[test]
fn files_of_an_earlier_run_are_kept() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("node.trace");
    let old = folder.path().join("node.0001.trace");
    fs::write(&old, "an old recording").expect("a file");
    let set = |existing| FileSink::open(&path, Some(1), Some(2), existing);
    let error = set(Existing::Keep).expect_err("an older set is there");
    assert!(
        error.to_string().contains("node.0001.trace already exists"),
        "{error}"
    );
    // Written on request, a flight recorder's file gets the next number.
    let flight = FlightRecorder::open(&path, 1 << 20, Existing::Keep).expect("a file");
    record_all(Box::new(flight), 2, Some(1));
    assert_eq!(fs::read(&old).expect("a file"), b"an old recording");
    assert_eq!(read(&folder.path().join("node.0002.trace")).1, [1]);
    for other in [
        "node.12.trace",
        "node.x001.trace",
        "other.0001.trace",
        "node.0001.trac",
    ] {
        assert_eq!(number_of(&path, Path::new(other)), None, "{other}");
    }
    assert_eq!(number_of(&path, &numbered(&path, 12_345)), Some(12_345));
    assert_eq!(number_of(Path::new("node"), Path::new("node.0003")), Some(3));
}

#[test]
fn a_removed_recording_is_an_error_and_no_success() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("node.trace");
    for at_end in [false, true] {
        let files = FileSink::open(&path, None, None, Existing::Keep).expect("a file");
        let mut recorder = Recorder::new(Box::new(files));
        recorder.begin(head()).expect("room");
        recorder.record(&record(1));
        fs::remove_file(&path).expect("a file");
        if !at_end {
            for _ in 0..TARGET_CHUNK_LEN / 512 {
                recorder.record(&record(2));
            }
            recorder.relieve(3);
            let error = recorder.check().expect_err("nothing is left of it");
            assert!(
                error
                    .to_string()
                    .contains("node.trace: the recording was removed"),
                "{error}"
            );
            continue;
        }
        let error = recorder.finish(2).expect_err("nothing is left of it");
        assert!(
            error
                .to_string()
                .contains("node.trace: the recording was removed"),
            "{error}"
        );
    }
    // What is only in memory is not lost.
    let flight = FlightRecorder::open(&path, 1 << 20, Existing::Keep).expect("a file");
    fs::remove_file(&path).expect("a file");
    record_all(Box::new(flight), 1, None);
    assert_eq!(read(&path).1, [1]);
}

#[test]
fn a_flight_recorder_that_fails_leaves_no_file() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("node.trace");
    drop(FlightRecorder::open(&path, 1 << 20, Existing::Keep).expect("a file"));
    assert!(!path.exists());
    let Ok(flight) = FlightRecorder::open(Path::new("/dev/full"), 1 << 20, Existing::Keep) else {
        return;
    };
    let mut recorder = Recorder::new(Box::new(flight));
    recorder.begin(head()).expect("nothing is written yet");
    let error = recorder.finish(1).expect_err("no room");
    assert!(
        error.to_string().starts_with("/dev/full: No space left"),
        "{error}"
    );
}

#[test]
fn a_path_that_cannot_be_written_is_an_error_at_once() {
    let nowhere = Path::new("/nonexistent/node.trace");
    assert!(FileSink::open(nowhere, None, None, Existing::Keep).is_err());
    assert!(FlightRecorder::open(nowhere, 1 << 20, Existing::Keep).is_err());
}

#[test]
fn a_full_disk_is_an_error() {
    let full = Path::new("/dev/full");
    let Ok(files) = FileSink::open(full, None, None, Existing::Keep) else {
        return;
    };
    let error = Recorder::new(Box::new(files)).begin(head()).expect_err("no room");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn file_numbers_go_before_the_extension() {
    assert_eq!(
        numbered(Path::new("a/node.trace"), 3),
        Path::new("a/node.0003.trace")
    );
    assert_eq!(numbered(Path::new("a/node"), 12), Path::new("a/node.0012"));
}
