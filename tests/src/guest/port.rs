//! The serial port on which the guest sends its messages.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};

use crate::protocol::{Message, PORT};

/// The port; clones write whole lines to the same one. Sending never blocks. The port is slow, and a blocked
/// sender would block the threads before it, and finally tracer.
#[derive(Debug, Clone)]
pub(super) struct Port(Sender<Request>);

/// A request to the port's thread.
#[derive(Debug)]
enum Request {
    Write(String),
    /// Reply once everything sent before has left the machine.
    Drain(Sender<()>),
}

impl Port {
    /// Opens the port and disables all terminal processing.
    pub(super) fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(PORT)
            .with_context(|| format!("cannot open {PORT}"))?;
        let mut settings = tcgetattr(&file).with_context(|| format!("{PORT} is not a serial port"))?;
        cfmakeraw(&mut settings);
        tcsetattr(&file, SetArg::TCSANOW, &settings).with_context(|| format!("cannot set up {PORT}"))?;
        let (requests, received) = mpsc::channel();
        thread::spawn(move || serve(file, &received));
        Ok(Self(requests))
    }

    /// Sends a message.
    pub(super) fn send(&self, message: &Message) {
        // The receiving thread lives as long as the guest.
        let _ = self.0.send(Request::Write(message.to_line() + "\n"));
    }

    /// Sends a note for the user.
    pub(super) fn note(&self, text: impl Into<String>) {
        self.send(&Message::Note { text: text.into() });
    }

    /// Waits until everything sent so far has left the machine.
    pub(super) fn drain(&self) {
        let (drained, is_drained) = mpsc::channel();
        let _ = self.0.send(Request::Drain(drained));
        let _ = is_drained.recv();
    }
}

/// Handles requests. Failures can only go to the console.
fn serve(mut file: File, requests: &Receiver<Request>) {
    for request in requests {
        match request {
            Request::Write(line) => {
                if let Err(error) = file.write_all(line.as_bytes()) {
                    eprintln!("lab-guest: cannot write to {PORT}: {error}");
                }
            }
            Request::Drain(drained) => {
                if let Err(error) = tcdrain(&file) {
                    eprintln!("lab-guest: cannot wait for {PORT}: {error}");
                }
                let _ = drained.send(());
            }
        }
    }
}
