//! Reads which modules the kernel has.

use std::{fs, io, path::Path};

use crate::facts::modules::Modules;

/// Reads what the running kernel has. Where `/lib/modules` is absent, as in most containers, what is built in is unknown
/// and counts as absent.
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
