//! A process named kube-proxy that reserves NodePorts, as kube-proxy before 1.24 does: it listens and never accepts.
//!
//! A step starts it with `ln -s /proc/1/exe /tmp/kube-proxy; /tmp/kube-proxy 30080 &`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{Uid, setuid};
use socket2::{Domain, Socket, Type};

/// The backlog of Go's `net.Listen`, unless net.core.somaxconn is lower.
const BACKLOG: i32 = 4096;

/// The user that it runs as.
const NOBODY: u32 = 65_534;

/// Listens on these ports of both families until it is killed. Returns only if that fails.
pub(super) fn ports(ports: impl Iterator<Item = String>) -> Result<()> {
    let mut sockets = Vec::new();
    for port in ports {
        let port: u16 = port.parse().with_context(|| format!("`{port}` is not a port"))?;
        sockets.push(listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?);
        sockets.push(listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?);
    }
    // An ordinary user's files in /proc are closed to a root without privileges: a confined tracer has to see them.
    setuid(Uid::from_raw(NOBODY)).context("cannot become another user")?;
    loop {
        thread::sleep(Duration::from_hours(1));
    }
}

fn listen(at: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).context("cannot open a socket")?;
    if at.is_ipv6() {
        socket.set_only_v6(true).context("cannot set up a socket")?;
    }
    socket
        .bind(&at.into())
        .and_then(|()| socket.listen(BACKLOG))
        .with_context(|| format!("cannot listen on {at}"))?;
    Ok(socket)
}
