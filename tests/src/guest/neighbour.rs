//! Neighbour discovery of IPv6, over before anybody connects.
//!
//! A new link takes its time until both ends answer for their addresses, and who asks too early asks again only a second
//! later. On a real node all that was long ago.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cancel::Cancel;
use super::netns::Netns;
use crate::scenario::address;

/// How long discovery may take.
const DISCOVERED: Duration = Duration::from_secs(10);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_millis(100);

/// The port that nobody listens on (RFC 863).
const DISCARD: u16 = 9;

/// Waits until a netns and its neighbour know each other, if they speak IPv6.
pub(super) fn meet(netns: &Netns, neighbour: IpAddr, cancel: &Cancel) -> Result<()> {
    if neighbour.is_ipv4() {
        return Ok(());
    }
    cancel.doing(format!("waiting until {} knows {neighbour}", netns.name()))?;
    let met = netns.run(|| cancel.wait_until(DISCOVERED, || answers(neighbour)))?;
    ensure!(met, "{} does not learn where {neighbour} is", netns.name());
    Ok(())
}

/// Whether a datagram to a port that nobody listens on is refused: then each end has found the other one.
fn answers(neighbour: IpAddr) -> Result<bool> {
    let socket = UdpSocket::bind((address::any(neighbour), 0)).context("cannot make a socket")?;
    socket
        .set_read_timeout(Some(ANSWER))
        .context("cannot set up a socket")?;
    let asked = socket
        .connect(SocketAddr::new(neighbour, DISCARD))
        .and_then(|()| socket.send(&[0]))
        .and_then(|_| socket.recv(&mut [0]));
    Ok(asked.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
}
