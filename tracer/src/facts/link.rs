//! Network devices of a network namespace: their bridge, their address, and the BPF programs attached to them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::netlink::{attribute, attributes, text};

/// Length in bytes of `struct ifinfomsg`, which precedes the attributes.
const HEAD: usize = 16;

/// Attributes of a link (`uapi/linux/if_link.h`): `IFLA_ADDRESS`, `IFLA_IFNAME`, `IFLA_MASTER`, `IFLA_LINKINFO`, `IFLA_XDP`.
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const XDP: u16 = 43;
/// `IFLA_INFO_KIND`, `IFLA_INFO_DATA`, `IFLA_INFO_SLAVE_KIND`, `IFLA_INFO_SLAVE_DATA`.
const KIND: u16 = 1;
const DATA: u16 = 2;
const PORT_KIND: u16 = 4;
const PORT_DATA: u16 = 5;
/// `IFLA_BRPORT_MODE`: hairpin.
const HAIRPIN: u16 = 4;
/// `IFLA_BR_NF_CALL_IPTABLES` and `IFLA_BR_NF_CALL_IP6TABLES`.
const NF_CALL: [u16; 2] = [36, 37];
/// `IFLA_XDP_PROG_ID`, `_DRV_PROG_ID`, `_SKB_PROG_ID`, `_HW_PROG_ID`, and `IFLA_XDP_ATTACHED`.
const XDP_PROGRAM: u16 = 4;
const XDP_DRIVER: u16 = 5;
const XDP_GENERIC: u16 = 6;
const XDP_HARDWARE: u16 = 7;
const XDP_ATTACHED: u16 = 2;
/// `XDP_ATTACHED_SKB`, `XDP_ATTACHED_HW`.
const ATTACHED_GENERIC: u8 = 2;
const ATTACHED_HARDWARE: u8 = 3;

/// Clears `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` of an attribute's type (uapi/linux/netlink.h).
const TYPE: u16 = 0x3fff;

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address; `None` if its address is not 6 bytes long.
    pub mac: Option<[u8; 6]>,
    /// Its kind as in `ip -d link` (`veth`, `bridge`); `None` for most physical devices.
    pub kind: Option<String>,
    /// Index of the bridge, bond or other device that it is part of.
    pub master: Option<u32>,
    /// Of a bridge port: whether the bridge may send a packet back through the port it came in through.
    pub hairpin: Option<bool>,
    /// Of a bridge: whether bridged IPv4 and IPv6 packets pass netfilter by a setting of this bridge alone.
    pub nf_call: Option<[bool; 2]>,
    /// The BPF programs attached to it: XDP of every device, tc of those at which a packet was dropped.
    pub programs: Vec<Program>,
    /// Where tc filters of other kinds are attached to it, which may drop packets too.
    pub other_filters: Vec<AttachPoint>,
}

/// A BPF program and where it is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its attach point.
    pub at: AttachPoint,
    /// Its id, as `bpftool prog` prints it.
    pub id: u32,
    /// Its name; empty if it has none or it could not be read.
    pub name: String,
    /// The cgroup that it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

/// Where a BPF program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachPoint {
    /// XDP in the driver.
    Xdp,
    /// Generic XDP.
    XdpGeneric,
    /// XDP in the hardware.
    XdpHardware,
    /// tc ingress: a filter or a TCX link.
    TcIngress,
    /// tc egress: a filter or a TCX link.
    TcEgress,
    /// cgroup, incoming packets.
    CgroupIngress,
    /// cgroup, outgoing packets.
    CgroupEgress,
    /// One that only a newer tracer knows.
    #[serde(other)]
    Other,
}

impl fmt::Display for AttachPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "XDP",
            Self::XdpGeneric => "generic XDP",
            Self::XdpHardware => "XDP in hardware",
            Self::TcIngress => "tc ingress",
            Self::TcEgress => "tc egress",
            Self::CgroupIngress => "cgroup ingress",
            Self::CgroupEgress => "cgroup egress",
            Self::Other => "another attach point",
        })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} program ", self.at)?;
        if !self.name.is_empty() {
            write!(f, "{} ", self.name)?;
        }
        if let Some(cgroup) = &self.cgroup {
            write!(f, "of cgroup {cgroup} ")?;
        }
        write!(f, "(id {})", self.id)
    }
}

impl Link {
    /// Reads a message about a link (`RTM_NEWLINK`); `None` if it is truncated.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let mut link = Self {
            index: number(message.get(4..8)?)?,
            ..Self::default()
        };
        for (kind, value) in attributes(message.get(HEAD..)?) {
            match kind & TYPE {
                NAME => link.name = text(value),
                ADDRESS => link.mac = value.try_into().ok(),
                MASTER => link.master = number(value),
                LINK_INFO => link.read_info(value),
                XDP => link.programs = xdp(value),
                _ => {}
            }
        }
        Some(link)
    }

    fn read_info(&mut self, info: &[u8]) {
        let nested = |kind| attributes(info).find(move |(found, _)| found & TYPE == kind);
        self.kind = nested(KIND).map(|(_, value)| text(value));
        let data = nested(DATA).filter(|_| self.kind.as_deref() == Some("bridge"));
        if let Some((_, data)) = data {
            let [v4, v6] = NF_CALL.map(|kind| attribute(data, kind).and_then(|value| value.first().copied()));
            self.nf_call = v4.zip(v6).map(|(v4, v6)| [v4 != 0, v6 != 0]);
        }
        let is_port = nested(PORT_KIND).is_some_and(|(_, kind)| text(kind) == "bridge");
        if let Some((_, data)) = nested(PORT_DATA).filter(|_| is_port) {
            self.hairpin = attribute(data, HAIRPIN).and_then(|value| Some(*value.first()? != 0));
        }
    }
}

/// Length in bytes of `struct tcmsg`, which precedes the attributes of a tc filter.
const FILTER_HEAD: usize = 20;
/// `TCA_KIND`, `TCA_OPTIONS` (uapi/linux/rtnetlink.h), `TCA_BPF_ID` (`uapi/linux/pkt_cls.h`).
const FILTER_KIND: u16 = 1;
const FILTER_OPTIONS: u16 = 2;
const FILTER_PROGRAM: u16 = 11;

/// A tc filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A BPF program, by its id.
    Bpf(u32),
    /// Another kind of filter.
    Other,
}

impl Filter {
    /// Reads a message about a filter (`RTM_NEWTFILTER`); `None` for one that only announces a chain or a priority.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let body = message.get(FILTER_HEAD..)?;
        let kind = text(attribute(body, FILTER_KIND)?);
        let options = attributes(body)
            .find(|(kind, _)| kind & TYPE == FILTER_OPTIONS)?
            .1;
        Some(match attribute(options, FILTER_PROGRAM).and_then(number) {
            Some(id) if kind == "bpf" => Self::Bpf(id),
            _ => Self::Other,
        })
    }
}

/// The XDP programs of a link. A kernel that has several modes at once lists a program by mode as well.
fn xdp(value: &[u8]) -> Vec<Program> {
    let id = |kind| {
        attribute(value, kind)
            .and_then(number)
            .filter(|&id: &u32| id != 0)
    };
    let by_mode = [
        (XDP_DRIVER, AttachPoint::Xdp),
        (XDP_GENERIC, AttachPoint::XdpGeneric),
        (XDP_HARDWARE, AttachPoint::XdpHardware),
    ];
    let mut programs: Vec<Program> = by_mode
        .into_iter()
        .filter_map(|(kind, at)| Some(program(at, id(kind)?)))
        .collect();
    if programs.is_empty()
        && let Some(id) = id(XDP_PROGRAM)
    {
        let mode = attribute(value, XDP_ATTACHED).and_then(|mode| mode.first().copied());
        let at = match mode {
            Some(ATTACHED_GENERIC) => AttachPoint::XdpGeneric,
            Some(ATTACHED_HARDWARE) => AttachPoint::XdpHardware,
            _ => AttachPoint::Xdp,
        };
        programs.push(program(at, id));
    }
    programs
}

fn program(at: AttachPoint, id: u32) -> Program {
    Program {
        at,
        id,
        name: String::new(),
        cgroup: None,
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().map(u32::from_ne_bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).expect("a short value");
        let mut out = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![0; HEAD];
        out[4] = 7;
        out.extend(attributes.concat());
        out
    }

    #[test]
    fn a_bridge_port_has_its_bridge_and_its_mode() {
        let port = nla(PORT_DATA | 0x8000, &nla(HAIRPIN, &[0]));
        let info = [nla(KIND, b"veth\0"), nla(PORT_KIND, b"bridge\0"), port].concat();
        let link = Link::parse(&message(&[
            nla(NAME, b"cali1\0"),
            nla(ADDRESS, &[2, 0, 0, 0, 0, 1]),
            nla(MASTER, &9_u32.to_ne_bytes()),
            nla(LINK_INFO | 0x8000, &info),
        ]))
        .expect("a link");
        let expected = Link {
            index: 7,
            name: "cali1".to_owned(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            kind: Some("veth".to_owned()),
            master: Some(9),
            hairpin: Some(false),
            ..Link::default()
        };
        assert_eq!(link, expected);
    }

    #[test]
    fn a_bridge_has_its_netfilter_settings() {
        let data = [nla(NF_CALL[0], &[1]), nla(NF_CALL[1], &[0])].concat();
        let info = [nla(KIND, b"bridge\0"), nla(DATA, &data)].concat();
        let link = Link::parse(&message(&[nla(LINK_INFO, &info)])).expect("a link");
        assert_eq!((link.nf_call, link.hairpin), (Some([true, false]), None));
    }

    #[test]
    fn xdp_programs_have_their_mode() {
        let of = |parts: &[Vec<u8>]| {
            let link = Link::parse(&message(&[nla(XDP, &parts.concat())])).expect("a link");
            let programs = link.programs.iter().map(|program| (program.at, program.id));
            programs.collect::<Vec<_>>()
        };
        let id = 5_u32.to_ne_bytes();
        let old = [nla(XDP_ATTACHED, &[2]), nla(XDP_PROGRAM, &id)];
        assert_eq!(of(&old), [(AttachPoint::XdpGeneric, 5)]);
        let new = [
            nla(XDP_ATTACHED, &[1]),
            nla(XDP_PROGRAM, &id),
            nla(XDP_DRIVER, &id),
        ];
        assert_eq!(of(&new), [(AttachPoint::Xdp, 5)]);
        assert_eq!(of(&[nla(XDP_ATTACHED, &[0])]), []);
    }

    #[test]
    fn a_tc_filter_is_a_program_or_something_else() {
        let filter = |kind: &[u8], options: &[u8]| {
            let mut message = vec![0; FILTER_HEAD];
            message.extend(nla(FILTER_KIND, kind));
            message.extend(nla(FILTER_OPTIONS, options));
            Filter::parse(&message)
        };
        let program = nla(FILTER_PROGRAM, &9_u32.to_ne_bytes());
        assert_eq!(filter(b"bpf\0", &program), Some(Filter::Bpf(9)));
        assert_eq!(filter(b"matchall\0", &[]), Some(Filter::Other));
        // The priority alone has a kind and no options.
        let mut announced = vec![0; FILTER_HEAD];
        announced.extend(nla(FILTER_KIND, b"bpf\0"));
        assert_eq!(Filter::parse(&announced), None);
        assert_eq!(Filter::parse(&[0; FILTER_HEAD - 1]), None);
    }

    #[test]
    fn a_truncated_message_is_no_link() {
        assert_eq!(Link::parse(&[0; 7]), None);
        assert_eq!(Link::parse(&[0; HEAD - 1]), None);
    }
}
