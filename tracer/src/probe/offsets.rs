//! Offsets of the kernel's struct members, from BTF or proven on the running kernel, and addresses of some variables.

use std::collections::BTreeMap;

use tracer_common::field::{self, Field, MISSING};

use super::btf::{Btf, BtfError};
use crate::facts::{
    kallsyms::{self, Symbols},
    modules::Modules,
};

/// Offsets of modules' structs as the kernel half stores them, by [`Field::index`].
pub(super) type ModuleOffsets = [u32; field::ALL.len()];

/// Whether a module is present, and whether its types are described.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Presence {
    /// Neither loaded nor built in.
    Absent,
    /// Loaded or built in, but without BTF.
    Undescribed,
    /// With BTF.
    Described,
}

/// Constants of the kernel half that hold addresses, and the kernel variables at these addresses.
const VARIABLES: [(&str, &str); 3] = [
    ("PER_CPU_OFFSET", kallsyms::PER_CPU_OFFSET),
    ("CURRENT_KPROBE", kallsyms::CURRENT_KPROBE),
    ("BPF_PROG_ACTIVE", kallsyms::BPF_PROG_ACTIVE),
];

/// The offset of each field of the field table, or why it is unknown.
#[derive(Clone, Debug)]
pub struct Offsets {
    known: BTreeMap<&'static str, Result<u32, String>>,
    drop_reasons: Vec<(String, i64)>,
    /// Offset of the counter of skipped probes in `struct bpf_link_info`; `None` if the kernel does not count them.
    missed_at: Option<u32>,
    variables: [(&'static str, u64); 3],
    modules: BTreeMap<&'static str, Presence>,
}

impl Offsets {
    /// Reads the offsets from the BTF of the kernel, and of its modules where it has that.
    ///
    /// # Errors
    /// The kernel's own BTF is missing or malformed.
    pub fn from_btf(present: &Modules) -> Result<Self, BtfError> {
        let vmlinux = Btf::open_vmlinux()?;
        let mut modules = BTreeMap::new();
        let mut described: BTreeMap<&'static str, Btf> = BTreeMap::new();
        for field in field::ALL.iter().filter(|field| !field.module.is_empty()) {
            if modules.contains_key(field.module) {
                continue;
            }
            let presence = match Btf::open_module(&vmlinux, field.module)? {
                Some(btf) => {
                    described.insert(field.module, btf);
                    Presence::Described
                }
                None if present.has(field.module) => Presence::Undescribed,
                None => Presence::Absent,
            };
            modules.insert(field.module, presence);
        }
        let mut known = BTreeMap::new();
        for field in field::ALL {
            let found = resolve(field, &vmlinux, described.get(field.module));
            let found = found.map_err(|why| match modules.get(field.module) {
                Some(Presence::Absent) => not_loaded(field.module),
                _ => why,
            });
            known.insert(field.constant, found);
        }
        Ok(Self {
            known,
            drop_reasons: vmlinux.enum_values("skb_drop_reason").unwrap_or_default(),
            missed_at: vmlinux
                .member("bpf_link_info.perf_event.kprobe.missed")
                .ok()
                .map(|member| member.byte_offset),
            variables: VARIABLES.map(|(constant, _)| (constant, 0)),
            modules,
        })
    }

    /// Drops the offsets of an unloaded module.
    pub fn forget(&mut self, module: &'static str) {
        self.modules.insert(module, Presence::Absent);
        for field in field::ALL.iter().filter(|field| field.module == module) {
            self.set(field, Err(not_loaded(module)));
        }
    }

    /// The offset of a field in bytes.
    ///
    /// # Errors
    /// Why it is unknown.
    pub fn get(&self, field: &Field) -> Result<u32, &str> {
        match self.known.get(field.constant) {
            Some(Ok(offset)) => Ok(*offset),
            Some(Err(why)) => Err(why),
            None => Err("not in the table of fields"),
        }
    }

    /// Whether the kernel has BTF for this module.
    #[must_use]
    pub fn has_module(&self, module: &str) -> bool {
        self.modules.get(module) == Some(&Presence::Described)
    }

    /// Sets an offset that does not come from BTF, or the reason why there is none.
    pub fn set(&mut self, field: &Field, offset: Result<u32, String>) {
        self.known.insert(field.constant, offset);
    }

    /// The members with unknown offsets, by the reason. Members of absent modules are left out.
    #[must_use]
    pub fn unknown(&self) -> BTreeMap<&str, Vec<&'static str>> {
        let mut out: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
        let there = |field: &&Field| self.modules.get(field.module) != Some(&Presence::Absent);
        // If the struct is described without the member, this kernel does not have that member.
        let is_described = |field: &Field| field.module.is_empty() || self.has_module(field.module);
        let meant = |field: &&Field| !(is_described(field) && field::OPTIONAL.contains(field));
        for field in field::ALL.iter().filter(there).filter(meant) {
            if let Err(why) = self.get(field) {
                out.entry(why).or_default().push(field.path);
            }
        }
        out
    }

    /// Names and values of this kernel's `enum skb_drop_reason`; empty if `skb:kfree_skb` gives no reason.
    #[must_use]
    pub fn drop_reasons(&self) -> &[(String, i64)] {
        &self.drop_reasons
    }

    /// Offset of the counter of skipped probes in `struct bpf_link_info`; `None` if the kernel does not count all that it skips
    /// (before 6.7).
    pub(super) fn missed_at(&self) -> Option<u32> {
        self.missed_at
    }

    /// Name and value of the kernel half's constants with offsets of the kernel image's own structs.
    pub fn constants(&self) -> impl Iterator<Item = (&'static str, u32)> {
        field::ALL
            .iter()
            .filter(|field| field.module.is_empty())
            .map(|field| (field.constant, self.value(field)))
    }

    /// Sets the addresses of the variables that the kernel half reads.
    pub fn set_variables(&mut self, symbols: &Symbols) {
        self.variables = VARIABLES.map(|(constant, name)| (constant, symbols.variable(name).unwrap_or(0)));
    }

    /// Name and value of the kernel half's constants that are addresses; 0 if unknown.
    pub(super) fn variables(&self) -> &[(&'static str, u64)] {
        &self.variables
    }

    /// The offsets of modules' structs, [`MISSING`] if unknown.
    pub(super) fn of_modules(&self) -> ModuleOffsets {
        let mut out = [MISSING; field::ALL.len()];
        for field in field::ALL.iter().filter(|field| !field.module.is_empty()) {
            out[field.index] = self.value(field);
        }
        out
    }

    fn value(&self, field: &Field) -> u32 {
        self.get(field).unwrap_or(MISSING)
    }
}

fn not_loaded(module: &str) -> String {
    format!("module {module} is not loaded")
}

#[cfg(test)]
impl Offsets {
    /// Offsets of these fields only.
    pub(super) fn of(fields: &[(&Field, u32)]) -> Self {
        let missing = field::ALL
            .iter()
            .map(|field| (field.constant, Err("not on this kernel".to_owned())));
        let mut offsets = Self {
            variables: VARIABLES.map(|(constant, _)| (constant, 0)),
            known: missing.collect(),
            drop_reasons: Vec::new(),
            missed_at: None,
            modules: BTreeMap::new(),
        };
        for (field, offset) in fields {
            offsets.set(field, Ok(*offset));
        }
        offsets
    }
}

/// Looks a field up. The kernel's own BTF comes first: built-in modules are described there only.
fn resolve(field: &Field, vmlinux: &Btf, module: Option<&Btf>) -> Result<u32, String> {
    let member = match (vmlinux.member(field.path), module) {
        (Ok(member), _) => member,
        (Err(_), Some(module)) => module.member(field.path).map_err(|error| error.to_string())?,
        (Err(_), None) if !field.module.is_empty() => {
            return Err(format!("this kernel has no BTF for module {}", field.module));
        }
        (Err(error), None) => return Err(error.to_string()),
    };
    if member.bits.is_some() {
        return Err(format!("{} is a bit-field on this kernel", field.path));
    }
    if member.size < field.size {
        return Err(format!(
            "{} has {} bytes on this kernel, {} expected",
            field.path, member.size, field.size
        ));
    }
    Ok(member.byte_offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offsets_of_an_unloaded_module_are_dropped() {
        let field = &field::IP_VS_CONN_STATE;
        let mut offsets = Offsets::of(&[(field, 128), (&field::SK_BUFF_HEAD, 192)]);
        assert_eq!(offsets.of_modules()[field.index], 128);
        assert_eq!(offsets.of_modules()[field::SK_BUFF_HEAD.index], MISSING);
        assert!(
            offsets
                .constants()
                .any(|constant| constant == ("SK_BUFF_HEAD", 192))
        );
        assert!(offsets.constants().all(|(name, _)| name != field.constant));
        assert!(
            offsets
                .unknown()
                .values()
                .flatten()
                .any(|path| path.starts_with("ip_vs_dest."))
        );

        offsets.forget("ip_vs");
        assert_eq!(offsets.of_modules(), [MISSING; field::ALL.len()]);
        assert_eq!(offsets.get(field), Err("module ip_vs is not loaded"));
        assert!(
            !offsets
                .unknown()
                .values()
                .flatten()
                .any(|path| path.starts_with("ip_vs_"))
        );
    }
}
