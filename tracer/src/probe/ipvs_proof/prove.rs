//! Derives offsets from memory with known contents. Pure: `testbed` reads the memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::layout::{Field, ROWS, Row, Sample, Struct, Variety, read_le};

/// Number of samples needed to prove single bits: a bit matches every second sample by chance. The testbed makes many more.
const MIN_SAMPLES_FOR_BITS: usize = 12;

/// The result for one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The offset in bytes, if it is proven.
    pub offset: Option<u32>,
    /// Why it is proven or not.
    pub reason: String,
}

/// The results for all fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenLayout {
    proofs: BTreeMap<Field, Proof>,
}

impl ProvenLayout {
    /// A result in which nothing is proven, for this reason.
    #[must_use]
    pub fn nothing(reason: &str) -> Self {
        let proof = Proof {
            offset: None,
            reason: reason.to_owned(),
        };
        Self {
            proofs: Field::all().map(|field| (field, proof.clone())).collect(),
        }
    }

    /// The offset of a field in bytes, if it is proven.
    #[must_use]
    pub fn offset(&self, field: Field) -> Option<u32> {
        self.proofs.get(&field)?.offset
    }

    /// Why a field's offset is proven or not.
    #[must_use]
    pub fn reason(&self, field: Field) -> &str {
        self.proofs
            .get(&field)
            .map_or("not examined", |proof| &proof.reason)
    }

    /// All fields and their results.
    pub fn iter(&self) -> impl Iterator<Item = (Field, &Proof)> {
        self.proofs.iter().map(|(&field, proof)| (field, proof))
    }
}

impl fmt::Display for ProvenLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (field, proof) in self.iter() {
            let offset = proof.offset.map_or("-".to_owned(), |offset| offset.to_string());
            writeln!(f, "{:22} {offset:>4}  {}", field.path(), proof.reason)?;
        }
        Ok(())
    }
}

/// Compares every candidate offset with every sample. An offset is proven only if it matches all samples, no other
/// candidate does, and the samples differ enough.
#[must_use]
pub fn prove(samples: &[Sample]) -> ProvenLayout {
    let mut proofs = BTreeMap::new();
    let mut dest = None;
    for row in &ROWS {
        let proof = prove_field(row, samples, dest).map_or_else(
            |reason| Proof { offset: None, reason },
            |offset| Proof {
                offset: Some(offset),
                reason: format!("matches all {} samples", samples.len()),
            },
        );
        if row.field == Field::Dest {
            dest = proof.offset;
        }
        proofs.insert(row.field, proof);
    }
    ProvenLayout { proofs }
}

fn prove_field(row: &Row, samples: &[Sample], dest: Option<u32>) -> Result<u32, String> {
    if row.owner == Struct::Dest && dest.is_none() {
        return Err("the pointer to the real server is not proven".to_owned());
    }
    check_variety(row, samples)?;
    let tried: Vec<_> = row
        .candidates
        .iter()
        .map(|&offset| (offset, check_offset(row, samples, dest, offset)))
        .collect();
    let matching: Vec<u32> = tried
        .iter()
        .filter(|(_, result)| result.is_ok())
        .map(|&(offset, _)| offset)
        .collect();
    match matching.as_slice() {
        &[offset] => Ok(offset),
        [] => {
            let why: Vec<_> = tried.into_iter().filter_map(|(_, result)| result.err()).collect();
            Err(why.join("; "))
        }
        several => Err(format!("matches at several offsets: {several:?}")),
    }
}

/// Whether the samples differ enough for a proof.
fn check_variety(row: &Row, samples: &[Sample]) -> Result<(), String> {
    let known = || samples.iter().map(|sample| &sample.known);
    match row.variety {
        Variety::Distinct(wanted) => {
            let count = if row.field == Field::Dest {
                known()
                    .map(|known| (known.protocol, known.service, known.real_server))
                    .collect::<BTreeSet<_>>()
                    .len()
            } else {
                known()
                    .map(|known| row.field.expected(known))
                    .collect::<BTreeSet<_>>()
                    .len()
            };
            if count < wanted {
                return Err(format!(
                    "{count} different values in the samples, {wanted} needed"
                ));
            }
        }
        Variety::EveryBit => {
            if samples.len() < MIN_SAMPLES_FOR_BITS {
                let count = samples.len();
                return Err(format!(
                    "{count} samples, {MIN_SAMPLES_FOR_BITS} needed to prove single bits"
                ));
            }
            let patterns = || known().map(|known| row.field.expected(known));
            let bits = patterns().fold(0, |bits, pattern| bits | pattern.mask);
            let set = patterns().fold(0, |bits, pattern| bits | pattern.mask & pattern.value);
            let unset = patterns().fold(0, |bits, pattern| bits | pattern.mask & !pattern.value);
            let same = bits & !(set & unset);
            if bits == 0 || same != 0 {
                return Err(format!("the bits {same:#x} are the same in all samples"));
            }
        }
    }
    Ok(())
}

/// Whether all samples have the expected value at this offset.
fn check_offset(row: &Row, samples: &[Sample], dest: Option<u32>, offset: u32) -> Result<(), String> {
    if row.field == Field::Dest {
        return check_dest_offset(samples, offset);
    }
    for sample in samples {
        let memory = match row.owner {
            Struct::Conn => Some(sample.conn.as_slice()),
            Struct::Dest => dest.and_then(|dest| pointee(sample, dest)),
        };
        let memory = memory.and_then(|bytes| read_le(bytes, offset, row.size));
        let found = memory.ok_or_else(|| format!("at {offset}: no memory was read"))?;
        let expected = row.field.expected(&sample.known);
        if !expected.matches(found) {
            let (found, wanted) = (found & expected.mask, expected.value & expected.mask);
            return Err(format!("at {offset}: {found:#x}, expected {wanted:#x}"));
        }
    }
    Ok(())
}

fn pointee(sample: &Sample, pointer_at: u32) -> Option<&[u8]> {
    sample
        .pointees
        .iter()
        .find(|pointee| pointee.pointer_at == pointer_at)
        .map(|pointee| pointee.bytes.as_slice())
}

/// Whether this is the pointer to the real server: it leads to the server's address and port, and is the same for
/// connections to the same server only.
fn check_dest_offset(samples: &[Sample], offset: u32) -> Result<(), String> {
    let mut pointer_of = BTreeMap::new();
    for sample in samples {
        let known = &sample.known;
        let pointer =
            read_le(&sample.conn, offset, 8).ok_or_else(|| format!("at {offset}: no memory was read"))?;
        // Kernel addresses are at the upper end of the address space.
        if pointer >> 56 != 0xff || pointer % 8 != 0 {
            return Err(format!("at {offset}: {pointer:#x} is not a kernel pointer"));
        }
        let bytes = pointee(sample, offset)
            .ok_or_else(|| format!("at {offset}: the memory it points to was not read"))?;
        for field in [Field::DestFamily, Field::DestPort, Field::DestAddress] {
            let row = field.row();
            let memory = read_le(bytes, row.candidates[0], row.size);
            if !memory.is_some_and(|memory| field.expected(known).matches(memory)) {
                return Err(format!(
                    "at {offset}: does not point to real server {}",
                    known.real_server
                ));
            }
        }
        let server = (known.protocol, known.service, known.real_server);
        if *pointer_of.entry(server).or_insert(pointer) != pointer {
            return Err(format!(
                "at {offset}: two pointers for real server {}",
                known.real_server
            ));
        }
    }
    let different: BTreeSet<_> = pointer_of.values().collect();
    if different.len() != pointer_of.len() {
        return Err(format!("at {offset}: one pointer for several real servers"));
    }
    Ok(())
}
