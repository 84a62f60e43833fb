//! Sysctls of the netns that the calling thread is in.

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name.replace('.', "/"))
}

/// The value, without the line's end.
pub(super) fn read(name: &str) -> Result<String> {
    let value = fs::read_to_string(path(name)).with_context(|| format!("cannot read the sysctl {name}"))?;
    Ok(value.trim_end().to_owned())
}

/// Sets the value.
pub(super) fn write(name: &str, value: impl Display) -> Result<()> {
    fs::write(path(name), value.to_string())
        .with_context(|| format!("cannot set the sysctl {name} to {value}"))
}

/// Keeps IPv6 from every device of this netns.
pub(super) fn no_ipv6() -> Result<()> {
    for which in ["all", "default"] {
        let name = format!("net.ipv6.conf.{which}.disable_ipv6");
        if path(&name).exists() {
            write(&name, 1)?;
        }
    }
    Ok(())
}

/// IPv6 on every device of a netns, without what would make it noisy or late: no duplicate address detection, so that
/// an address is there at once, and nothing from routers.
pub(super) fn ipv6() -> impl Iterator<Item = (String, u8)> {
    ["all", "default"].into_iter().flat_map(|which| {
        [("accept_dad", 0), ("accept_ra", 0), ("disable_ipv6", 0)]
            .map(|(name, value)| (format!("net.ipv6.conf.{which}.{name}"), value))
    })
}

/// Sysctls that were changed, and what they were before.
#[derive(Debug, Default)]
pub(super) struct Changed {
    before: Vec<(String, String)>,
}

impl Changed {
    /// Sets a sysctl and remembers what it was.
    pub(super) fn set(&mut self, name: &str, value: impl Display) -> Result<()> {
        let before = read(name)?;
        write(name, value)?;
        self.before.push((name.to_owned(), before));
        Ok(())
    }

    /// Puts back all that was changed, the last one first.
    pub(super) fn restore(&mut self) -> Result<()> {
        while let Some((name, value)) = self.before.pop() {
            write(&name, value)?;
        }
        Ok(())
    }
}
