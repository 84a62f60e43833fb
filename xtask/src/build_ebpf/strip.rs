//! Strips an object down to what a loader needs.

use anyhow::{Context as _, Result, ensure};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// Removes DWARF; keeps code, maps, BTF, relocations and their symbols.
pub(super) fn strip_debug(linked: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(linked).context("not an ELF file")?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete |= name.starts_with(".debug_") || name.starts_with(".rel.debug_");
    }
    builder.delete_orphans();
    let names: Vec<String> = builder
        .sections
        .iter()
        .map(|section| section.name.to_string())
        .collect();
    for needed in [".BTF", ".BTF.ext", "license"] {
        ensure!(
            names.iter().any(|name| name == needed),
            "the section {needed} is missing"
        );
    }
    // LLVM keeps the names of sections and symbols in one table; the writer needs one for each.
    if !builder
        .sections
        .iter()
        .any(|section| matches!(section.data, SectionData::SectionString))
    {
        let table = builder.sections.add();
        table.name = ".shstrtab".into();
        table.sh_type = SHT_STRTAB;
        table.sh_addralign = 1;
        table.data = SectionData::SectionString;
    }
    let mut object = Vec::new();
    builder
        .write(&mut object)
        .context("cannot write the stripped object")?;
    Ok(object)
}
