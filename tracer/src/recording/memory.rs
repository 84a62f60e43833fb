//! The memory that reading recordings takes, and its limit: a small file can unpack to any size.
//!
//! The allocator counts. Readers check before each step that there is room for it ([`has_room`]), so that reading ends with
//! a message and keeps everything read before.

#![allow(unsafe_code, reason = "an allocator that counts is unsafe by its interface")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{self, Read},
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
};

/// The memory that reading recordings may take, unless another limit is set, in bytes.
pub const DEFAULT_LIMIT: u64 = 256 << 20;
/// The most that one step may take before the next check: an unpacked chunk, and a fact while it is parsed and applied.
const STEP: i64 = 96 << 20;
/// The most that a single item may take while it is parsed. A vector that grows beyond it can take twice as much.
const ITEM: i64 = 16 << 20;
/// Shorter texts need no check while they are parsed: a parsed list takes at most some 30 times the memory of its text.
pub(super) const SMALL_TEXT: usize = 64 << 10;
/// Each thread adds what it allocated to the total from this size on.
const BATCH: i64 = 64 << 10;

/// Bytes allocated now, except for less than [`BATCH`] of each thread.
static LIVE: AtomicI64 = AtomicI64::new(0);
static LIMIT: AtomicU64 = AtomicU64::new(DEFAULT_LIMIT);

// Neither needs an allocation or a destructor.
thread_local! {
    /// What this thread has not added to [`LIVE`] yet.
    static UNCOUNTED: Cell<i64> = const { Cell::new(0) };
    /// What this thread allocated, less what it freed.
    static OWN: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, with a count.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize, sign: i64) {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_mul(sign);
    // Not accessible while a thread ends.
    let _ = OWN.try_with(|own| own.set(own.get().saturating_add(bytes)));
    let _ = UNCOUNTED.try_with(|uncounted| {
        let sum = uncounted.get().saturating_add(bytes);
        if (-BATCH..=BATCH).contains(&sum) {
            uncounted.set(sum);
        } else {
            LIVE.fetch_add(sum, Ordering::Relaxed);
            uncounted.set(0);
        }
    });
}

// SAFETY: every call is passed on to the system's allocator unmodified; counting allocates nothing and does not unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Bytes allocated now.
fn live() -> i64 {
    let uncounted = UNCOUNTED.try_with(Cell::get).unwrap_or(0);
    LIVE.load(Ordering::Relaxed).saturating_add(uncounted)
}

/// What this thread allocated, less what it freed.
fn own() -> i64 {
    OWN.try_with(Cell::get).unwrap_or(0)
}

/// Sets the memory that reading may take, in bytes.
pub fn set_limit(bytes: u64) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// The memory that reading may take, in bytes.
#[must_use]
pub fn limit() -> u64 {
    LIMIT.load(Ordering::Relaxed)
}

/// Whether there is room for the next step.
#[must_use]
pub fn has_room() -> bool {
    let limit = i64::try_from(limit()).unwrap_or(i64::MAX);
    live() <= limit.saturating_sub(STEP).max(limit / 2)
}

/// A text that ends with an error once its parsed form takes too much memory.
pub(super) struct Guarded<'a> {
    text: &'a [u8],
    begun: i64,
}

impl<'a> Guarded<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, begun: own() }
    }
}

impl Read for Guarded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if own() > self.begun + ITEM {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.text.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted_until_it_is_freed() {
        const SIZE: usize = 64 << 20;
        let before = live();
        let mut memory: Vec<u8> = Vec::with_capacity(SIZE);
        let one = live() - before;
        memory.reserve_exact(2 * SIZE);
        let two = live() - before;
        drop(memory);
        let none = live() - before;
        // Other tests run meanwhile.
        let near = |bytes: i64, expected: i64| (bytes - expected).abs() < 24 << 20;
        assert!(
            near(one, 64 << 20) && near(two, 128 << 20) && near(none, 0),
            "{one} {two} {none}"
        );
    }

    #[test]
    fn a_text_ends_once_too_much_is_made_of_it() {
        let text = format!("[{}[]]", "[],".repeat(4 << 20));
        let mut parsed =
            serde_json::Deserializer::from_reader(io::BufReader::new(Guarded::new(text.as_bytes())));
        let lists = <Vec<Vec<u64>> as serde::Deserialize>::deserialize(&mut parsed);
        assert!(lists.is_err_and(|error| error.is_io()));
    }
}
