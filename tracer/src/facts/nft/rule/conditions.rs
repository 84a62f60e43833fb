//! The conditions of a rule, as far as tracer understands them: enough to exclude many rules for a packet.

use std::net::IpAddr;

use bytes::Buf as _;
use serde::{Deserialize, Serialize};
use tracer_common::record::table;

use super::super::{attribute, number};
use crate::facts::{
    iptables::Packet,
    xt::{Fits, Match},
};

/// Bases of a payload (`enum nft_payload_bases`).
pub(super) const NETWORK_HEADER: u32 = 1;
pub(super) const TRANSPORT_HEADER: u32 = 2;
/// `NFT_CMP_EQ` and `NFT_CMP_NEQ`.
pub(super) const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// `NFT_CT_STATE`.
const CT_STATE: u32 = 0;
/// `NFT_META_L4PROTO`.
const META_PROTOCOL: u32 = 16;
/// `NFT_FIB_RESULT_ADDRTYPE`, and the flag `NFTA_FIB_F_SADDR` alone.
const FIB_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;

/// The conditions of a rule. A packet must meet all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions(Vec<Condition>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Condition {
    /// Compares bytes of the packet or the state of its connection with a value.
    Value {
        of: Load,
        mask: Option<Vec<u8>>,
        value: Vec<u8>,
        equal: bool,
    },
    /// A match of an iptables extension.
    Match(Match),
}

/// The value that an expression loads into a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Load {
    /// Bytes of a header.
    Header { base: u32, offset: u32, length: u32 },
    /// The state of the packet's connection.
    State,
    /// The transport protocol.
    Protocol,
    /// The type of the source address, for example local.
    SourceType,
}

/// Collects the conditions of a rule's expressions, in their order. A comparison must directly follow its load.
#[derive(Default)]
pub(super) struct ConditionReader {
    conditions: Vec<Condition>,
    /// The register of the last load, its contents, and the mask applied to it.
    loaded: Option<(u32, Load, Option<Vec<u8>>)>,
}

impl ConditionReader {
    pub(super) fn add(&mut self, name: &str, data: &[u8]) {
        let field = |kind| attribute(data, kind).and_then(number);
        let bytes = |kind| attribute(data, kind).and_then(|data| attribute(data, 1));
        self.loaded = match name {
            "payload" | "ct" | "meta" | "fib" => {
                field(1).and_then(|register| Some((register, Load::of(name, data)?, None)))
            }
            "bitwise" => self.loaded.take().and_then(|(register, load, mask)| {
                let plain = bytes(5).is_some_and(|xor| xor.iter().all(|&byte| byte == 0));
                let same = field(1) == Some(register) && field(2) == Some(register);
                let mask = bytes(4).filter(|_| plain && same && mask.is_none())?;
                Some((register, load, Some(mask.to_vec())))
            }),
            "cmp" => {
                self.compare(field(1), field(2), bytes(3));
                // The register keeps its contents for further comparisons.
                self.loaded.take()
            }
            _ => None,
        };
    }

    fn compare(&mut self, register: Option<u32>, operation: Option<u32>, value: Option<&[u8]>) {
        let (Some((loaded, of, mask)), Some(value)) = (&self.loaded, value) else {
            return;
        };
        let equal = match operation {
            Some(EQUAL) => true,
            Some(NOT_EQUAL) => false,
            _ => return,
        };
        if register == Some(*loaded) {
            self.conditions.push(Condition::Value {
                of: *of,
                mask: mask.clone(),
                value: value.to_vec(),
                equal,
            });
        }
    }

    pub(super) fn add_match(&mut self, found: Match) {
        self.conditions.push(Condition::Match(found));
    }

    pub(super) fn finish(self) -> Conditions {
        Conditions(self.conditions)
    }
}

impl Conditions {
    /// Whether this packet can meet all conditions; `true` also if that is unknown.
    #[must_use]
    pub fn can_fit(&self, packet: &Packet<'_>) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Match(found) => found.fits(&packet.inner) != Fits::No,
            Condition::Value {
                of,
                mask,
                value,
                equal,
            } => {
                if *of == Load::SourceType {
                    // Of the types of an address, only whether it is local is known.
                    let is_known = mask.is_none() && *value == LOCAL.to_ne_bytes();
                    return packet
                        .inner
                        .from_node
                        .is_none_or(|local| !is_known || local == *equal);
                }
                let Some(bytes) = of.read(packet) else {
                    return true;
                };
                let masked: Vec<u8> = match mask {
                    Some(mask) => bytes.iter().zip(mask).map(|(byte, mask)| byte & mask).collect(),
                    None => bytes,
                };
                masked.len() != value.len() || (masked == *value) == *equal
            }
        })
    }
}

impl Load {
    /// The load of an expression; `None` if it loads nothing, or a value that tracer does not know.
    pub(super) fn of(name: &str, data: &[u8]) -> Option<Self> {
        let field = |kind| attribute(data, kind).and_then(number);
        match name {
            // The register, the base, the offset, the length.
            "payload" if field(1).is_some() => Some(Self::Header {
                base: field(2)?,
                offset: field(3)?,
                length: field(4)?,
            }),
            // The register, the key.
            "ct" if field(2) == Some(CT_STATE) => Some(Self::State),
            // The register, the key.
            "meta" if field(1).is_some() && field(2) == Some(META_PROTOCOL) => Some(Self::Protocol),
            // The register, the result, the flags.
            "fib" if field(2) == Some(FIB_TYPE) && field(3) == Some(FIB_SOURCE) => Some(Self::SourceType),
            _ => None,
        }
    }

    /// The number of bytes that this loads.
    pub(super) fn length(self) -> usize {
        match self {
            Self::Header { length, .. } => length as usize,
            Self::Protocol => 1,
            Self::State | Self::SourceType => 4,
        }
    }

    /// The value that this loads for the packet; `None` if unknown.
    pub(super) fn read(self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        let (base, offset, length) = match self {
            Self::State => return Some(state(packet.inner.ctinfo?).to_ne_bytes().to_vec()),
            Self::Protocol => return Some(vec![TCP]),
            Self::SourceType => {
                let local = packet.inner.from_node.filter(|&local| local);
                return local.map(|_| LOCAL.to_ne_bytes().to_vec());
            }
            Self::Header { base, offset, length } => (base, offset, length),
        };
        let (begins, known): (u32, Vec<u8>) = match (base, packet.source, packet.destination) {
            (NETWORK_HEADER, IpAddr::V4(source), IpAddr::V4(destination)) => {
                (12, [source.octets(), destination.octets()].concat())
            }
            (NETWORK_HEADER, IpAddr::V6(source), IpAddr::V6(destination)) => {
                (8, [source.octets(), destination.octets()].concat())
            }
            (TRANSPORT_HEADER, ..) => {
                let ports = [packet.inner.sport, packet.inner.dport];
                (0, ports.map(u16::to_be_bytes).concat())
            }
            _ => return None,
        };
        let first = usize::try_from(offset.checked_sub(begins)?).ok()?;
        let last = first.checked_add(usize::try_from(length).ok()?)?;
        known.get(first..last).map(<[u8]>::to_vec)
    }
}

/// The bit of a connection's state in nf_tables (`nft_ct_get_eval`, 5.10 to 7.3): 1 without a connection, 64 if
/// untracked.
fn state(ctinfo: u32) -> u32 {
    match ctinfo {
        table::NO_CONNECTION => 1,
        table::UNTRACKED => 1 << 6,
        known => 1 << (known % 3 + 1),
    }
}

/// The port in an attribute of a comparison with the destination port.
pub(super) fn port(data: &[u8], kind: u16) -> Option<u16> {
    let mut value = attribute(data, kind).and_then(|data| attribute(data, 1))?;
    value.try_get_u16().ok()
}
