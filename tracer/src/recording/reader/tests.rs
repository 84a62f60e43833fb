use std::io::Cursor;

use super::*;
use crate::decode::record::RECORDS;
use crate::recording::{
    MINOR,
    chunk::{self, codec},
    index,
    item::Item,
    writer::{ChunkBuilder, Writer},
};

fn head() -> Head {
    Head {
        tracer: "0.1.0".to_owned(),
        records: RECORDS,
        host: "node-1".to_owned(),
        ports: vec![30_080],
        ..Head::default()
    }
}

/// The times of the ticks in each chunk.
type Ticks = Vec<Vec<u64>>;

fn written_ticks() -> Ticks {
    vec![vec![1, 2, 3], vec![4], vec![5, 6]]
}

fn log(ticks: &[u64]) -> Chunk {
    let mut builder = ChunkBuilder::new(1);
    for &tick in ticks {
        builder.add(&Item::Tick(tick));
    }
    builder.seal(1).expect("a short chunk")
}

fn write(finish: bool) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &head()).expect("memory");
    for ticks in written_ticks() {
        writer.write(&log(&ticks)).expect("memory");
    }
    if finish {
        writer.finish().expect("memory")
    } else {
        std::mem::take(writer.get_mut())
    }
}

fn read(bytes: &[u8]) -> Result<(Ticks, Damage), RecordingError> {
    let mut reader = Reader::new(bytes)?;
    let mut out = Vec::new();
    while let Some(log) = reader.next_log()? {
        let ticks = log.items().filter_map(|item| match item {
            Ok(Item::Tick(now)) => Some(now),
            _ => None,
        });
        out.push(ticks.collect());
    }
    Ok((out, reader.damage()))
}

const UNDAMAGED: Damage = Damage {
    incomplete_bytes: 0,
    is_complete: true,
    damaged_chunks: 0,
    stray_bytes: 0,
    unknown_chunks: 0,
    chunks: 3,
};

#[test]
fn a_recording_survives_writing_and_reading() {
    let bytes = write(true);
    assert_eq!(read(&bytes).expect("a recording"), (written_ticks(), UNDAMAGED));
    assert_eq!(
        Reader::new(bytes.as_slice()).expect("a recording").head(),
        &head()
    );
    let index = index::read(&mut Cursor::new(&bytes))
        .expect("memory")
        .expect("an index");
    let times: Vec<_> = index
        .iter()
        .map(|entry| (entry.first_ns, entry.last_ns))
        .collect();
    assert_eq!(times, [(1, 3), (4, 4), (5, 6)]);
    for (entry, ticks) in index.iter().zip(written_ticks()) {
        let at = usize::try_from(entry.at).expect("a short recording");
        let head = bytes[at..at + CHUNK_HEADER_LEN].try_into().expect("a whole head");
        assert_eq!(ChunkHeader::from_bytes(head), Some(log(&ticks).header));
    }
}

#[test]
fn a_truncated_recording_is_read_up_to_the_cut() {
    let bytes = write(true);
    let chunks = index::read(&mut Cursor::new(&bytes))
        .expect("memory")
        .expect("an index");
    for end in 0..bytes.len() {
        let cut = &bytes[..end];
        assert!(
            !matches!(index::read(&mut Cursor::new(cut)), Err(_) | Ok(Some(_))),
            "cut at {end}"
        );
        let begun = chunks.iter().filter(|entry| entry.at < end as u64).count();
        match read(cut) {
            Ok((ticks, damage)) => {
                assert!(
                    ticks.len() + 1 >= begun && ticks == written_ticks()[..ticks.len()],
                    "cut at {end}"
                );
                assert!(!damage.is_complete && damage.stray_bytes == 0, "cut at {end}");
                assert_eq!(damage.incomplete_bytes + whole(cut), end as u64, "cut at {end}");
            }
            Err(RecordingError::Empty | RecordingError::Truncated) => assert_eq!(begun, 0, "cut at {end}"),
            Err(other) => panic!("cut at {end}: {other}"),
        }
    }
    let (ticks, damage) = read(&write(false)).expect("a recording");
    assert_eq!(
        (ticks, damage),
        (
            written_ticks(),
            Damage {
                is_complete: false,
                ..UNDAMAGED
            }
        )
    );
}

/// Length of the preamble and all complete chunks.
fn whole(bytes: &[u8]) -> u64 {
    let mut at = PREAMBLE;
    while let Some(head) = bytes.get(at..at + CHUNK_HEADER_LEN) {
        let head = ChunkHeader::from_bytes(head.try_into().expect("a whole head")).expect("no damage");
        let next = at + CHUNK_HEADER_LEN + head.stored as usize;
        if next > bytes.len() {
            break;
        }
        at = next;
    }
    at as u64
}

#[test]
fn a_flipped_bit_costs_one_chunk_and_is_reported() {
    let bytes = write(true);
    for bit in 0..8 * bytes.len() {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        match read(&wrong) {
            Ok((ticks, damage)) => {
                assert!(ticks.len() >= 2, "bit {bit}");
                assert!(
                    ticks.iter().all(|ticks| written_ticks().contains(ticks)),
                    "bit {bit}"
                );
                // Four bytes of the preamble are unused, and the reader checks only the kind of the index and the trailer.
                let lost = ticks.len() < 3;
                let is_reported = damage.damaged_chunks + damage.stray_bytes + damage.incomplete_bytes > 0;
                assert!(is_reported || !lost, "bit {bit}: {damage:?}");
            }
            Err(RecordingError::NotARecording) => assert!(bit < 64, "bit {bit}"),
            Err(RecordingError::Start) => assert!((64..80).contains(&bit), "bit {bit}"),
            Err(RecordingError::Head) => {}
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
}

#[test]
fn a_false_length_allocates_no_memory() {
    let mut bytes = write(false);
    let lie = ChunkHeader {
        kind: kind::LOG,
        codec: codec::ZSTD,
        stored: chunk::MAX_PAYLOAD,
        raw: chunk::MAX_PAYLOAD,
        items: u32::MAX,
        records: u32::MAX,
        ..ChunkHeader::default()
    };
    bytes.extend(lie.to_bytes());
    bytes.extend([0; 100]);
    let (ticks, damage) = read(&bytes).expect("a recording");
    assert_eq!(ticks, written_ticks());
    assert_eq!(damage.incomplete_bytes, CHUNK_HEADER_LEN as u64 + 100);
}

#[test]
fn unknown_chunks_and_stray_bytes_are_skipped_and_counted() {
    let mut writer = Writer::new(Vec::new(), &head()).expect("memory");
    writer.write(&log(&[1, 2, 3])).expect("memory");
    let unknown = ChunkHeader {
        kind: 200,
        ..ChunkHeader::default()
    };
    writer
        .write(&Chunk::new(unknown, vec![7; 50]).expect("a short chunk"))
        .expect("memory");
    let rubbish = b"TrcTrcKTr rubbish that is longer than the head of a chunk TrcK TrcK TrcK TrcK.";
    writer.get_mut().extend(rubbish);
    writer.write(&log(&[4])).expect("memory");
    writer.write(&log(&[5, 6])).expect("memory");
    let bytes = std::mem::take(writer.get_mut());
    let (ticks, damage) = read(&bytes).expect("a recording");
    assert_eq!(ticks, written_ticks());
    assert_eq!(
        (damage.unknown_chunks, damage.stray_bytes),
        (1, rubbish.len() as u64)
    );
}

#[test]
fn each_kind_of_unreadable_input_has_its_own_error() {
    assert!(matches!(read(b""), Err(RecordingError::Empty)));
    assert!(matches!(
        read(b"{\"type\":\"flow\"}"),
        Err(RecordingError::NotARecording)
    ));
    let mut damaged = write(true);
    damaged[8] += 1;
    assert!(matches!(read(&damaged), Err(RecordingError::Start)));
    let mut more = write(true);
    more[10] = MINOR.to_le_bytes()[0] + 1;
    assert_eq!(read(&more).expect("a recording").0, written_ticks());
    for records in [0, RECORDS + 1] {
        let other = Head { records, ..head() };
        let bytes = Writer::new(Vec::new(), &other)
            .and_then(Writer::finish)
            .expect("memory");
        assert!(matches!(read(&bytes), Err(RecordingError::NewRecords(found)) if found == records));
    }
    let mut text = Writer::new(Vec::new(), &head()).expect("memory");
    let bytes = std::mem::take(text.get_mut());
    let mut wrong = bytes[..PREAMBLE].to_vec();
    let not_json = ChunkHeader {
        kind: kind::HEAD,
        ..ChunkHeader::default()
    };
    Chunk::new(not_json, b"not JSON".to_vec())
        .expect("a short chunk")
        .write(&mut wrong)
        .expect("memory");
    assert!(matches!(read(&wrong), Err(RecordingError::HeadJson(_))));
}

/// A recording with `times` chunks, each of `raw` zeros.
fn packed(raw: usize, times: usize) -> Vec<u8> {
    let chunk_head = ChunkHeader {
        kind: kind::LOG,
        ..ChunkHeader::default()
    };
    let chunk = Chunk::new(chunk_head, vec![0; raw]).expect("a short chunk");
    let mut writer = Writer::new(Vec::new(), &head()).expect("memory");
    for _ in 0..times {
        writer.write(&chunk).expect("memory");
    }
    std::mem::take(writer.get_mut())
}

#[test]
fn a_small_file_cannot_unpack_to_more_than_the_limit() {
    const RAW: usize = 20 << 20;
    let bytes = packed(RAW, 20);
    assert!(bytes.len() < 100_000, "{}", bytes.len());
    let (chunks, damage) = read(&bytes).expect("a recording");
    let limit = MAX_UNPACKED.max(MAX_RATIO * bytes.len() as u64);
    assert!((chunks.len() * RAW) as u64 <= limit, "{} chunks", chunks.len());
    assert!(chunks.len() >= 3 && damage.damaged_chunks > 0, "{damage:?}");
    assert_eq!(damage.damaged_chunks + damage.chunks, 20);
}

#[test]
fn a_head_above_the_size_limit_is_rejected() {
    let mut text = serde_json::to_vec(&head()).expect("a head");
    text.resize(usize::try_from(MAX_HEAD).expect("a small number") + 1, b' ');
    let mut bytes = write(true)[..PREAMBLE].to_vec();
    let head = ChunkHeader {
        kind: kind::HEAD,
        ..ChunkHeader::default()
    };
    let chunk = Chunk::new(head, text).expect("a short chunk");
    chunk.write(&mut bytes).expect("memory");
    assert!(matches!(read(&bytes), Err(RecordingError::Head)));
}

#[test]
fn a_damaged_format_number_is_not_a_newer_version() {
    let good = write(true);
    let with = |major: u16, tracer: &str| {
        let mut head = Reader::new(&good[..]).expect("a recording").head().clone();
        tracer.clone_into(&mut head.tracer);
        let json = serde_json::to_vec(&head).expect("JSON");
        let header = ChunkHeader {
            kind: kind::HEAD,
            ..ChunkHeader::default()
        };
        let mut bytes = good[..PREAMBLE].to_vec();
        bytes[8..10].copy_from_slice(&major.to_le_bytes());
        let chunk = Chunk::new(header, json).expect("a short payload");
        chunk.write(&mut bytes).expect("memory has room");
        bytes
    };
    let error = |bytes: &[u8]| Reader::new(bytes).expect_err("unreadable").to_string();
    assert!(error(&with(3, env!("CARGO_PKG_VERSION"))).contains("first bytes are damaged"));
    assert!(error(&with(3, "999.0.0")).contains("format 3 is newer"));
    assert!(error(&with(3, "nobody")).contains("format 3 is unknown"));
}
