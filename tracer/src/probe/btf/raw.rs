//! Parses the bytes of BTF: header, numbered types, strings (`Documentation/bpf/btf.rst`, `uapi/linux/btf.h`).
//! Everything is checked when it is read: damaged BTF is an error and never a panic.

use std::sync::{Arc, OnceLock};

use super::error::BtfError;

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
const TYPE: usize = 12;

/// The name spaces in which types are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Aggregate,
    Enum,
    Typedef,
    Func,
}

/// The BTF of one file, and the base that it extends.
#[derive(Debug)]
pub(super) struct Raw {
    bytes: Vec<u8>,
    strings: (usize, usize),
    /// Offset in `bytes` of each type of this file.
    starts: Vec<u32>,
    /// Number of the first type of this file.
    first_id: u32,
    /// One more than the number of the last one.
    end_id: u32,
    /// Offset of the first string of this file. Strings of the base have lower offsets.
    first_string: u32,
    /// Offset after the last string.
    end_string: u32,
    base: Option<Arc<Raw>>,
    /// For each class the named types of this file: hash of the name, and number. Built at the first lookup, because
    /// sorting all names of a kernel costs more than everything else here.
    index: [OnceLock<Vec<(u32, u32)>>; 4],
}

/// One type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Type<'a> {
    name: u32,
    info: u32,
    pub(super) size: u32,
    pub(super) body: Body<'a>,
}

/// The definition of a type. Types are referred to by number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    Void,
    Int { size: u32, bits: u8 },
    Pointer(u32),
    Array { element: u32, length: u32 },
    Aggregate(Members<'a>),
    Enum(Values<'a>),
    Forward,
    Typedef(u32),
    Qualifier(&'static str, u32),
    Func(u32),
    FuncProto(Params<'a>),
    Float,
    Other,
}

/// A struct's or union's members.
#[derive(Debug, Clone, Copy)]
pub(super) struct Members<'a> {
    bytes: &'a [u8],
    wide: bool,
}

/// A member of a struct or union. `name` is the offset of a string, `bit` the offset in bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawMember {
    pub(super) name: u32,
    pub(super) id: u32,
    pub(super) bit: u64,
    /// 0 unless a bit-field.
    pub(super) width: u8,
}

impl Members<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = RawMember> {
        self.bytes.chunks_exact(12).map(|member| {
            let place = u32_at(member, 8);
            let (bit, width) = if self.wide {
                (place & 0x00ff_ffff, (place >> 24) as u8)
            } else {
                (place, 0)
            };
            RawMember {
                name: u32_at(member, 0),
                id: u32_at(member, 4),
                bit: u64::from(bit),
                width,
            }
        })
    }
}

/// An enum's values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    bytes: &'a [u8],
    long: bool,
    signed: bool,
}

impl Values<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The values, with their names as string offsets.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, i64)> {
        self.bytes
            .chunks_exact(if self.long { 12 } else { 8 })
            .map(|value| {
                let low = u32_at(value, 4);
                let number = match (self.long, self.signed) {
                    (true, _) => (u64::from(u32_at(value, 8)) << 32 | u64::from(low)).cast_signed(),
                    (false, true) => i64::from(low.cast_signed()),
                    (false, false) => i64::from(low),
                };
                (u32_at(value, 0), number)
            })
    }
}

/// A function's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Params<'a> {
    bytes: &'a [u8],
}

impl Params<'_> {
    /// The parameters: name as string offset, and type number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.bytes
            .chunks_exact(8)
            .map(|param| (u32_at(param, 0), u32_at(param, 4)))
    }
}

impl Type<'_> {
    pub(super) fn keyword(&self) -> &'static str {
        let union = match kind(self.info) {
            5 => true,
            // The flag of a forward declaration tells struct from union.
            7 => flag(self.info),
            _ => false,
        };
        if union { "union" } else { "struct" }
    }

    pub(super) fn name(&self, raw: &Raw) -> String {
        raw.text(self.name)
    }
}

impl Raw {
    pub(super) fn parse(bytes: Vec<u8>, base: Option<Arc<Self>>) -> Result<Self, BtfError> {
        let header = bytes
            .get(..HEADER)
            .ok_or(BtfError::Malformed("it is shorter than its header"))?;
        let magic = u16::from_le_bytes([header[0], header[1]]);
        if magic == MAGIC.swap_bytes() {
            return Err(BtfError::Malformed("it is big-endian"));
        }
        if magic != MAGIC || header[2] != 1 {
            return Err(BtfError::Malformed("not BTF version 1"));
        }
        let header_length = u32_at(header, 4) as usize;
        if header_length < HEADER {
            return Err(BtfError::Malformed("the header is too short"));
        }
        let section = |offset: usize| {
            let start = header_length.checked_add(u32_at(header, offset) as usize)?;
            let end = start.checked_add(u32_at(header, offset + 4) as usize)?;
            (end <= bytes.len()).then_some((start, end))
        };
        let types = section(8).ok_or(BtfError::Malformed("the types extend past the end of the file"))?;
        let strings =
            section(16).ok_or(BtfError::Malformed("the strings extend past the end of the file"))?;
        let (first_id, first_string) = match &base {
            // Type 0 is void, which is implicit.
            None => (1, 0),
            Some(base) => (base.end_id, base.end_string),
        };
        let end_string = narrow(strings.1 - strings.0)?
            .checked_add(first_string)
            .ok_or(TOO_LARGE)?;
        let mut raw = Self {
            bytes,
            strings,
            starts: Vec::new(),
            first_id,
            end_id: first_id,
            first_string,
            end_string,
            base,
            index: [const { OnceLock::new() }; 4],
        };
        raw.starts = raw.scan(types)?;
        raw.end_id = narrow(raw.starts.len())?.checked_add(first_id).ok_or(TOO_LARGE)?;
        Ok(raw)
    }

    /// Finds the offset of each type, and checks that each ends inside the section.
    fn scan(&self, (mut at, end): (usize, usize)) -> Result<Vec<u32>, BtfError> {
        // Half of a kernel's types are of the smallest size: pointers, qualifiers and functions.
        let mut starts = Vec::with_capacity((end - at) / (2 * TYPE));
        while at < end {
            let head = self
                .bytes
                .get(at..at + TYPE)
                .ok_or(BtfError::Malformed("a type is truncated"))?;
            let tail = tail_length(u32_at(head, 4)).map_err(|kind| BtfError::UnknownKind { kind })?;
            starts.push(narrow(at)?);
            at += TYPE + tail;
        }
        if at > end {
            return Err(BtfError::Malformed("a type is truncated"));
        }
        starts.shrink_to_fit();
        Ok(starts)
    }

    /// The type with this number, of this file or of the base.
    pub(super) fn get(&self, id: u32) -> Result<Type<'_>, BtfError> {
        if id == 0 {
            return Ok(Type {
                name: 0,
                info: 0,
                size: 0,
                body: Body::Void,
            });
        }
        if let (Some(base), true) = (&self.base, id < self.first_id) {
            return base.get(id);
        }
        let missing = BtfError::Malformed("a reference to a type that does not exist");
        let index = id.checked_sub(self.first_id).map(|index| index as usize);
        let start = index
            .and_then(|index| self.starts.get(index))
            .map(|&start| start as usize);
        let bytes = start.and_then(|start| self.bytes.get(start..)).ok_or(missing)?;
        let (head, tail) = bytes
            .split_at_checked(TYPE)
            .ok_or(BtfError::Malformed("a type is truncated"))?;
        let (info, size) = (u32_at(head, 4), u32_at(head, 8));
        let length = tail_length(info).map_err(|kind| BtfError::UnknownKind { kind })?;
        let tail = tail
            .get(..length)
            .ok_or(BtfError::Malformed("a type is truncated"))?;
        let body = match kind(info) {
            1 => Body::Int { size, bits: tail[0] },
            2 => Body::Pointer(size),
            3 => Body::Array {
                element: u32_at(tail, 0),
                length: u32_at(tail, 8),
            },
            4 | 5 => Body::Aggregate(Members {
                bytes: tail,
                wide: flag(info),
            }),
            6 => Body::Enum(Values {
                bytes: tail,
                long: false,
                signed: flag(info),
            }),
            7 => Body::Forward,
            8 => Body::Typedef(size),
            9 => Body::Qualifier("volatile", size),
            10 => Body::Qualifier("const", size),
            11 => Body::Qualifier("restrict", size),
            12 => Body::Func(size),
            13 => Body::FuncProto(Params { bytes: tail }),
            16 => Body::Float,
            18 => Body::Qualifier("", size),
            19 => Body::Enum(Values {
                bytes: tail,
                long: true,
                signed: flag(info),
            }),
            _ => Body::Other,
        };
        Ok(Type {
            name: u32_at(head, 0),
            info,
            size,
            body,
        })
    }

    /// The string at this offset, of this file or of the base.
    pub(super) fn string(&self, offset: u32) -> Result<&[u8], BtfError> {
        if let (Some(base), true) = (&self.base, offset < self.first_string) {
            return base.string(offset);
        }
        let out_of_range = BtfError::Malformed("a name lies past the end of the strings");
        let section = self.bytes.get(self.strings.0..self.strings.1).unwrap_or_default();
        let own = offset.checked_sub(self.first_string).map(|own| own as usize);
        let rest = own.and_then(|own| section.get(own..)).ok_or(out_of_range)?;
        let end = rest.iter().position(|&byte| byte == 0);
        end.map(|end| &rest[..end])
            .ok_or(BtfError::Malformed("a name is not terminated"))
    }

    /// The string at this offset as text; empty if it is damaged.
    pub(super) fn text(&self, offset: u32) -> String {
        self.string(offset)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .unwrap_or_default()
    }

    /// The numbers of all types of this name in this file, or else in the base. `None` if neither has one.
    pub(super) fn find(&self, class: Class, name: &str) -> Option<Vec<u32>> {
        let index = self.index[class as usize].get_or_init(|| self.make_index(class));
        let wanted = hash(name.as_bytes());
        let from = index.partition_point(|&(hash, _)| hash < wanted);
        let own: Vec<u32> = index[from..]
            .iter()
            .take_while(|&&(hash, _)| hash == wanted)
            .map(|&(_, id)| id)
            .filter(|&id| self.own_name(id) == Some(name.as_bytes()))
            .collect();
        if own.is_empty() {
            self.base.as_ref()?.find(class, name)
        } else {
            Some(own)
        }
    }

    fn own_name(&self, id: u32) -> Option<&[u8]> {
        let start = *self.starts.get((id - self.first_id) as usize)? as usize;
        self.string(u32_at(self.bytes.get(start..start + 4)?, 0)).ok()
    }

    fn make_index(&self, class: Class) -> Vec<(u32, u32)> {
        let mut index: Vec<_> = (self.first_id..)
            .zip(&self.starts)
            .filter(|&(_, &start)| Class::of(kind(u32_at(&self.bytes, start as usize + 4))) == Some(class))
            .filter_map(|(id, _)| Some((hash(self.own_name(id).filter(|name| !name.is_empty())?), id)))
            .collect();
        index.sort_unstable();
        index
    }
}

impl Class {
    fn of(kind: u32) -> Option<Self> {
        Some(match kind {
            4 | 5 => Self::Aggregate,
            6 | 19 => Self::Enum,
            8 => Self::Typedef,
            12 => Self::Func,
            _ => return None,
        })
    }
}

const TOO_LARGE: BtfError = BtfError::Malformed("it is larger than 32-bit offsets allow");

fn narrow(value: usize) -> Result<u32, BtfError> {
    u32::try_from(value).map_err(|_| TOO_LARGE)
}

/// FNV-1a, which is enough for short names.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn flag(info: u32) -> bool {
    info >> 31 == 1
}

/// Length in bytes of what follows a type's head.
///
/// # Errors
/// The number of the kind, if it is unknown.
fn tail_length(info: u32) -> Result<usize, u32> {
    let count = (info & 0xffff) as usize;
    Ok(match kind(info) {
        // int's encoding, var's linkage, declaration tag's component
        1 | 14 | 17 => 4,
        // pointer, forward, typedef, volatile, const, restrict, func, float, type tag
        2 | 7..=12 | 16 | 18 => 0,
        3 => 12,
        // struct, union, section, 64-bit enum
        4 | 5 | 15 | 19 => 12 * count,
        // enum, function prototype
        6 | 13 => 8 * count,
        other => return Err(other),
    })
}

/// The little-endian number at this offset. Callers have checked the length; past the end it is 0 rather than a panic.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    word.map_or(0, |word| u32::from_le_bytes(*word))
}
