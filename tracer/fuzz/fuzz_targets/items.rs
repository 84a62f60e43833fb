//! Arbitrary items in a recording with correct lengths and checksums.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use tracer::recording::item::ITEM_HEADER_LEN;

fuzz_target!(|bytes: &[u8]| {
    // Seeds are recordings.
    let payload = tracer_fuzz::items(bytes).unwrap_or_else(|| bytes.to_vec());
    // Facts that a second chunk repeats are a separate case.
    let (first, second) = payload.split_at(cut(&payload));
    tracer_fuzz::observers::play(&tracer_fuzz::recording(&[first, second]));
});

/// The start and end of each item.
fn places(payload: &[u8]) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(front) = payload.get(at..at + ITEM_HEADER_LEN) {
        let length = u32::from_le_bytes([front[1], front[2], front[3], front[4]]) as usize;
        let end = at
            .saturating_add(ITEM_HEADER_LEN)
            .saturating_add(length)
            .min(payload.len());
        places.push((at, end));
        at = end;
    }
    places
}

/// The start of the middle item, where the payload is split.
fn cut(payload: &[u8]) -> usize {
    let places = places(payload);
    places.get(places.len() / 2).map_or(0, |(at, _)| *at)
}

// Changes one item, and leaves the others and their lengths as they are.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut payload = tracer_fuzz::items(&data[..size]).unwrap_or_else(|| data[..size].to_vec());
    let places = places(&payload);
    if places.is_empty() || seed % 16 == 0 {
        let length = payload.len().min(max_size);
        data[..length].copy_from_slice(&payload[..length]);
        return fuzzer_mutate(data, length, max_size);
    }
    let seed = seed as usize / 16;
    let (begin, end) = places[seed % places.len()];
    let item = payload[begin..end].to_vec();
    let other = places[seed / 7 % places.len()];
    let new = match seed % 5 {
        // Removed, doubled, or replaced by another one.
        0 => Vec::new(),
        1 => [&item[..], &item[..]].concat(),
        2 => payload[other.0..other.1].to_vec(),
        _ => {
            let mut body = item[ITEM_HEADER_LEN.min(item.len())..].to_vec();
            let length = body.len();
            body.resize(length + 64, 0);
            let most = body.len();
            let length = fuzzer_mutate(&mut body, length, most);
            let mut new = vec![item[0]];
            new.extend(u32::try_from(length).expect("a short item").to_le_bytes());
            new.extend(&body[..length]);
            new
        }
    };
    payload.splice(begin..end, new);
    let length = payload.len().min(max_size);
    data[..length].copy_from_slice(&payload[..length]);
    length
});
