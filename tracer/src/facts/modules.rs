//! The kernel's modules. tracer checks them before each request to a module, so that it never makes the kernel load one.

use std::collections::BTreeSet;
use std::path::Path;

/// The loaded and the built-in modules.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Modules {
    loaded: BTreeSet<String>,
    built_in: BTreeSet<String>,
}

impl Modules {
    /// Parses `/proc/modules` and `modules.builtin`.
    #[must_use]
    pub fn parse(loaded: &str, built_in: &str) -> Self {
        let state = |line: &str| line.split_ascii_whitespace().nth(4) == Some("Live");
        let first = |line: &str| line.split_ascii_whitespace().next().map(str::to_owned);
        let file = |line: &str| Some(Path::new(line).file_stem()?.to_str()?.replace('-', "_"));
        Self {
            loaded: loaded
                .lines()
                .filter(|line| state(line))
                .filter_map(first)
                .collect(),
            built_in: built_in.lines().filter_map(file).collect(),
        }
    }

    /// Whether the module is loaded and has finished starting.
    #[must_use]
    pub fn is_loaded(&self, module: &str) -> bool {
        self.loaded.contains(&module.replace('-', "_"))
    }

    /// Whether the module is loaded or built in.
    #[must_use]
    pub fn has(&self, module: &str) -> bool {
        self.is_loaded(module) || self.built_in.contains(&module.replace('-', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_loaded_from_built_in_modules() {
        let modules = Modules::parse(
            "ip_vs_rr 12345 1 - Live 0x0000000000000000\n\
             ip_vs 180224 3 ip_vs_rr, Live 0xffffffffc0a00000 (E)\n\
             nf_tables 1 0 - Loading 0x0000000000000000\n\
             odd\n",
            "kernel/net/ipv4/netfilter/nf_defrag-ipv4.ko\nkernel/net/netfilter/x_tables.ko\n",
        );
        assert!(modules.is_loaded("ip_vs") && modules.is_loaded("ip-vs") && modules.has("ip_vs_rr"));
        assert!(!modules.is_loaded("x_tables") && modules.has("x_tables") && modules.has("nf_defrag_ipv4"));
        assert!(!modules.has("nf_tables") && !modules.has("odd") && !modules.has("ip_v"));
    }
}
