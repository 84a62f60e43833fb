//! The serial port on which the guest answers.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};

use crate::protocol::{Message, PORT};

/// The port; clones write to the same one, whole lines at a time.
#[derive(Debug, Clone)]
pub(super) struct Port(Arc<Mutex<File>>);

impl Port {
    /// Opens the port and switches off all that a terminal would do to our lines.
    pub(super) fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(PORT)
            .with_context(|| format!("cannot open {PORT}"))?;
        let mut settings = tcgetattr(&file).with_context(|| format!("{PORT} is no serial port"))?;
        cfmakeraw(&mut settings);
        tcsetattr(&file, SetArg::TCSANOW, &settings).with_context(|| format!("cannot set up {PORT}"))?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// Sends a message. If that fails there is nobody left to tell but the console.
    pub(super) fn send(&self, message: &Message) {
        let line = message.to_line() + "\n";
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            eprintln!("lab-guest: cannot write to {PORT}: {error}");
        }
    }

    /// Sends a sentence for people.
    pub(super) fn note(&self, text: impl Into<String>) {
        self.send(&Message::Note { text: text.into() });
    }

    /// Waits until all that was sent has left the machine.
    pub(super) fn drain(&self) {
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = tcdrain(&*file) {
            eprintln!("lab-guest: cannot wait for {PORT}: {error}");
        }
    }
}
