//! Where the kernel keeps its fields: a reader of the BPF type format.
//!
//! The kernel describes its own types in `/sys/kernel/btf/vmlinux`, and from 5.11 on each module's in a file of
//! its own that builds on the former. All answers here come from that description or are an error that names
//! what is missing: an offset is never guessed.

mod raw;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raw::{Body, Class, Raw, Type};

/// Far above the largest known description (a debug kernel's has 30 MiB); keeps a wrong file out of memory.
const MAX_BYTES: u64 = 256 << 20;
/// Bounds every walk from type to type, so that a type that contains itself ends in an error.
const MAX_DEPTH: u32 = 64;
/// Bounds the members looked at for one name, since nested anonymous types could double at each level.
const MAX_VISITS: u32 = 1 << 18;

/// Why the description did not give an answer.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are not BTF, or contradict themselves.
    #[error("malformed BTF: {0}")]
    Malformed(&'static str),
    /// The bytes hold a kind of type that this reader does not know.
    #[error("BTF types of kind {kind} are newer than this reader")]
    UnknownKind {
        /// The kind's number.
        kind: u32,
    },
    /// There is no such struct, union or typedef.
    #[error("this kernel has no type `{0}`")]
    NoType(String),
    /// The type is known but has no such member.
    #[error("`{within}` has no member `{member}` on this kernel")]
    NoMember {
        /// The type or the path so far.
        within: String,
        /// The member that is missing.
        member: String,
    },
    /// A member was asked of something that has none.
    #[error("`{0}` is neither a struct nor a union")]
    NotAggregate(String),
    /// An index was given for something else than an array, or lies behind its end.
    #[error("`{within}` has no element {index}")]
    NoElement {
        /// The path so far.
        within: String,
        /// The index asked for.
        index: u32,
    },
    /// Several types have this name and put the member at different places.
    #[error("`{0}` means different things in different parts of this kernel")]
    Ambiguous(String),
    /// The path is not of the form `type.member[1].member`.
    #[error("`{0}` is not a path to a member")]
    BadPath(String),
}

/// The bits of a bit-field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bits {
    /// First bit, counted from the lowest of the byte at [`Member::byte_offset`].
    pub offset: u8,
    /// Number of bits.
    pub width: u8,
}

/// Where a member lies in its outermost type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Distance from the start of the outermost type; for a bit-field, of the byte that holds its first bit.
    pub byte_offset: u32,
    /// Size in bytes of the member's declared type.
    pub size: u32,
    /// Set for a bit-field only.
    pub bits: Option<Bits>,
}

/// The types of the kernel, or of one module on top of the kernel's. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Btf {
    raw: Arc<Raw>,
}

impl Btf {
    /// Reads the running kernel's own types.
    pub fn open_vmlinux() -> Result<Self, BtfError> {
        Self::open(Path::new("/sys/kernel/btf/vmlinux"), None)
    }

    /// Reads the types of a loaded module. `None` if the kernel gives none for it: the module is not loaded, is
    /// built in (then its types are the kernel's own), or the kernel was built without module BTF.
    pub fn open_module(vmlinux: &Self, module: &str) -> Result<Option<Self>, BtfError> {
        let path = Path::new("/sys/kernel/btf").join(module.replace('-', "_"));
        match Self::open(&path, Some(vmlinux)) {
            Ok(btf) => Ok(Some(btf)),
            Err(BtfError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Reads a file of raw BTF; a module's needs its kernel's as `base`.
    pub fn open(path: &Path, base: Option<&Self>) -> Result<Self, BtfError> {
        let read = || {
            let mut bytes = Vec::new();
            File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|source| BtfError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(bytes, base)
    }

    /// Takes raw BTF from memory; a module's needs its kernel's as `base`.
    pub fn parse(bytes: Vec<u8>, base: Option<&Self>) -> Result<Self, BtfError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(BtfError::Malformed("larger than any kernel's"));
        }
        let raw = Raw::parse(bytes, base.map(|base| Arc::clone(&base.raw)))?;
        Ok(Self { raw: Arc::new(raw) })
    }

    /// Finds a member by its path, such as `net_device.nd_net.net` or `nf_conn.tuplehash[1].tuple`.
    ///
    /// Anonymous structs and unions, typedefs and qualifiers are walked through as C does; pointers are not.
    pub fn member(&self, path: &str) -> Result<Member, BtfError> {
        let (root, segments) = parse_path(path)?;
        let candidates = self.aggregates(root);
        if candidates.is_empty() {
            return Err(BtfError::NoType(root.to_owned()));
        }
        let mut found = BTreeSet::new();
        let mut failure = None;
        for id in candidates {
            match self.walk(id, root, &segments) {
                Ok(member) => drop(found.insert(member)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let mut found = found.into_iter();
        match (found.next(), found.next(), failure) {
            (Some(member), None, _) => Ok(member),
            (Some(_), Some(_), _) => Err(BtfError::Ambiguous(path.to_owned())),
            (None, _, Some(error)) => Err(error),
            (None, _, None) => Err(BtfError::NoType(root.to_owned())),
        }
    }

    /// Size in bytes of a struct, union or typedef.
    pub fn size_of(&self, name: &str) -> Result<u32, BtfError> {
        let sizes = self
            .aggregates(name)
            .into_iter()
            .map(|id| self.size(id, 0))
            .collect::<Result<BTreeSet<_>, _>>()?;
        match sizes.len() {
            0 => Err(BtfError::NoType(name.to_owned())),
            1 => sizes
                .first()
                .copied()
                .ok_or_else(|| BtfError::NoType(name.to_owned())),
            _ => Err(BtfError::Ambiguous(name.to_owned())),
        }
    }

    /// The names and values of an enum, in the kernel's order.
    #[must_use]
    pub fn enum_values(&self, name: &str) -> Option<Vec<(String, i64)>> {
        let ids = self.raw.find(Class::Enum, name)?;
        ids.into_iter().find_map(|id| match self.raw.get(id).ok()?.body {
            Body::Enum(values) if !values.is_empty() => Some(
                values
                    .iter()
                    .map(|(name, value)| (self.raw.text(name), value))
                    .collect(),
            ),
            _ => None,
        })
    }

    /// The parameters of a function: name and type, such as `("skb", "struct sk_buff *")`. A variable list of
    /// arguments ends in `("", "...")`. `None` also if functions of that name differ in their parameters.
    #[must_use]
    pub fn function_params(&self, name: &str) -> Option<Vec<(String, String)>> {
        let ids = self.raw.find(Class::Func, name)?;
        let all: BTreeSet<_> = ids.into_iter().map(|id| self.params_of(id)).collect();
        if all.len() == 1 {
            all.into_iter().next()?
        } else {
            None
        }
    }

    fn params_of(&self, function: u32) -> Option<Vec<(String, String)>> {
        let Body::Func(proto) = self.raw.get(function).ok()?.body else {
            return None;
        };
        let Body::FuncProto(params) = self.raw.get(proto).ok()?.body else {
            return None;
        };
        let param = |(name, id)| match (name, id) {
            (0, 0) => Some((String::new(), "...".to_owned())),
            _ => Some((self.raw.text(name), self.type_text(id)?)),
        };
        params.iter().map(param).collect()
    }

    /// Structs and unions of this name, directly or through a typedef.
    fn aggregates(&self, name: &str) -> Vec<u32> {
        let classes = [Class::Aggregate, Class::Typedef];
        classes
            .into_iter()
            .find_map(|class| self.raw.find(class, name))
            .unwrap_or_default()
    }

    fn walk(&self, root: u32, root_name: &str, segments: &[Segment<'_>]) -> Result<Member, BtfError> {
        let mut id = self.resolve(root)?.0;
        let mut within = root_name.to_owned();
        let mut bit = 0_u64;
        let mut width = 0;
        for segment in segments {
            let hit = match *segment {
                Segment::Name(name) => {
                    let mut budget = MAX_VISITS;
                    let found = self.find_member(id, name, 0, &mut budget, &within)?;
                    found.ok_or_else(|| BtfError::NoMember {
                        within: within.clone(),
                        member: name.to_owned(),
                    })?
                }
                Segment::Index(index) => self.element(id, index, &within)?,
            };
            within = segment.behind(&within);
            bit = bit
                .checked_add(hit.bit)
                .ok_or(BtfError::Malformed("an offset overflows"))?;
            width = hit.width;
            id = self.resolve(hit.id)?.0;
        }
        let byte_offset = u32::try_from(bit / 8).map_err(|_| BtfError::Malformed("an offset overflows"))?;
        let size = self.size(id, 0)?;
        let shift = u8::try_from(bit % 8).unwrap_or_default();
        let bits = match (width, shift) {
            (0, 0) => self.old_style_bits(id)?,
            (0, _) => {
                let old = self
                    .old_style_bits(id)?
                    .ok_or(BtfError::Malformed("a member lies between bytes"))?;
                Some(Bits { offset: shift, ..old })
            }
            (width, offset) => Some(Bits { offset, width }),
        };
        Ok(Member {
            byte_offset,
            size,
            bits,
        })
    }

    /// Compilers before the `kind_flag` said a bit-field's width in its integer type.
    fn old_style_bits(&self, id: u32) -> Result<Option<Bits>, BtfError> {
        Ok(match self.raw.get(id)?.body {
            Body::Int { size, bits, .. } if bits != 0 && u32::from(bits) != size.saturating_mul(8) => {
                Some(Bits {
                    offset: 0,
                    width: bits,
                })
            }
            _ => None,
        })
    }

    fn find_member(
        &self,
        id: u32,
        name: &str,
        depth: u32,
        budget: &mut u32,
        within: &str,
    ) -> Result<Option<Hit>, BtfError> {
        let Body::Aggregate(members) = self.raw.get(id)?.body else {
            return Err(BtfError::NotAggregate(within.to_owned()));
        };
        if depth > MAX_DEPTH {
            return Err(BtfError::Malformed("anonymous types nest too deep"));
        }
        for member in members.iter() {
            *budget = budget
                .checked_sub(1)
                .ok_or(BtfError::Malformed("anonymous types nest too wide"))?;
            let this = self.raw.string(member.name)?;
            if this == name.as_bytes() {
                return Ok(Some(Hit {
                    id: member.id,
                    bit: member.bit,
                    width: member.width,
                }));
            }
            if this.is_empty() {
                let (inner, kind) = self.resolve(member.id)?;
                if matches!(kind.body, Body::Aggregate(_))
                    && let Some(hit) = self.find_member(inner, name, depth + 1, budget, within)?
                {
                    let bit = hit.bit.checked_add(member.bit);
                    return Ok(Some(Hit {
                        bit: bit.ok_or(BtfError::Malformed("an offset overflows"))?,
                        ..hit
                    }));
                }
            }
        }
        Ok(None)
    }

    fn element(&self, id: u32, index: u32, within: &str) -> Result<Hit, BtfError> {
        let no_element = || BtfError::NoElement {
            within: within.to_owned(),
            index,
        };
        let Body::Array { element, length } = self.raw.get(id)?.body else {
            return Err(no_element());
        };
        // A length of 0 is C's array of unknown length at the end of a struct.
        if length != 0 && index >= length {
            return Err(no_element());
        }
        let byte = u64::from(self.size(element, 0)?) * u64::from(index);
        let bit = byte
            .checked_mul(8)
            .ok_or(BtfError::Malformed("an offset overflows"))?;
        Ok(Hit {
            id: element,
            bit,
            width: 0,
        })
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Result<(u32, Type<'_>), BtfError> {
        for _ in 0..MAX_DEPTH {
            let this = self.raw.get(id)?;
            match this.body {
                Body::Typedef(inner) | Body::Qualifier(_, inner) => id = inner,
                _ => return Ok((id, this)),
            }
        }
        Err(BtfError::Malformed("a typedef leads to itself"))
    }

    fn size(&self, id: u32, depth: u32) -> Result<u32, BtfError> {
        if depth > MAX_DEPTH {
            return Err(BtfError::Malformed("an array contains itself"));
        }
        let (_, this) = self.resolve(id)?;
        Ok(match this.body {
            Body::Pointer(_) => 8,
            Body::Array { element, length } => {
                let element = self.size(element, depth + 1)?;
                element
                    .checked_mul(length)
                    .ok_or(BtfError::Malformed("an array's size overflows"))?
            }
            Body::Int { .. } | Body::Aggregate(_) | Body::Enum(_) | Body::Float => this.size,
            _ => return Err(BtfError::Malformed("a member is of a type without size")),
        })
    }

    fn type_text(&self, mut id: u32) -> Option<String> {
        let mut behind = String::new();
        for _ in 0..MAX_DEPTH {
            let this = self.raw.get(id).ok()?;
            let name = this.name(&self.raw);
            let front = match this.body {
                Body::Void => "void".to_owned(),
                Body::Pointer(inner) => {
                    behind.insert(0, '*');
                    id = inner;
                    continue;
                }
                Body::Qualifier(qualifier, inner) => {
                    // Only a qualifier of what is pointed to tells a reader anything.
                    if qualifier == "const" && !matches!(self.raw.get(inner).ok()?.body, Body::Pointer(_)) {
                        return Some(format!("const {}", with_stars(&self.type_text(inner)?, &behind)));
                    }
                    id = inner;
                    continue;
                }
                Body::Aggregate(_) | Body::Forward => format!("{} {name}", this.keyword()),
                Body::Enum(_) => format!("enum {name}"),
                Body::FuncProto(_) => "function".to_owned(),
                Body::Array { element, .. } => {
                    behind.insert_str(0, "[]");
                    id = element;
                    continue;
                }
                Body::Int { .. } | Body::Float | Body::Typedef(_) => name,
                Body::Func(_) | Body::Other => return None,
            };
            return Some(with_stars(&front, &behind));
        }
        None
    }
}

fn with_stars(front: &str, behind: &str) -> String {
    if behind.is_empty() {
        front.to_owned()
    } else {
        format!("{front} {behind}")
    }
}

struct Hit {
    id: u32,
    bit: u64,
    width: u8,
}

#[derive(Debug, Clone, Copy)]
enum Segment<'a> {
    Name(&'a str),
    Index(u32),
}

impl Segment<'_> {
    fn behind(self, path: &str) -> String {
        match self {
            Self::Name(name) => format!("{path}.{name}"),
            Self::Index(index) => format!("{path}[{index}]"),
        }
    }
}

fn parse_path(path: &str) -> Result<(&str, Vec<Segment<'_>>), BtfError> {
    let bad = || BtfError::BadPath(path.to_owned());
    let (root, rest) = path.split_once('.').ok_or_else(bad)?;
    let mut segments = Vec::new();
    for part in rest.split('.') {
        let mut pieces = part.split('[');
        let name = pieces.next().unwrap_or_default();
        if name.is_empty() || root.is_empty() || root.contains('[') {
            return Err(bad());
        }
        segments.push(Segment::Name(name));
        for piece in pieces {
            let index = piece
                .strip_suffix(']')
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(bad)?;
            segments.push(Segment::Index(index));
        }
    }
    Ok((root, segments))
}
