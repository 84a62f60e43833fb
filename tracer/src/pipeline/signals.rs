//! Signals: the first shuts tracing down cleanly, the second ends it at once.
//!
//! They are handled on their own thread: a reader that stalls can block the printing thread forever.

use std::{io, sync::mpsc, thread};

use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::confine::tracing;

/// The status that a shell reports for a program ended by SIGINT.
const INTERRUPTED: i32 = 130;

/// The signals that end tracing.
pub struct Signals {
    first: oneshot::Receiver<()>,
}

impl Signals {
    /// Handles SIGINT, SIGTERM, SIGHUP and SIGQUIT from now on: the first one stops tracing cleanly, the second one calls
    /// `on_second` and ends the process.
    pub fn listen(on_second: fn()) -> io::Result<Self> {
        let (sender, first) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let mut listener = {
            let _entered = runtime.enter();
            Listener::new()?
        };
        let (confined, is_confined) = mpsc::channel();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            // The thread exists before the process is confined, and needs no privilege.
            tracing::give_up_all();
            let _ = confined.send(());
            runtime.block_on(async {
                listener.any().await;
                // Nobody listens if tracing has already ended.
                let _ = sender.send(());
                listener.any().await;
                on_second();
                // The kernel detaches every hook when the process is gone.
                std::process::exit(INTERRUPTED);
            });
        })?;
        // Fails only if the thread is gone already.
        let _ = is_confined.recv();
        Ok(Self { first })
    }

    /// Waits for the first signal, on a thread that has nothing else to do.
    pub fn wait(self) {
        let _ = self.first.blocking_recv();
    }

    /// Waits for the first signal.
    pub async fn first(&mut self) {
        let _ = (&mut self.first).await;
    }
}

struct Listener {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
}

impl Listener {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}
