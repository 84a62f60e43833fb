//! Writes a growing file to the disk at intervals, on a thread of its own: a slow disk must not hold up tracing.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// The most recorded time that a power cut can cost, besides the chunk that is not written yet.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// The syncing thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct DiskSync {
    files: mpsc::Sender<File>,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl DiskSync {
    /// Starts syncing this file.
    pub(super) fn start(file: File) -> io::Result<Self> {
        Self::start_with(file, INTERVAL, File::sync_data)
    }

    fn start_with(
        file: File,
        interval: Duration,
        sync: impl Fn(&File) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (files, next) = mpsc::channel();
        let failed = Arc::new(Mutex::new(None));
        let failure = Arc::clone(&failed);
        thread::Builder::new()
            .name("disk-sync".to_owned())
            .spawn(move || {
                let mut file = file;
                loop {
                    match next.recv_timeout(interval) {
                        Ok(next) => file = next,
                        Err(RecvTimeoutError::Timeout) => {
                            if let Err(error) = sync(&file) {
                                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                            }
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        Ok(Self { files, failed })
    }

    /// Continues with another file; the previous one is complete and synced.
    pub(super) fn switch_to(&self, file: File) {
        // The thread lives as long as this.
        let _ = self.files.send(file);
    }

    /// The error of a sync that failed.
    pub(super) fn check(&self) -> io::Result<()> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::MetadataExt as _,
        sync::mpsc::{RecvTimeoutError, channel},
    };

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(20);
    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn the_current_file_is_synced_again_and_again_until_the_end() {
        let (sender, synced) = channel();
        let sync = move |file: &File| {
            let _ = sender.send(file.metadata()?.ino());
            Ok(())
        };
        let files = [(); 2].map(|()| tempfile::tempfile().expect("a file"));
        let [first, second] = [&files[0], &files[1]].map(|file| file.metadata().expect("a file").ino());
        let [one, two] = files;
        let disk = DiskSync::start_with(one, INTERVAL, sync).expect("a thread");
        for _ in 0..2 {
            assert_eq!(synced.recv_timeout(PATIENCE), Ok(first));
        }
        disk.switch_to(two);
        let switched = synced.iter().take(1_000).find(|&file| file == second);
        assert_eq!(switched, Some(second));
        drop(disk);
        while synced.recv_timeout(PATIENCE).is_ok() {}
        assert_eq!(synced.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn an_error_is_reported_once() {
        let file = tempfile::tempfile().expect("a file");
        let fail = |_: &File| Err(io::ErrorKind::StorageFull.into());
        let disk = DiskSync::start_with(file, INTERVAL, fail).expect("a thread");
        let error = loop {
            if let Err(error) = disk.check() {
                break error;
            }
            thread::sleep(INTERVAL);
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
