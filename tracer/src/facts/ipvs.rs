//! Services and connections of IPVS, as printed in `/proc/net/ip_vs` and `/proc/net/ip_vs_conn`.
//!
//! The text is parsed line by line, because a busy node has a million connections.

use std::fmt;
use std::io::{self, BufRead};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const TCP_STATES: [&str; 11] = [
    "NONE",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
];

/// The state of a TCP connection in IPVS (`IP_VS_TCP_S_*`). Displays as the kernel prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpState(u16);

impl TcpState {
    /// The state with this number, as in the kernel's memory.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        (usize::from(number) < TCP_STATES.len()).then_some(Self(number))
    }

    /// Its number, as in the kernel's memory.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    /// The kernel's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        TCP_STATES[usize::from(self.0)]
    }
}

impl FromStr for TcpState {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        (0..)
            .zip(TCP_STATES)
            .find(|&(_, known)| known == name)
            .map(|(number, _)| Self(number))
            .ok_or(())
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An entry of the connection table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Protocol number, for example 6 for TCP.
    pub protocol: u8,
    /// The client. Its port is 0 in a template of session affinity.
    pub client: SocketAddr,
    /// The virtual service.
    pub service: SocketAddr,
    /// The real server.
    pub real_server: SocketAddr,
    /// The kernel's name for the state.
    pub state: String,
    /// Seconds until the entry expires.
    pub expires: u32,
}

/// The packets that a virtual service matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listens {
    /// A protocol and an address.
    Address {
        /// Protocol number, for example 6 for TCP.
        protocol: u8,
        /// Address and port.
        address: SocketAddr,
    },
    /// All packets with this firewall mark.
    Mark(u32),
}

/// A virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The packets that it matches.
    pub listens: Listens,
    /// Name of its scheduler.
    pub scheduler: String,
    /// Timeout of session affinity in seconds.
    pub persistent: Option<u32>,
    /// Whether each packet is scheduled on its own (`ops`).
    pub one_packet: bool,
    /// Its real servers.
    pub real_servers: Vec<RealServer>,
}

/// A real server of a virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServer {
    /// Address and port.
    pub address: SocketAddr,
    /// Forwarding method, by the kernel's name: `Masq`, `Local`, `Tunnel`, `Route`.
    pub forward: String,
    /// Weight; 0 means draining.
    pub weight: i32,
    /// Number of active connections.
    pub active: u32,
    /// Number of inactive connections.
    pub inactive: u32,
}

/// Parses text in the form of `/proc/net/ip_vs_conn`. The heading and malformed lines are skipped.
pub fn parse_connections(text: impl BufRead) -> impl Iterator<Item = io::Result<Connection>> {
    text.lines().filter_map(|line| match line {
        Ok(line) => parse_connection(&line).map(Ok),
        Err(error) => Some(Err(error)),
    })
}

fn parse_connection(line: &str) -> Option<Connection> {
    let mut words = line.split_ascii_whitespace();
    let protocol = parse_protocol(words.next()?)?;
    let mut address = || parse_address(words.next()?, words.next()?);
    let (client, service, real_server) = (address()?, address()?, address()?);
    let state = words.next()?.to_owned();
    let expires = words.next()?.parse().ok()?;
    Some(Connection {
        protocol,
        client,
        service,
        real_server,
        state,
        expires,
    })
}

/// Parses text in the form of `/proc/net/ip_vs`, whose times are in ticks of the kernel's clock. The heading and malformed
/// lines are skipped.
pub fn parse_services(text: impl BufRead, ticks_per_second: u32) -> io::Result<Vec<Service>> {
    let mut services: Vec<Service> = Vec::new();
    for line in text.lines() {
        let line = line?;
        if let Some(rest) = line.trim_start().strip_prefix("-> ") {
            if let (Some(service), Some(real_server)) = (services.last_mut(), parse_real_server(rest)) {
                service.real_servers.push(real_server);
            }
        } else {
            services.extend(parse_service(&line, ticks_per_second));
        }
    }
    Ok(services)
}

fn parse_service(line: &str, ticks_per_second: u32) -> Option<Service> {
    let mut words = line.split_ascii_whitespace();
    let (first, second) = (words.next()?, words.next()?);
    let listens = if first == "FWM" {
        Listens::Mark(u32::from_str_radix(second, 16).ok()?)
    } else {
        Listens::Address {
            protocol: parse_protocol(first)?,
            address: parse_pair(second)?,
        }
    };
    let scheduler = words.next()?.to_owned();
    let (mut persistent, mut one_packet) = (None, false);
    while let Some(word) = words.next() {
        match word {
            "ops" => one_packet = true,
            "persistent" => {
                let ticks: Option<u32> = words.next()?.parse().ok();
                persistent = ticks.and_then(|ticks| ticks.checked_div(ticks_per_second));
            }
            _ => {}
        }
    }
    Some(Service {
        listens,
        scheduler,
        persistent,
        one_packet,
        real_servers: Vec::new(),
    })
}

fn parse_real_server(line: &str) -> Option<RealServer> {
    let mut words = line.split_ascii_whitespace();
    Some(RealServer {
        address: parse_pair(words.next()?)?,
        forward: words.next()?.to_owned(),
        weight: words.next()?.parse().ok()?,
        active: words.next()?.parse().ok()?,
        inactive: words.next()?.parse().ok()?,
    })
}

fn parse_protocol(name: &str) -> Option<u8> {
    Some(match name {
        "IP" => 0,
        "ICMP" => 1,
        "TCP" => 6,
        "UDP" => 17,
        "ICMPv6" => 58,
        "SCTP" => 132,
        other => other.strip_prefix("IP_")?.parse().ok()?,
    })
}

/// Parses `0A000001:7580`, or `[2001:…]:7580` with all zeros.
fn parse_pair(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let address = address
        .strip_prefix('[')
        .and_then(|address| address.strip_suffix(']'))
        .unwrap_or(address);
    parse_address(address, port)
}

fn parse_address(address: &str, port: &str) -> Option<SocketAddr> {
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match u32::from_str_radix(address, 16) {
        Ok(number) => Ipv4Addr::from(number).into(),
        Err(_) => address.parse::<Ipv6Addr>().ok()?.into(),
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn reads_connections() {
        let text = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n\
            TCP 0A000002 9C41 0A000001 7580 0AF40102 1F90 ESTABLISHED     897\n\
            UDP 2001:0db8:0000:0000:0000:0000:0000:0002 0035 2001:0db8:0000:0000:0000:0000:0000:0001 1F90 \
            0AF40102 1F90 UDP             12\n\
            IP_89 0A000002 0000 0A000001 7580 0AF40102 1F90 NONE     5 sip abc\n\
            TCP 0A000002 9C41 0A000001\n";
        let all: Vec<_> = parse_connections(text.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(
            all[0],
            Connection {
                protocol: 6,
                client: socket("10.0.0.2:40001"),
                service: socket("10.0.0.1:30080"),
                real_server: socket("10.244.1.2:8080"),
                state: "ESTABLISHED".to_owned(),
                expires: 897,
            }
        );
        assert_eq!(
            (all[1].client, all[1].real_server),
            (socket("[2001:db8::2]:53"), socket("10.244.1.2:8080"))
        );
        assert_eq!((all[2].protocol, all[2].expires), (89, 5));
    }

    #[test]
    fn reads_services() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n\
            \x20 -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
            TCP  0A000001:7580 rr  \n\
            \x20 -> 0AF40102:1F90      Masq    1      2          3         \n\
            \x20 -> 0AF40202:1F90      Tunnel  0      0          0         \n\
            UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0035 wrr ops persistent 2700000 FFFFFFFF\n\
            \x20 -> [2001:0db8:0000:0000:0000:0000:0000:0002]:0035      Route   5      0          0         \n\
            FWM  0000002A rr persistent 90000 FFFFFFFF\n";
        let all = parse_services(text.as_bytes(), 250).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(
            all[0].listens,
            Listens::Address {
                protocol: 6,
                address: socket("10.0.0.1:30080")
            }
        );
        assert_eq!(
            (all[0].scheduler.as_str(), all[0].persistent, all[0].one_packet),
            ("rr", None, false)
        );
        let first = &all[0].real_servers[0];
        assert_eq!((first.address, first.weight), (socket("10.244.1.2:8080"), 1));
        assert_eq!(
            (first.active, first.inactive, first.forward.as_str()),
            (2, 3, "Masq")
        );
        assert_eq!(all[0].real_servers[1].weight, 0);
        assert_eq!((all[1].persistent, all[1].one_packet), (Some(10800), true));
        assert_eq!(all[1].real_servers[0].address, socket("[2001:db8::2]:53"));
        assert_eq!(
            (all[2].listens, all[2].persistent),
            (Listens::Mark(42), Some(360))
        );
    }

    #[test]
    fn finds_states_by_name_and_number() {
        assert_eq!("TIME_WAIT".parse::<TcpState>().unwrap().number(), 5);
        assert_eq!(TcpState::from_number(3).unwrap().to_string(), "SYN_RECV");
        assert!("UDP".parse::<TcpState>().is_err());
        assert!(TcpState::from_number(11).is_none());
    }
}
