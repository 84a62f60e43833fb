//! Where the kernel's struct members lie: from BTF, or proven on the running kernel.

use std::collections::BTreeMap;

use tracer_common::field::{self, Field, MISSING};

use super::btf::{Btf, BtfError};

/// The offset of each field of the table, or why it is not known.
#[derive(Debug)]
pub struct Offsets {
    known: BTreeMap<&'static str, Result<u32, String>>,
    drop_reasons: Vec<(String, i64)>,
    modules: BTreeMap<&'static str, bool>,
}

impl Offsets {
    /// Asks the BTF of the kernel, and of the modules where the kernel gives it.
    pub fn from_btf() -> Result<Self, BtfError> {
        let vmlinux = Btf::open_vmlinux()?;
        let mut modules: BTreeMap<&'static str, Option<Btf>> = BTreeMap::new();
        for field in field::ALL.iter().filter(|field| !field.module.is_empty()) {
            if !modules.contains_key(field.module) {
                modules.insert(field.module, Btf::open_module(&vmlinux, field.module)?);
            }
        }
        let mut known = BTreeMap::new();
        for field in field::ALL {
            let module = modules.get(field.module).and_then(Option::as_ref);
            known.insert(field.constant, resolve(field, &vmlinux, module));
        }
        Ok(Self {
            known,
            drop_reasons: vmlinux.enum_values("skb_drop_reason").unwrap_or_default(),
            modules: modules
                .into_iter()
                .map(|(name, btf)| (name, btf.is_some()))
                .collect(),
        })
    }

    /// The offset of a field in bytes, or why it is not known.
    pub fn get(&self, field: &Field) -> Result<u32, &str> {
        match self.known.get(field.constant) {
            Some(Ok(offset)) => Ok(*offset),
            Some(Err(why)) => Err(why),
            None => Err("not in the table of fields"),
        }
    }

    /// Does the kernel describe the types of this module?
    #[must_use]
    pub fn has_module(&self, module: &str) -> bool {
        self.modules.get(module).copied().unwrap_or(false)
    }

    /// Takes an offset that was found in another way than by BTF, or the reason why it was not.
    pub fn set(&mut self, field: &Field, offset: Result<u32, String>) {
        self.known.insert(field.constant, offset);
    }

    /// The members that cannot be read, grouped by the reason.
    #[must_use]
    pub fn unknown(&self) -> BTreeMap<&str, Vec<&'static str>> {
        let mut out: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
        for field in field::ALL
            .iter()
            .filter(|field| !field::DISPENSABLE.contains(field))
        {
            if let Err(why) = self.get(field) {
                out.entry(why).or_default().push(field.path);
            }
        }
        out
    }

    /// This kernel's drop reasons; empty if `skb:kfree_skb` has none.
    #[must_use]
    pub fn drop_reasons(&self) -> &[(String, i64)] {
        &self.drop_reasons
    }

    /// Name and value of every constant of the kernel half.
    pub fn constants(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.known
            .iter()
            .map(|(constant, offset)| (*constant, *offset.as_ref().unwrap_or(&MISSING)))
    }
}

#[cfg(test)]
impl Offsets {
    /// Offsets of nothing but these fields.
    pub(super) fn of(fields: &[(&Field, u32)]) -> Self {
        let missing = field::ALL
            .iter()
            .map(|field| (field.constant, Err("not on this kernel".to_owned())));
        let mut offsets = Self {
            known: missing.collect(),
            drop_reasons: Vec::new(),
            modules: BTreeMap::new(),
        };
        for (field, offset) in fields {
            offsets.set(field, Ok(*offset));
        }
        offsets
    }
}

/// The kernel's own types come first: what is built in is described there and nowhere else.
fn resolve(field: &Field, vmlinux: &Btf, module: Option<&Btf>) -> Result<u32, String> {
    let member = match (vmlinux.member(field.path), module) {
        (Ok(member), _) => member,
        (Err(_), Some(module)) => module.member(field.path).map_err(|error| error.to_string())?,
        (Err(_), None) if !field.module.is_empty() => {
            return Err(format!("this kernel gives no BTF for module {}", field.module));
        }
        (Err(error), None) => return Err(error.to_string()),
    };
    if member.bits.is_some() || member.size < field.size {
        return Err(format!(
            "{} is smaller than expected ({} bytes)",
            field.path, member.size
        ));
    }
    Ok(member.byte_offset)
}
