//! From memory whose meaning is known to offsets; the pure half of the proof.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::layout::{Field, In, ROWS, Row, Sample, Telling, read};

/// A single bit fits every second time by chance: with fewer samples than these, too often. The stage makes many
/// more.
const FEWEST_FOR_BITS: usize = 12;

/// What came of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Where the field lies, if that is proven.
    pub offset: Option<u32>,
    /// Why it is proven, or why not.
    pub reason: String,
}

/// What came of all fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenLayout {
    proofs: BTreeMap<Field, Proof>,
}

impl ProvenLayout {
    /// Nothing is proven, for this reason.
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

    /// Where a field lies, if that is proven.
    #[must_use]
    pub fn offset(&self, field: Field) -> Option<u32> {
        self.proofs.get(&field)?.offset
    }

    /// Why a field's offset is proven, or why not.
    #[must_use]
    pub fn reason(&self, field: Field) -> &str {
        self.proofs
            .get(&field)
            .map_or("not looked at", |proof| &proof.reason)
    }

    /// All fields and what came of them.
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

/// Holds every candidate against every sample. An offset comes out only if it fits all of them, no other
/// candidate does, and the samples differ enough for that to mean something.
#[must_use]
pub fn prove(samples: &[Sample]) -> ProvenLayout {
    let mut proofs = BTreeMap::new();
    let mut dest = None;
    for row in &ROWS {
        let proof = prove_field(row, samples, dest).map_or_else(
            |reason| Proof { offset: None, reason },
            |offset| Proof {
                offset: Some(offset),
                reason: format!("held in {} samples", samples.len()),
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
    if row.within == In::Dest && dest.is_none() {
        return Err("the pointer to the real server is not proven".to_owned());
    }
    telling(row, samples)?;
    let tried: Vec<_> = row
        .candidates
        .iter()
        .map(|&offset| (offset, holds(row, samples, dest, offset)))
        .collect();
    let held: Vec<u32> = tried
        .iter()
        .filter(|(_, held)| held.is_ok())
        .map(|&(offset, _)| offset)
        .collect();
    match held.as_slice() {
        &[offset] => Ok(offset),
        [] => {
            let why: Vec<_> = tried.into_iter().filter_map(|(_, held)| held.err()).collect();
            Err(why.join("; "))
        }
        several => Err(format!("fits at {several:?} alike")),
    }
}

/// Whether the samples differ enough.
fn telling(row: &Row, samples: &[Sample]) -> Result<(), String> {
    let known = || samples.iter().map(|sample| &sample.known);
    match row.telling {
        Telling::Distinct(wanted) => {
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
        Telling::EveryBit => {
            if samples.len() < FEWEST_FOR_BITS {
                let count = samples.len();
                return Err(format!(
                    "{count} samples, {FEWEST_FOR_BITS} needed to prove single bits"
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

fn holds(row: &Row, samples: &[Sample], dest: Option<u32>, offset: u32) -> Result<(), String> {
    if row.field == Field::Dest {
        return dest_holds(samples, offset);
    }
    for sample in samples {
        let memory = match row.within {
            In::Conn => Some(sample.conn.as_slice()),
            In::Dest => dest.and_then(|dest| behind(sample, dest)),
        };
        let memory = memory.and_then(|bytes| read(bytes, offset, row.size));
        let found = memory.ok_or_else(|| format!("at {offset}: nothing was read"))?;
        let expected = row.field.expected(&sample.known);
        if !expected.holds(found) {
            let (found, wanted) = (found & expected.mask, expected.value & expected.mask);
            return Err(format!("at {offset}: {found:#x} where {wanted:#x} is known"));
        }
    }
    Ok(())
}

fn behind(sample: &Sample, pointer_at: u32) -> Option<&[u8]> {
    sample
        .behind
        .iter()
        .find(|behind| behind.pointer_at == pointer_at)
        .map(|behind| behind.bytes.as_slice())
}

/// The pointer to the real server leads to its address and port, and is the same for the same real server only.
fn dest_holds(samples: &[Sample], offset: u32) -> Result<(), String> {
    let mut pointer_of = BTreeMap::new();
    for sample in samples {
        let known = &sample.known;
        let pointer =
            read(&sample.conn, offset, 8).ok_or_else(|| format!("at {offset}: nothing was read"))?;
        // Kernel memory is at the upper end of the address space.
        if pointer >> 56 != 0xff || pointer % 8 != 0 {
            return Err(format!("at {offset}: {pointer:#x} is no pointer"));
        }
        let bytes =
            behind(sample, offset).ok_or_else(|| format!("at {offset}: nothing was read behind it"))?;
        for field in [Field::DestFamily, Field::DestPort, Field::DestAddress] {
            let row = field.row();
            let memory = read(bytes, row.candidates[0], row.size);
            if !memory.is_some_and(|memory| field.expected(known).holds(memory)) {
                return Err(format!(
                    "at {offset}: no real server {} behind it",
                    known.real_server
                ));
            }
        }
        let server = (known.protocol, known.service, known.real_server);
        if *pointer_of.entry(server).or_insert(pointer) != pointer {
            return Err(format!(
                "at {offset}: two pointers for the real server {}",
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
