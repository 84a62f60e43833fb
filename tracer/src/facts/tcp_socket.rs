//! Parses the TCP sockets in `/proc/net/tcp` and `/proc/net/tcp6`.

use std::net::{IpAddr, SocketAddr};

/// `TCP_ESTABLISHED`, `TCP_CLOSE_WAIT` and `TCP_LISTEN` (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

/// A TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// The node's end. An IPv4 address in a socket of IPv6 is shown as IPv4.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    state: u8,
    /// Inode number; 0 for a connection that no process has accepted.
    pub inode: u32,
}

impl TcpSocket {
    /// Parses one line (`get_tcp4_sock` and `get_tcp6_sock`, `net/ipv4/tcp_ipv4.c` and `net/ipv6/tcp_ipv6.c`). `None` for the
    /// heading.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let local = address(words.next()?)?;
        let remote = address(words.next()?)?;
        let state = u8::from_str_radix(words.next()?, 16).ok()?;
        // Queues, timer, retransmissions, user and timeout.
        let inode = words.nth(5)?.parse().ok()?;
        Some(Self {
            local,
            remote,
            state,
            inode,
        })
    }

    /// Whether it listens. The kernel prints all listeners before all other sockets.
    #[must_use]
    pub const fn is_listener(&self) -> bool {
        self.state == LISTEN
    }

    /// Whether it is an open connection that no process has accepted.
    #[must_use]
    pub const fn is_unaccepted(&self) -> bool {
        matches!(self.state, ESTABLISHED | CLOSE_WAIT) && self.inode == 0
    }
}

/// An address: words of four bytes, each printed as a number of the machine, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| {
        let digits = ip.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            IpAddr::from(<[u8; 16]>::try_from(words).ok()?)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sockets() {
        let listener = "   0: 0100007F:7580 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20001 1 0 100 0";
        let listener = TcpSocket::parse(listener).expect("a socket");
        assert!(listener.is_listener() && !listener.is_unaccepted());
        assert_eq!(
            (listener.local.to_string().as_str(), listener.inode),
            ("127.0.0.1:30080", 20_001)
        );
        let waiting = "   1: 0000000000000000FFFF00000100000A:7580 0000000000000000FFFF00000200000A:9C41 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4";
        let waiting = TcpSocket::parse(waiting).expect("a socket");
        assert!(waiting.is_unaccepted() && !waiting.is_listener());
        assert_eq!(
            (
                waiting.local.to_string().as_str(),
                waiting.remote.to_string().as_str()
            ),
            ("10.0.0.1:30080", "10.0.0.2:40001")
        );
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(TcpSocket::parse(heading), None);
        assert_eq!(TcpSocket::parse(""), None);
    }
}
