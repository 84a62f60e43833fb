use std::io::Cursor;

use super::*;
use crate::decode::record::RECORDS;
use crate::recording::{
    MINOR,
    chunk::{self, codec},
    index,
    item::Item,
    writer::{Builder, Writer},
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

/// Chunk by chunk, the times of its ticks.
type Told = Vec<Vec<u64>>;

fn told() -> Told {
    vec![vec![1, 2, 3], vec![4], vec![5, 6]]
}

fn log(ticks: &[u64]) -> Sealed {
    let mut builder = Builder::new(1);
    for &tick in ticks {
        builder.add(&Item::Tick(tick));
    }
    builder.seal(1).expect("a short chunk")
}

fn write(finish: bool) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &head()).expect("memory");
    for ticks in told() {
        writer.write(&log(&ticks)).expect("memory");
    }
    if finish {
        writer.finish().expect("memory")
    } else {
        std::mem::take(writer.get_mut())
    }
}

fn read(bytes: &[u8]) -> Result<(Told, Damage), TraceError> {
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

const WHOLE: Damage = Damage {
    torn: 0,
    ended: true,
    broken_chunks: 0,
    strange_bytes: 0,
    unknown_chunks: 0,
    chunks: 3,
};

#[test]
fn a_recording_is_read_as_it_was_written() {
    let bytes = write(true);
    assert_eq!(read(&bytes).expect("a recording"), (told(), WHOLE));
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
    for (entry, ticks) in index.iter().zip(told()) {
        let at = usize::try_from(entry.at).expect("a short recording");
        let head = bytes[at..at + HEAD_LEN].try_into().expect("a whole head");
        assert_eq!(ChunkHead::from_bytes(head), Some(log(&ticks).head));
    }
}

#[test]
fn one_that_was_cut_anywhere_is_read_up_to_there() {
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
                    ticks.len() + 1 >= begun && ticks == told()[..ticks.len()],
                    "cut at {end}"
                );
                assert!(!damage.ended && damage.strange_bytes == 0, "cut at {end}");
                assert_eq!(damage.torn + whole(cut), end as u64, "cut at {end}");
            }
            Err(TraceError::Empty | TraceError::Cut) => assert_eq!(begun, 0, "cut at {end}"),
            Err(other) => panic!("cut at {end}: {other}"),
        }
    }
    let (ticks, damage) = read(&write(false)).expect("a recording");
    assert_eq!(
        (ticks, damage),
        (
            told(),
            Damage {
                ended: false,
                ..WHOLE
            }
        )
    );
}

/// Bytes of whole chunks, and what stands before them.
fn whole(bytes: &[u8]) -> u64 {
    let mut at = PREAMBLE;
    while let Some(head) = bytes.get(at..at + HEAD_LEN) {
        let head = ChunkHead::from_bytes(head.try_into().expect("a whole head")).expect("no damage");
        let next = at + HEAD_LEN + head.stored as usize;
        if next > bytes.len() {
            break;
        }
        at = next;
    }
    at as u64
}

#[test]
fn a_bit_that_flips_costs_one_chunk_and_is_told() {
    let bytes = write(true);
    for bit in 0..8 * bytes.len() {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        match read(&wrong) {
            Ok((ticks, damage)) => {
                assert!(ticks.len() >= 2, "bit {bit}");
                assert!(ticks.iter().all(|ticks| told().contains(ticks)), "bit {bit}");
                // Four bytes of the preamble mean nothing, and of index and trailer only the kind is looked at here.
                let lost = ticks.len() < 3;
                let told = damage.broken_chunks + damage.strange_bytes + damage.torn > 0;
                assert!(told || !lost, "bit {bit}: {damage:?}");
            }
            Err(TraceError::NotARecording) => assert!(bit < 64, "bit {bit}"),
            Err(TraceError::TooNew(_)) => assert!((64..80).contains(&bit), "bit {bit}"),
            Err(TraceError::Head) => {}
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
}

#[test]
fn huge_lengths_take_no_memory() {
    let mut bytes = write(false);
    let lie = ChunkHead {
        kind: kind::LOG,
        codec: codec::ZSTD,
        stored: chunk::MOST,
        raw: chunk::MOST,
        items: u32::MAX,
        records: u32::MAX,
        ..ChunkHead::default()
    };
    bytes.extend(lie.to_bytes());
    bytes.extend([0; 100]);
    let (ticks, damage) = read(&bytes).expect("a recording");
    assert_eq!(ticks, told());
    assert_eq!(damage.torn, HEAD_LEN as u64 + 100);
}

#[test]
fn unknown_chunks_and_rubbish_are_left_out_and_counted() {
    let mut writer = Writer::new(Vec::new(), &head()).expect("memory");
    writer.write(&log(&[1, 2, 3])).expect("memory");
    let unknown = ChunkHead {
        kind: 200,
        ..ChunkHead::default()
    };
    writer
        .write(&Sealed::new(unknown, vec![7; 50]).expect("a short chunk"))
        .expect("memory");
    let rubbish = b"TrcTrcKTr rubbish that is longer than the head of a chunk TrcK TrcK TrcK TrcK.";
    writer.get_mut().extend(rubbish);
    writer.write(&log(&[4])).expect("memory");
    writer.write(&log(&[5, 6])).expect("memory");
    let bytes = std::mem::take(writer.get_mut());
    let (ticks, damage) = read(&bytes).expect("a recording");
    assert_eq!(ticks, told());
    assert_eq!(
        (damage.unknown_chunks, damage.strange_bytes),
        (1, rubbish.len() as u64)
    );
}

#[test]
fn what_is_no_recording_is_told_by_name() {
    assert!(matches!(read(b""), Err(TraceError::Empty)));
    assert!(matches!(
        read(b"{\"type\":\"flow\"}"),
        Err(TraceError::NotARecording)
    ));
    let mut newer = write(true);
    newer[8] += 1;
    assert!(matches!(read(&newer), Err(TraceError::TooNew(2))));
    let mut more = write(true);
    more[10] = MINOR.to_le_bytes()[0] + 1;
    assert_eq!(read(&more).expect("a recording").0, told());
    for records in [0, RECORDS + 1] {
        let other = Head { records, ..head() };
        let bytes = Writer::new(Vec::new(), &other)
            .and_then(Writer::finish)
            .expect("memory");
        assert!(matches!(read(&bytes), Err(TraceError::NewRecords(found)) if found == records));
    }
    let mut text = Writer::new(Vec::new(), &head()).expect("memory");
    let bytes = std::mem::take(text.get_mut());
    let mut wrong = bytes[..PREAMBLE].to_vec();
    let not_json = ChunkHead {
        kind: kind::HEAD,
        ..ChunkHead::default()
    };
    Sealed::new(not_json, b"not JSON".to_vec())
        .expect("a short chunk")
        .write(&mut wrong)
        .expect("memory");
    assert!(matches!(read(&wrong), Err(TraceError::HeadText(_))));
}

/// A chunk of these bytes, again and again, without keeping them.
fn packed(raw: usize, times: usize) -> Vec<u8> {
    let chunk_head = ChunkHead {
        kind: kind::LOG,
        ..ChunkHead::default()
    };
    let chunk = Sealed::new(chunk_head, vec![0; raw]).expect("a short chunk");
    let mut writer = Writer::new(Vec::new(), &head()).expect("memory");
    for _ in 0..times {
        writer.write(&chunk).expect("memory");
    }
    std::mem::take(writer.get_mut())
}

#[test]
fn a_small_file_cannot_unpack_to_more_than_it_may() {
    const RAW: usize = 20 << 20;
    let bytes = packed(RAW, 20);
    assert!(bytes.len() < 100_000, "{}", bytes.len());
    let (chunks, damage) = read(&bytes).expect("a recording");
    let most = MOST_UNPACKED.max(MOST_PACKED * bytes.len() as u64);
    assert!((chunks.len() * RAW) as u64 <= most, "{} chunks", chunks.len());
    assert!(chunks.len() >= 3 && damage.broken_chunks > 0, "{damage:?}");
    assert_eq!(damage.broken_chunks + damage.chunks, 20);
}

#[test]
fn a_head_that_is_too_long_is_no_head() {
    let mut text = serde_json::to_vec(&head()).expect("a head");
    text.resize(usize::try_from(MOST_HEAD).expect("a small number") + 1, b' ');
    let mut bytes = write(true)[..PREAMBLE].to_vec();
    let head = ChunkHead {
        kind: kind::HEAD,
        ..ChunkHead::default()
    };
    let chunk = Sealed::new(head, text).expect("a short chunk");
    chunk.write(&mut bytes).expect("memory");
    assert!(matches!(read(&bytes), Err(TraceError::Head)));
}
