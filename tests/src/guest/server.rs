//! The server of a pod: a listener, and what it does with connections.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use super::netns::Netns;
use crate::scenario::{Behaviour, address};

/// The time between a reply and its RST: long enough for the reply to be read first.
const RST_DELAY: Duration = Duration::from_millis(50);

/// How often a server that waits for clients checks whether it must stop.
const POLL_INTERVAL_MS: u16 = 50;

/// The backlog of a server that accepts connections.
const BACKLOG: i32 = 128;

/// The backlog of a server that never accepts: one connection may wait. With a backlog of 0 each handshake in
/// progress would exceed it, and every SYN would be answered with a cookie.
const SHORT_BACKLOG: i32 = 1;

/// This many connections leave one place in that server's accept queue.
const ALL_BUT_ONE: usize = 1;

/// A handshake within a pod that takes longer will not complete.
const HANDSHAKE: Duration = Duration::from_millis(500);

/// A listener and the thread that serves it. Dropping it closes the listener and all connections.
#[derive(Debug)]
pub(super) struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Connections that fill the accept queue.
    queue: Vec<TcpStream>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    listener: TcpListener,
    stop: AtomicBool,
    behaviour: Mutex<Behaviour>,
}

impl Server {
    /// Starts listening in a netns.
    pub(super) fn start(name: &str, netns: &Netns, at: SocketAddr, behaviour: Behaviour) -> Result<Self> {
        let listener = netns.run(|| {
            let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
            listener
                .set_nonblocking(true)
                .context("cannot set up the listener")?;
            Ok(listener)
        })?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            listener,
            stop: AtomicBool::new(false),
            behaviour: Mutex::new(behaviour),
        });
        // The listener stays in the netns it was created in, whatever the netns of its thread.
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve()
        });
        let mut server = Self {
            shared,
            thread: Some(thread),
            queue: Vec::new(),
        };
        server.behave(netns, behaviour)?;
        Ok(server)
    }

    /// Changes its behaviour.
    pub(super) fn behave(&mut self, netns: &Netns, behaviour: Behaviour) -> Result<()> {
        // From here on the server accepts nothing it should not accept.
        *self.shared.lock() = behaviour;
        self.queue.clear();
        let backlog = if accepts(behaviour) {
            BACKLOG
        } else {
            SHORT_BACKLOG
        };
        SockRef::from(&self.shared.listener)
            .listen(backlog)
            .context("cannot change the backlog")?;
        match behaviour {
            Behaviour::AcceptFull => self.queue = netns.run(|| self.shared.fill_accept_queue())?,
            Behaviour::AcceptLast => self.queue = netns.run(|| self.shared.connect_within(ALL_BUT_ONE))?,
            _ => {}
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("lab-guest: the server of {} panicked", self.shared.name);
        }
    }
}

/// Whether a server with this behaviour accepts connections.
const fn accepts(behaviour: Behaviour) -> bool {
    !matches!(behaviour, Behaviour::AcceptFull | Behaviour::AcceptLast)
}

impl Shared {
    /// Connects from within the pod until the accept queue is full.
    fn fill_accept_queue(&self) -> Result<Vec<TcpStream>> {
        /// More than fit in the queue, with a margin for kernels that count differently.
        const MAX_CONNECTIONS: usize = 8;
        let queue = self.connect_within(MAX_CONNECTIONS)?;
        ensure!(
            queue.len() < MAX_CONNECTIONS,
            "the accept queue of {} does not fill",
            self.name
        );
        Ok(queue)
    }

    /// Connects from within the pod this many times, or until a connection fails.
    fn connect_within(&self, count: usize) -> Result<Vec<TcpStream>> {
        let mut to = self
            .listener
            .local_addr()
            .context("the listener has no address")?;
        to.set_ip(address::loopback(to.ip()));
        let connect = |_| TcpStream::connect_timeout(&to, HANDSHAKE).ok();
        Ok((0..count).map_while(connect).collect())
    }

    fn serve(&self) {
        let mut held = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let accepted = {
                // Locked during accept(), so that a behaviour that never accepts applies from the moment it
                // is set.
                let behaviour = self.lock();
                accepts(*behaviour).then(|| self.listener.accept())
            };
            match accepted {
                None => thread::sleep(Duration::from_millis(POLL_INTERVAL_MS.into())),
                Some(Ok((stream, _))) => {
                    if let Err(error) = self.answer(stream, &mut held) {
                        // The client may be gone already; it reports its own outcome.
                        eprintln!("lab-guest: {}: cannot answer a client: {error}", self.name);
                    }
                }
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                    let mut wait = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut wait, PollTimeout::from(POLL_INTERVAL_MS));
                }
                // The client left before it was accepted.
                Some(Err(_)) => {}
            }
        }
    }

    fn answer(&self, mut stream: TcpStream, held: &mut Vec<TcpStream>) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.write_all(format!("{}\n", self.name).as_bytes())?;
        let behaviour = *self.lock();
        match behaviour {
            Behaviour::Hold => held.push(stream),
            Behaviour::Rst => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                thread::spawn(move || {
                    thread::sleep(RST_DELAY);
                    drop(stream);
                });
            }
            _ => drop(stream),
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
