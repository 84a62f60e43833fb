//! Reads the list of the kernel's modules.

use std::{fs, io, path::Path};

use crate::facts::modules::Modules;

/// Reads the modules of the running kernel. Without `/lib/modules`, as in most containers, built-in modules are unknown and
/// count as absent.
pub fn read() -> io::Result<Modules> {
    let loaded = match fs::read_to_string("/proc/modules") {
        // A kernel without support for modules has no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let list = Path::new("/lib/modules")
        .join(release.trim())
        .join("modules.builtin");
    Ok(Modules::parse(
        &loaded,
        &fs::read_to_string(list).unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_running_kernel() {
        assert!(!read().unwrap().has("no_such_module"));
    }
}
