//! Reads records from the ring buffer in a tokio runtime.

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// The reading end of the ring buffer. There must be only one.
pub struct Ring {
    buffer: AsyncFd<RingBuf<MapData>>,
}

impl Ring {
    /// Registers the ring buffer with the current tokio runtime. Panics outside of one.
    #[allow(
        unsafe_code,
        reason = "tokio cannot see that aya's ring buffer keeps its descriptor open"
    )]
    pub fn new(buffer: RingBuf<MapData>) -> std::io::Result<Self> {
        // SAFETY: a `RingBuf` owns its map's descriptor, gives the same one each time and closes it when dropped, and the
        // `AsyncFd` never outlives it, because it owns the `RingBuf`.
        let buffer = unsafe { AsyncFd::register_with_interest(buffer, Interest::READABLE) }?;
        Ok(Self { buffer })
    }

    /// Waits until there are records to read.
    pub async fn readable(&mut self) -> std::io::Result<()> {
        let mut guard = self.buffer.readable_mut().await?;
        // Records that arrive from here on wake the next wait: the caller drains after this.
        guard.clear_ready();
        Ok(())
    }

    /// Passes every available record to `take`. Returns their number.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8])) -> u64 {
        let mut count = 0;
        while let Some(record) = self.buffer.get_mut().next() {
            take(&record);
            count += 1;
        }
        count
    }
}
