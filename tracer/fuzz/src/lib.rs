//! Shared by the targets: recordings around payloads, records of the kernel, facts about the node.

pub mod facts;
pub mod observers;
pub mod records;

use tracer::{
    decode::record::RECORDS,
    finding::head::Head,
    recording::{
        MAGIC, MAJOR, MINOR, PREAMBLE,
        chunk::{Chunk, ChunkHeader, kind},
        reader::Reader,
    },
};

/// The head of a recording.
pub fn head() -> Head {
    Head {
        records: RECORDS,
        session: "fuzz".to_owned(),
        patience_ns: 3_000_000_000,
        ..Head::default()
    }
}

/// A recording whose chunks have these payloads, with correct lengths and checksums.
pub fn recording(payloads: &[&[u8]]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(MAJOR.to_le_bytes());
    out.extend(MINOR.to_le_bytes());
    out.resize(PREAMBLE, 0);
    let text = serde_json::to_vec(&head()).expect("a head");
    write_chunk(kind::HEAD, &text, &mut out);
    for payload in payloads {
        write_chunk(kind::LOG, payload, &mut out);
    }
    out
}

fn write_chunk(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    let header = ChunkHeader {
        kind,
        next_flow: 1,
        ..ChunkHeader::default()
    };
    let chunk = Chunk::new(header, payload.to_vec()).expect("a short payload");
    chunk.write(out).expect("memory has room");
}

/// All items of a recording, as encoded in its payloads; `None` if the bytes are not a recording.
pub fn items(recording: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(recording).ok()?;
    let mut out = Vec::new();
    while let Ok(Some(log)) = reader.next_log() {
        for item in log.items().flatten() {
            item.write(&mut out);
        }
    }
    Some(out)
}
