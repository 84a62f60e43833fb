//! IPv6 neighbour discovery, completed before the first connection.
//!
//! On a new link it takes a while until both ends answer neighbour solicitations, and an early solicitation
//! is retried only a second later. On a real node, all of this is over long before.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cancel::Cancel;
use super::netns::Netns;
use crate::scenario::address;

/// How long discovery may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);

/// How long one probe waits for its answer.
const PROBE_LIMIT: Duration = Duration::from_millis(100);

/// The discard port, on which nothing listens (RFC 863).
const DISCARD: u16 = 9;

/// Waits until a netns and its IPv6 neighbour have resolved each other; returns at once for IPv4.
pub(super) fn resolve_ipv6(netns: &Netns, neighbour: IpAddr, cancel: &Cancel) -> Result<()> {
    if neighbour.is_ipv4() {
        return Ok(());
    }
    cancel.begin(format!("waiting for {netns} to resolve {neighbour}"))?;
    resolve(netns, neighbour, cancel)
}

/// Waits until a netns has resolved its neighbour, IPv4 or IPv6.
pub(super) fn resolve(netns: &Netns, neighbour: IpAddr, cancel: &Cancel) -> Result<()> {
    let resolved = netns.run(|| cancel.wait_until(RESOLVE_LIMIT, || is_resolved(neighbour)))?;
    ensure!(resolved, "{netns} cannot resolve {neighbour}");
    Ok(())
}

/// Whether a datagram to a closed port is refused: then both ends have resolved each other.
fn is_resolved(neighbour: IpAddr) -> Result<bool> {
    let socket = UdpSocket::bind((address::any(neighbour), 0)).context("cannot create a socket")?;
    socket
        .set_read_timeout(Some(PROBE_LIMIT))
        .context("cannot set up a socket")?;
    let reply = socket
        .connect(SocketAddr::new(neighbour, DISCARD))
        .and_then(|()| socket.send(&[0]))
        .and_then(|_| socket.recv(&mut [0]));
    Ok(reply.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
}
