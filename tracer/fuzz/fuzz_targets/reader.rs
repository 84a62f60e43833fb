//! Arbitrary bytes, read as a recording.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tracer::recording::index;

fuzz_target!(|bytes: &[u8]| {
    tracer_fuzz::observers::play(bytes);
    let _ = index::read(&mut Cursor::new(bytes));
});
