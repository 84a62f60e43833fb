//! The ring buffer, as a stream of records for tokio.

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// The user half's end of the ring buffer. There is one reader only.
pub struct Ring {
    buffer: AsyncFd<RingBuf<MapData>>,
}

impl Ring {
    /// Must be called inside a tokio runtime.
    #[allow(
        unsafe_code,
        reason = "tokio cannot see that aya's ring buffer keeps its descriptor open"
    )]
    pub fn new(buffer: RingBuf<MapData>) -> std::io::Result<Self> {
        // SAFETY: a `RingBuf` owns its map's descriptor, gives the same one each time and closes it when dropped,
        // which the `AsyncFd` outlives in no case, as it owns the `RingBuf`.
        let buffer = unsafe { AsyncFd::register_with_interest(buffer, Interest::READABLE) }?;
        Ok(Self { buffer })
    }

    /// Waits until there are records.
    pub async fn readable(&mut self) -> std::io::Result<()> {
        let mut guard = self.buffer.readable_mut().await?;
        // What arrives from here on wakes the next wait: the caller drains after this.
        guard.clear_ready();
        Ok(())
    }

    /// Hands every record that is there to `take` and gives their number.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8])) -> u64 {
        let mut count = 0;
        while let Some(record) = self.buffer.get_mut().next() {
            take(&record);
            count += 1;
        }
        count
    }
}
