//! Configures IPVS in the network namespace of the calling thread, by generic netlink (`uapi/linux/ip_vs.h`).

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{DefaultNla, Emitable as _, NLA_F_NESTED};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};

use crate::{facts::netlink::attributes, node::netlink::Connection};

/// `GENL_ID_CTRL` and its `CTRL_CMD_GETFAMILY`.
const CTRL: u16 = 16;
const GET_FAMILY: u8 = 3;

/// `IPVS_CMD_*`
const NEW_SERVICE: u8 = 1;
const NEW_DEST: u8 = 5;
const SET_DEST: u8 = 6;
const DEL_DEST: u8 = 7;

/// How packets reach a real server (`IP_VS_CONN_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forward {
    Masquerade = 0,
    Route = 3,
}

/// A virtual service and its only real server.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) protocol: u8,
    pub(super) address: SocketAddr,
    pub(super) real_server: SocketAddr,
    pub(super) forward: Forward,
    pub(super) weight: i32,
    /// Upper threshold: the number of connections at which the real server is overloaded; 0 for no limit.
    pub(super) limit: u32,
}

/// A netlink connection to IPVS.
#[derive(Debug)]
pub(super) struct Control {
    netlink: Connection,
    family: u16,
}

impl Control {
    /// Connects to IPVS. Call it only if IPVS is loaded: otherwise the kernel would load it.
    pub(super) fn open() -> io::Result<Self> {
        let mut netlink = Connection::open(NETLINK_GENERIC)?;
        let answers = netlink.request(
            CTRL,
            &[GET_FAMILY, 1, 0, 0],
            &[DefaultNla::new(2, b"IPVS\0".to_vec())],
        )?;
        let family = answers
            .iter()
            .flat_map(|answer| attributes(answer.get(4..).unwrap_or_default()))
            .find(|&(kind, _)| kind == 1)
            .and_then(|(_, value)| value.try_into().ok().map(u16::from_ne_bytes));
        let family = family
            .ok_or_else(|| io::Error::other("the kernel reported no generic netlink family for IPVS"))?;
        Ok(Self { netlink, family })
    }

    pub(super) fn add_service(&mut self, service: &Service, scheduler: &str) -> io::Result<()> {
        let mut name = scheduler.as_bytes().to_vec();
        name.push(0);
        // The prefix length for IPv6, the mask itself for IPv4.
        let mask = if service.address.is_ipv6() { 128 } else { u32::MAX };
        let mut inner = service_key(service);
        inner.extend([
            DefaultNla::new(6, name),
            // No flags set, with a mask of all flags.
            DefaultNla::new(7, [0_u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat()),
            DefaultNla::new(8, 0_u32.to_ne_bytes().to_vec()),
            DefaultNla::new(9, mask.to_ne_bytes().to_vec()),
        ]);
        self.command(NEW_SERVICE, &[nested(1, &inner)])
    }

    pub(super) fn add_real_server(&mut self, service: &Service) -> io::Result<()> {
        self.real_server(NEW_DEST, service)
    }

    pub(super) fn change_real_server(&mut self, service: &Service) -> io::Result<()> {
        self.real_server(SET_DEST, service)
    }

    pub(super) fn remove_real_server(&mut self, service: &Service) -> io::Result<()> {
        self.real_server(DEL_DEST, service)
    }

    fn real_server(&mut self, command: u8, service: &Service) -> io::Result<()> {
        let number = |kind, value: u32| DefaultNla::new(kind, value.to_ne_bytes().to_vec());
        let inner = [
            DefaultNla::new(1, address(service.real_server)),
            DefaultNla::new(2, service.real_server.port().to_be_bytes().to_vec()),
            number(3, service.forward as u32),
            number(4, service.weight.cast_unsigned()),
            number(5, service.limit),
            number(6, 0),
        ];
        self.command(command, &[nested(1, &service_key(service)), nested(2, &inner)])
    }

    fn command(&mut self, command: u8, attributes: &[DefaultNla]) -> io::Result<()> {
        self.netlink
            .request(self.family, &[command, 1, 0, 0], attributes)
            .map(drop)
    }
}

/// Brings the loopback device up. In a new network namespace it is down.
pub(super) fn loopback_up() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    // An ifinfomsg for link 1: flags and mask are IFF_UP.
    let head = [0, 1, 1, 1_u32].map(u32::to_ne_bytes).concat();
    Connection::open(NETLINK_ROUTE)?
        .request(RTM_NEWLINK, &head, &[])
        .map(drop)
}

/// Adds an IPv6 address to the loopback device.
pub(super) fn add_address(address: Ipv6Addr) -> io::Result<()> {
    const RTM_NEWADDR: u16 = 20;
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    // An ifaddrmsg: family, prefix length, flags (IFA_F_NODAD: usable at once), scope, link 1.
    let head = [10, 128, 2, 0, 1, 0, 0, 0];
    let bytes = address.octets().to_vec();
    let attributes = [IFA_LOCAL, IFA_ADDRESS].map(|kind| DefaultNla::new(kind, bytes.clone()));
    Connection::open(NETLINK_ROUTE)?
        .request(RTM_NEWADDR, &head, &attributes)
        .map(drop)
}

/// The attributes that identify a service.
fn service_key(service: &Service) -> Vec<DefaultNla> {
    let family: u16 = if service.address.is_ipv6() { 10 } else { 2 };
    vec![
        DefaultNla::new(1, family.to_ne_bytes().to_vec()),
        DefaultNla::new(2, u16::from(service.protocol).to_ne_bytes().to_vec()),
        DefaultNla::new(3, address(service.address)),
        DefaultNla::new(4, service.address.port().to_be_bytes().to_vec()),
    ]
}

/// An address as the kernel's union of 16 bytes, whatever the family.
fn address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.resize(16, 0);
    bytes
}

fn nested(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; inner.buffer_len()];
    inner.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}
