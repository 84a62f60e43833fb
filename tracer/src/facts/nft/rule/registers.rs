//! The known contents of the registers of nf_tables while the expressions of a rule run.
//!
//! They hold 64 bytes. `NFT_REG_1` to `NFT_REG_4` name 16 bytes each, `NFT_REG32_00` to `NFT_REG32_15` 4 bytes each of the same
//! memory (`enum nft_registers`). Number 0 is the verdict. Values of several parts are concatenated, each part padded to 4 bytes.

use serde::{Deserialize, Serialize};

use super::conditions::{Load, TRANSPORT_HEADER};
use crate::facts::{iptables::Packet, translation::Operand};

/// Length in bytes of the unit in which parts are padded.
const UNIT: usize = 4;
/// Number of units.
const UNITS: usize = 16;
/// `NFT_REG_4` and `NFT_REG32_00`.
const LAST_LONG: u32 = 4;
const FIRST_SHORT: u32 = 8;

/// The contents of 4 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unit {
    /// A part of a value loaded from the packet: from this byte on.
    Load(Load, usize),
    /// A constant.
    Constant(Vec<u8>),
    /// The data of an element of a map: from this byte on.
    Data(usize),
}

/// The registers of a rule.
#[derive(Default)]
pub(super) struct Registers {
    units: [Option<Unit>; UNITS],
    /// The map whose data they hold.
    map: Option<String>,
}

/// The key that a rule looks up in a map: the known contents of each 4 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key(Vec<Option<KeyPart>>);

/// 4 bytes of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum KeyPart {
    /// A part of a value loaded from the packet: from this byte on.
    Load(Load, usize),
    /// A constant.
    Constant(Vec<u8>),
}

impl Key {
    /// Which 4 bytes of the key are the destination port.
    #[must_use]
    pub fn dport_unit(&self) -> Option<usize> {
        let dport = Load::Header {
            base: TRANSPORT_HEADER,
            offset: 2,
            length: 2,
        };
        self.0
            .iter()
            .position(|part| *part == Some(KeyPart::Load(dport, 0)))
    }

    /// Whether this packet can have the key of an element; `true` also if that is unknown.
    #[must_use]
    pub fn can_be(&self, element: &[u8], packet: &Packet<'_>) -> bool {
        element
            .chunks(UNIT)
            .zip(&self.0)
            .all(|(wanted, part)| match part {
                None => true,
                Some(KeyPart::Constant(value)) => is_padded(wanted, value),
                Some(KeyPart::Load(load, from)) => load
                    .read(packet)
                    .and_then(|bytes| bytes.get(*from..).map(|bytes| is_padded(wanted, bytes)))
                    .unwrap_or(true),
            })
    }
}

/// Whether a part of a key holds this value, cut to the length of the part. The rest of the part is padding.
fn is_padded(part: &[u8], value: &[u8]) -> bool {
    let length = value.len().min(part.len());
    part[..length] == value[..length] && part[length..].iter().all(|&byte| byte == 0)
}

impl Registers {
    /// Index of the first unit of a register.
    fn unit(register: u32) -> Option<usize> {
        let unit = match register {
            1..=LAST_LONG => (register as usize - 1) * (UNITS / 4),
            FIRST_SHORT.. => (register - FIRST_SHORT) as usize,
            _ => return None,
        };
        (unit < UNITS).then_some(unit)
    }

    fn fill(&mut self, register: Option<u32>, length: usize, content: impl Fn(usize) -> Option<Unit>) {
        let Some(first) = register.and_then(Self::unit) else {
            return;
        };
        for (index, unit) in self.units[first..]
            .iter_mut()
            .take(length.div_ceil(UNIT))
            .enumerate()
        {
            *unit = content(index * UNIT);
        }
    }

    /// An expression loads a value of the packet.
    pub(super) fn load(&mut self, register: Option<u32>, load: Load) {
        self.fill(register, load.length(), |from| Some(Unit::Load(load, from)));
    }

    /// An expression writes a constant.
    pub(super) fn write(&mut self, register: Option<u32>, value: &[u8]) {
        self.fill(register, value.len(), |from| {
            Some(Unit::Constant(
                value.get(from..)?.iter().copied().take(UNIT).collect(),
            ))
        });
    }

    /// An expression writes the data of an element of this map, of unknown length.
    pub(super) fn look_up(&mut self, register: Option<u32>, map: String) {
        self.forget_data();
        self.map = Some(map);
        self.fill(register, UNITS * UNIT, |from| Some(Unit::Data(from)));
    }

    /// An expression writes something unknown, of unknown length.
    pub(super) fn forget(&mut self, register: Option<u32>) {
        self.fill(register, UNITS * UNIT, |_| None);
    }

    /// An expression may write anything anywhere.
    pub(super) fn forget_all(&mut self) {
        *self = Self::default();
    }

    fn forget_data(&mut self) {
        for unit in &mut self.units {
            if matches!(unit, Some(Unit::Data(_))) {
                *unit = None;
            }
        }
    }

    /// The map whose data some register holds.
    pub(super) fn map(&self) -> Option<&str> {
        self.map.as_deref()
    }

    /// The value of this length in a register, as far as it is constant or comes from the map.
    pub(super) fn operand(&self, register: u32, length: usize) -> Option<Operand> {
        let first = Self::unit(register)?;
        let units = self.units.get(first..first + length.div_ceil(UNIT))?;
        match units.first()?.as_ref()? {
            Unit::Data(from) => {
                let follow =
                    |(index, unit): (usize, &Option<Unit>)| *unit == Some(Unit::Data(from + index * UNIT));
                units
                    .iter()
                    .enumerate()
                    .all(follow)
                    .then_some(Operand::Data(*from))
            }
            Unit::Constant(_) => {
                let mut value = Vec::new();
                for unit in units {
                    let Some(Unit::Constant(part)) = unit else {
                        return None;
                    };
                    value.extend(part);
                }
                (value.len() == length).then_some(Operand::Constant(value))
            }
            Unit::Load(..) => None,
        }
    }

    /// The key that starts in a register.
    pub(super) fn key(&self, register: Option<u32>) -> Key {
        let first = register.and_then(Self::unit).unwrap_or(UNITS);
        let parts = self.units[first..].iter().map(|unit| match unit {
            Some(Unit::Load(load, from)) => Some(KeyPart::Load(*load, *from)),
            Some(Unit::Constant(value)) => Some(KeyPart::Constant(value.clone())),
            Some(Unit::Data(_)) | None => None,
        });
        let mut parts: Vec<_> = parts.collect();
        while parts.last().is_some_and(Option::is_none) {
            parts.pop();
        }
        Key(parts)
    }
}
