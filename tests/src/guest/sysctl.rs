//! Sysctls of the calling thread's netns.

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name.replace('.', "/"))
}

/// Reads the value, without the newline.
pub(super) fn read(name: &str) -> Result<String> {
    let value = fs::read_to_string(path(name)).with_context(|| format!("cannot read the sysctl {name}"))?;
    Ok(value.trim_end().to_owned())
}

/// Sets the value.
pub(super) fn write(name: &str, value: impl Display) -> Result<()> {
    fs::write(path(name), value.to_string())
        .with_context(|| format!("cannot set the sysctl {name} to {value}"))
}

/// Disables IPv6 on every device of this netns.
pub(super) fn no_ipv6() -> Result<()> {
    for which in ["all", "default"] {
        let name = format!("net.ipv6.conf.{which}.disable_ipv6");
        if path(&name).exists() {
            write(&name, 1)?;
        }
    }
    Ok(())
}

/// The sysctls that enable IPv6 on every device of a netns without noise or delay: no duplicate address
/// detection, so that an address is usable at once, and no router advertisements.
pub(super) fn ipv6() -> impl Iterator<Item = (String, u8)> {
    ["all", "default"].into_iter().flat_map(|which| {
        [("accept_dad", 0), ("accept_ra", 0), ("disable_ipv6", 0)]
            .map(|(name, value)| (format!("net.ipv6.conf.{which}.{name}"), value))
    })
}

/// Changed sysctls with their previous values.
#[derive(Debug, Default)]
pub(super) struct Changed {
    before: Vec<(String, String)>,
}

impl Changed {
    /// Sets a sysctl and records its previous value.
    pub(super) fn set(&mut self, name: &str, value: impl Display) -> Result<()> {
        let before = read(name)?;
        write(name, value)?;
        self.before.push((name.to_owned(), before));
        Ok(())
    }

    /// Restores everything that was changed, the last change first.
    pub(super) fn restore(&mut self) -> Result<()> {
        while let Some((name, value)) = self.before.pop() {
            write(&name, value)?;
        }
        Ok(())
    }
}
