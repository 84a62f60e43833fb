//! Reads struct offsets from BTF, the BPF type format.
//!
//! The kernel describes its own types in `/sys/kernel/btf/vmlinux`, and since 5.11 those of each module in a file that
//! extends it. An offset comes from there, or the error names what is missing. Offsets are never guessed.

mod error;
mod raw;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

pub use error::BtfError;
use raw::{Body, Class, Raw, Type};

/// Upper limit of a file's length in bytes. The largest known one, of a debug kernel, has 30 MiB.
const MAX_BYTES: u64 = 256 << 20;
/// Upper limit of the nesting of types, so that a type that contains itself is an error.
const MAX_DEPTH: u32 = 64;
/// Upper limit of the members visited for one name: nested anonymous types could double at each level.
const MAX_VISITS: u32 = 1 << 18;

/// Position of a bit-field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bits {
    /// First bit, counted from the lowest bit of the byte at [`Member::byte_offset`].
    pub offset: u8,
    /// Number of bits.
    pub width: u8,
}

/// Position of a member in its outermost type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Offset in bytes from the start of the outermost type; for a bit-field, that of the byte with its first bit.
    pub byte_offset: u32,
    /// Size in bytes of the member's declared type.
    pub size: u32,
    /// The bits, if it is a bit-field.
    pub bits: Option<Bits>,
}

/// The types of the kernel, or those of a module that extend them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Btf {
    raw: Arc<Raw>,
}

impl Btf {
    /// Reads the running kernel's own types.
    pub fn open_vmlinux() -> Result<Self, BtfError> {
        Self::open(Path::new("/sys/kernel/btf/vmlinux"), None)
    }

    /// Reads the types of a loaded module. `None` if there are none: the module is not loaded, it is built in (then its
    /// types are part of the kernel's), or the kernel was built without module BTF.
    pub fn open_module(vmlinux: &Self, module: &str) -> Result<Option<Self>, BtfError> {
        let path = Path::new("/sys/kernel/btf").join(module.replace('-', "_"));
        match Self::open(&path, Some(vmlinux)) {
            Ok(btf) => Ok(Some(btf)),
            Err(BtfError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Reads a file of raw BTF. For a module, `base` is the BTF of its kernel.
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

    /// Parses raw BTF. For a module, `base` is the BTF of its kernel.
    pub fn parse(bytes: Vec<u8>, base: Option<&Self>) -> Result<Self, BtfError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(BtfError::Malformed("it is larger than 256 MiB"));
        }
        let raw = Raw::parse(bytes, base.map(|base| Arc::clone(&base.raw)))?;
        Ok(Self { raw: Arc::new(raw) })
    }

    /// Finds a member by its path, such as `net_device.nd_net.net` or `nf_conn.tuplehash[1].tuple`.
    ///
    /// Anonymous structs and unions, typedefs and qualifiers are followed as in C. Pointers are not.
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

    /// The parameters of a function: name and type, such as `("skb", "struct sk_buff *")`. Variable arguments are
    /// `("", "...")`. `None` also if functions of that name differ in their parameters.
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

    /// The structs and unions of this name, or else the typedefs.
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
            within = segment.append_to(&within);
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
                    .ok_or(BtfError::Malformed("a member is not byte-aligned"))?;
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

    /// The width of a bit-field in BTF without `kind_flag`: that of its integer type.
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
            return Err(BtfError::Malformed("anonymous types are nested too deeply"));
        }
        for member in members.iter() {
            *budget = budget
                .checked_sub(1)
                .ok_or(BtfError::Malformed("anonymous types have too many members"))?;
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
        // Length 0 is a flexible array member.
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

    /// The type without its typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Result<(u32, Type<'_>), BtfError> {
        for _ in 0..MAX_DEPTH {
            let this = self.raw.get(id)?;
            match this.body {
                Body::Typedef(inner) | Body::Qualifier(_, inner) => id = inner,
                _ => return Ok((id, this)),
            }
        }
        Err(BtfError::Malformed("a typedef refers to itself"))
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
            _ => return Err(BtfError::Malformed("a member has a type without a size")),
        })
    }

    fn type_text(&self, mut id: u32) -> Option<String> {
        let mut declarator = String::new();
        for _ in 0..MAX_DEPTH {
            let this = self.raw.get(id).ok()?;
            let name = this.name(&self.raw);
            let specifier = match this.body {
                Body::Void => "void".to_owned(),
                Body::Pointer(inner) => {
                    declarator.insert(0, '*');
                    id = inner;
                    continue;
                }
                Body::Qualifier(qualifier, inner) => {
                    // Only a qualifier of the pointed-to type matters to a caller.
                    if qualifier == "const" && !matches!(self.raw.get(inner).ok()?.body, Body::Pointer(_)) {
                        return Some(format!("const {}", join(&self.type_text(inner)?, &declarator)));
                    }
                    id = inner;
                    continue;
                }
                Body::Aggregate(_) | Body::Forward => format!("{} {name}", this.keyword()),
                Body::Enum(_) => format!("enum {name}"),
                Body::FuncProto(_) => "function".to_owned(),
                Body::Array { element, .. } => {
                    declarator.insert_str(0, "[]");
                    id = element;
                    continue;
                }
                Body::Int { .. } | Body::Float | Body::Typedef(_) => name,
                Body::Func(_) | Body::Other => return None,
            };
            return Some(join(&specifier, &declarator));
        }
        None
    }
}

fn join(specifier: &str, declarator: &str) -> String {
    if declarator.is_empty() {
        specifier.to_owned()
    } else {
        format!("{specifier} {declarator}")
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
    fn append_to(self, path: &str) -> String {
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
