//! Programs of the guest that load a node: a flood of SYNs, and IPVS connections without traffic.
//!
//! A step runs them like any other program: `syn-flood 60000 10.0.0.1:30080`, `ipvs-entries 165000`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::segment;
use crate::scenario::HalfOpen;

/// The first source address of a flood: a network for benchmarks (RFC 2544), of which no other client of the lab is.
pub(super) const SOURCES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// How many source addresses a flood has.
const SOURCE_COUNT: u32 = 1 << 16;

/// Where the backup daemon of IPVS listens (`IP_VS_SYNC_GROUP`, `IP_VS_SYNC_PORT`).
const SYNC: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 81), 8848);

/// Connections in one message of at most 1472 bytes.
const PER_MESSAGE: u32 = 40;

/// How long the backup daemon may take for a message.
const TAKEN_LIMIT: Duration = Duration::from_secs(10);

/// Whether an address is one of a flood's sources.
pub(super) fn is_source(address: Ipv4Addr) -> bool {
    address.octets()[..2] == SOURCES.octets()[..2]
}

/// `syn-flood COUNT ADDRESS:PORT PER_SECOND CLIENTS`: sends SYNs at this rate (0: as fast as it can), from each of the clients in
/// turn. A client's further SYNs are retransmissions.
pub(super) fn syns(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let count: u32 = number(arguments.next())?;
    let to = arguments.next().context("the destination is missing")?;
    let to: SocketAddrV4 = to
        .parse()
        .with_context(|| format!("`{to}` is not an IPv4 socket address"))?;
    let rate = Some(number(arguments.next())?).filter(|&rate| rate != 0);
    let clients = number(arguments.next())?.max(1);
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))
        .context("cannot create a raw socket")?;
    let node = SocketAddrV4::new(*to.ip(), 0).into();
    let begin = Instant::now();
    for nth in 0..count {
        if let Some(rate) = rate
            && nth.is_multiple_of(rate.div_ceil(100))
        {
            let due = Duration::from_secs_f64(f64::from(nth) / f64::from(rate));
            thread::sleep(due.saturating_sub(begin.elapsed()));
        }
        let client = nth % clients;
        let source = Ipv4Addr::from_bits(SOURCES.to_bits() + client % SOURCE_COUNT);
        let port = u16::try_from(1024 + client / SOURCE_COUNT).context("too many clients")?;
        let packet = syn(SocketAddrV4::new(source, port), to, client);
        while let Err(error) = socket.send_to(&packet, &node) {
            ensure!(
                error.raw_os_error() == Some(libc::ENOBUFS),
                "cannot send SYN {nth} of a flood: {error}"
            );
            thread::yield_now();
        }
    }
    println!("{count} SYNs in {} ms", begin.elapsed().as_millis());
    Ok(())
}

/// A SYN with its IP header. The kernel fills in the checksum and the length of that one.
fn syn(from: SocketAddrV4, to: SocketAddrV4, nth: u32) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    let syn = HalfOpen {
        sequence: nth.wrapping_mul(2_654_435_761),
        ..HalfOpen::default()
    };
    packet.extend(segment::segment(SocketAddr::V4(from), SocketAddr::V4(to), &syn));
    packet
}

/// `ipvs-entries COUNT`: gives IPVS in this netns established connections, as another director would synchronize them. A
/// backup daemon must run there (`ipvsadm --start-daemon backup --mcast-interface eth0`).
pub(super) fn ipvs_entries(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let count: u32 = number(arguments.next())?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
    let own = own_address()?;
    let socket = Socket::from(socket);
    socket
        .set_multicast_if_v4(&own)
        .context("cannot choose a device")?;
    let to = SocketAddr::V4(SYNC).into();
    let mut sent = 0;
    while sent < count {
        let some = PER_MESSAGE.min(count - sent);
        let message = sync_message(sent, some)?;
        socket
            .send_to(&message, &to)
            .context("cannot send connections to the backup daemon")?;
        sent += some;
        // A few messages fit into the daemon's buffer.
        if (sent / PER_MESSAGE).is_multiple_of(8) || sent == count {
            wait_until_taken().with_context(|| format!("after {sent} connections"))?;
        }
    }
    Ok(())
}

/// The address of the netns's Ethernet device.
fn own_address() -> Result<Ipv4Addr> {
    // Not connected to anybody: the kernel only chooses the source address.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket
        .connect((Ipv4Addr::new(10, 0, 0, 1), 9))
        .context("no route to the node")?;
    match socket.local_addr()?.ip() {
        std::net::IpAddr::V4(address) => Ok(address),
        std::net::IpAddr::V6(address) => bail!("{address} is not an IPv4 address"),
    }
}

/// A message of the synchronization protocol, version 1 (`net/netfilter/ipvs/ip_vs_sync.c`).
fn sync_message(first: u32, count: u32) -> Result<Vec<u8>> {
    const CONNECTION: u16 = 36;
    const ESTABLISHED: u16 = 1;
    const TIMEOUT_S: u32 = 900;
    let connections = u8::try_from(count)?;
    let size = 8 + CONNECTION * u16::from(connections);
    let mut message = vec![0, 0];
    message.extend(size.to_be_bytes());
    message.extend([connections, 1, 0, 0]);
    for nth in first..first + count {
        let client = Ipv4Addr::from_bits(SOURCES.to_bits() + nth % SOURCE_COUNT);
        let port = u16::try_from(1024 + nth / SOURCE_COUNT)?;
        // An IPv4 connection of TCP, masqueraded.
        message.extend([0, 6]);
        message.extend(CONNECTION.to_be_bytes());
        message.extend([0; 4]);
        for value in [ESTABLISHED, port, 30_999, 8080] {
            message.extend(value.to_be_bytes());
        }
        message.extend([0; 4]);
        message.extend(TIMEOUT_S.to_be_bytes());
        message.extend(client.octets());
        message.extend([10, 0, 0, 1, 10, 244, 1, 2]);
    }
    Ok(message)
}

/// Waits until the backup daemon has taken everything. Fails if something was dropped.
fn wait_until_taken() -> Result<()> {
    let due = Instant::now() + TAKEN_LIMIT;
    loop {
        let table = fs::read_to_string("/proc/self/net/udp").context("cannot read the UDP sockets")?;
        let port = format!(":{:04X}", SYNC.port());
        let line = table.lines().find(|line| {
            let local = line.split_ascii_whitespace().nth(1);
            local.is_some_and(|local| local.ends_with(&port))
        });
        let line = line.context("no backup daemon of IPVS listens here")?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let dropped = words.last().copied().unwrap_or_default();
        ensure!(
            dropped == "0",
            "the backup daemon dropped {dropped} messages: {line}"
        );
        if words.get(4).is_some_and(|queues| queues.ends_with(":00000000")) {
            return Ok(());
        }
        ensure!(Instant::now() < due, "the backup daemon does not take messages");
        thread::sleep(Duration::from_millis(1));
    }
}

fn number(text: Option<String>) -> Result<u32> {
    let text = text.context("a number is missing")?;
    text.parse().with_context(|| format!("`{text}` is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_of_a_flood_has_an_ip_header() {
        let packet = syn(
            "198.18.0.7:1024".parse().unwrap(),
            "10.0.0.1:30080".parse().unwrap(),
            7,
        );
        assert_eq!(packet[..2], [0x45, 0]);
        assert_eq!(packet[12..20], [198, 18, 0, 7, 10, 0, 0, 1]);
        assert_eq!(packet[20..24], [4, 0, 0x75, 0x80]);
        assert_eq!(packet[33], 2, "only the SYN flag");
        assert!(is_source(Ipv4Addr::new(198, 18, 3, 4)) && !is_source(Ipv4Addr::new(10, 0, 0, 2)));
    }

    #[test]
    fn a_sync_message_has_its_length() {
        let message = sync_message(0, 40).unwrap();
        assert_eq!(message.len(), 8 + 40 * 36);
        assert_eq!(message[2..6], [0x05, 0xa8, 40, 1]);
    }
}
