//! Converts times: from the kernel's monotonic clock to the wall clock, and to text.

use jiff::{SignedDuration, Timestamp};

/// Turns the kernel's monotonic time into wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Timestamp,
    monotonic_ns: u64,
}

impl Clock {
    /// Creates a clock from readings of both clocks at the same moment.
    #[must_use]
    pub const fn new(wall: Timestamp, monotonic_ns: u64) -> Self {
        Self { wall, monotonic_ns }
    }

    /// The wall-clock time of a monotonic reading, in nanoseconds. Clamped at the calendar's end.
    #[must_use]
    pub fn at(&self, monotonic_ns: u64) -> Timestamp {
        let nanos = i128::from(monotonic_ns) - i128::from(self.monotonic_ns);
        i64::try_from(nanos)
            .ok()
            .and_then(|nanos| self.wall.checked_add(SignedDuration::from_nanos(nanos)).ok())
            .unwrap_or(self.wall)
    }
}

/// A time as RFC 3339 in UTC with nine digits of the second.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// Nanoseconds as milliseconds, for people and JSON.
#[must_use]
#[allow(
    clippy::cast_precision_loss,
    reason = "milliseconds with a fraction; no flow lasts 2^53 ns"
)]
pub fn milliseconds(nanos: u64) -> f64 {
    (nanos / 1_000) as f64 / 1_000.0
}
