//! The kernel's functions by name and by address, from `/proc/kallsyms`.

use std::fmt;
use std::io::{self, BufRead};

/// Upper limit of a function's length in bytes. An address further beyond a symbol belongs to code without a name.
const MAX_FUNCTION: u64 = 1 << 20;

/// The variables whose addresses are kept.
const VARIABLES: [&str; 3] = [PER_CPU_OFFSET, CURRENT_KPROBE, BPF_PROG_ACTIVE];

/// Offset of each CPU's variables, `unsigned long` by CPU (`arch/x86/kernel/setup_percpu.c`, 3.10 to 7.3).
pub const PER_CPU_OFFSET: &str = "__per_cpu_offset";
/// The kprobe whose handler is running, per CPU (`arch/x86/kernel/kprobes/core.c`, 3.10 to 7.3).
pub const CURRENT_KPROBE: &str = "current_kprobe";
/// Nonzero while a BPF program runs that no other may interrupt, per CPU (`kernel/bpf/syscall.c`, 4.1 to 7.3).
pub const BPF_PROG_ACTIVE: &str = "bpf_prog_active";

/// The functions of the kernel and its modules, as of the time of reading.
#[derive(Debug, Default)]
pub struct Symbols {
    /// Sorted by address.
    entries: Vec<Entry>,
    names: String,
    modules: Vec<String>,
    /// Addresses of [`VARIABLES`]; 0 if unknown.
    variables: [u64; VARIABLES.len()],
}

/// One function. Kept small, because there are some 150 000.
#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    name: u32,
    length: u16,
    /// 0 for the kernel itself, else the index of the module plus 1.
    module: u16,
}

/// A location in the kernel's code. Displays as `symbol+0x12 [module]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location<'a> {
    /// The function.
    pub symbol: &'a str,
    /// Offset in bytes from the function's start.
    pub offset: u64,
    /// The module; `None` for the kernel itself.
    pub module: Option<&'a str>,
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol)?;
        if self.offset != 0 {
            write!(f, "+{:#x}", self.offset)?;
        }
        self.module.map_or(Ok(()), |module| write!(f, " [{module}]"))
    }
}

impl Symbols {
    /// Parses a list in the form of `/proc/kallsyms`. Malformed lines are skipped.
    pub fn parse(mut list: impl BufRead) -> io::Result<Self> {
        let mut symbols = Self::default();
        let mut line = Vec::with_capacity(256);
        while list.read_until(b'\n', &mut line)? != 0 {
            symbols.add(line.strip_suffix(b"\n").unwrap_or(&line));
            line.clear();
        }
        // Stable, so that the first of several names for one address stays first.
        symbols.entries.sort_by_key(|entry| entry.address);
        Ok(symbols)
    }

    /// Whether there is a function with exactly this name, in this module or, if none is given, anywhere.
    #[must_use]
    pub fn has_function(&self, name: &str, module: Option<&str>) -> bool {
        self.count_functions(name, module) != 0
    }

    /// Number of functions with exactly this name. A probe on an ambiguous name is of little use.
    #[must_use]
    pub fn count_functions(&self, name: &str, module: Option<&str>) -> usize {
        let same_name = |entry: &&Entry| usize::from(entry.length) == name.len() && self.name(entry) == name;
        let same_module = |entry: &&Entry| module.is_none() || self.module(entry) == module;
        self.entries.iter().filter(same_name).filter(same_module).count()
    }

    /// The function at an address. `None` also if the kernel hides addresses from this process.
    #[must_use]
    pub fn locate(&self, address: u64) -> Option<Location<'_>> {
        let behind = self.entries.partition_point(|entry| entry.address <= address);
        let start = self.entries[..behind].last()?.address;
        let offset = address - start;
        if start == 0 || offset > MAX_FUNCTION {
            return None;
        }
        let first = self.entries[..behind].partition_point(|entry| entry.address < start);
        let entry = &self.entries[first];
        Some(Location {
            symbol: self.name(entry),
            offset,
            module: self.module(entry),
        })
    }

    /// Address of a kept variable, for example [`CURRENT_KPROBE`]. For a CPU's own copy, add its word of
    /// [`PER_CPU_OFFSET`]. `None` if the kernel lacks, hides or does not list the variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<u64> {
        let index = VARIABLES.iter().position(|known| *known == name)?;
        Some(self.variables[index]).filter(|&address| address != 0)
    }

    fn name(&self, entry: &Entry) -> &str {
        let start = entry.name as usize;
        self.names
            .get(start..start + usize::from(entry.length))
            .unwrap_or_default()
    }

    fn module(&self, entry: &Entry) -> Option<&str> {
        self.modules
            .get(usize::from(entry.module).checked_sub(1)?)
            .map(String::as_str)
    }

    fn add(&mut self, line: &[u8]) -> Option<()> {
        let (address, rest) = line.split_at_checked(line.iter().position(|&byte| byte == b' ')?)?;
        let &[b' ', kind, b' ', ref rest @ ..] = rest else {
            return None;
        };
        if !matches!(kind, b't' | b'T' | b'w' | b'W') {
            let index = VARIABLES.iter().position(|name| name.as_bytes() == rest)?;
            self.variables[index] = number(address)?;
            return None;
        }
        let address = number(address)?;
        let tab = rest.iter().position(|&byte| byte == b'\t');
        let name = str::from_utf8(&rest[..tab.unwrap_or(rest.len())]).ok()?;
        let module = match tab {
            None => 0,
            Some(tab) => self.module_number(rest[tab..].strip_prefix(b"\t[")?.strip_suffix(b"]")?)?,
        };
        let start = u32::try_from(self.names.len()).ok()?;
        let length = u16::try_from(name.len()).ok()?;
        self.names.push_str(name);
        self.entries.push(Entry {
            address,
            name: start,
            length,
            module,
        });
        Some(())
    }

    fn module_number(&mut self, name: &[u8]) -> Option<u16> {
        // The symbols of a module are consecutive.
        if self.modules.last().is_none_or(|last| last.as_bytes() != name) {
            self.modules.push(str::from_utf8(name).ok()?.to_owned());
        }
        u16::try_from(self.modules.len()).ok()
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |sum, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(sum << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"ffffffff81000000 T _text\n\
        ffffffff81000000 T startup_64\n\
        ffffffff81a00100 t ip_rcv_core\n\
        ffffffff81a00200 T ip_rcv\n\
        ffffffff82000000 D jiffies\n\
        0000000000021e40 D current_kprobe\n\
        0000000000000000 A bpf_prog_active\n\
        garbage\n\
        \n\
        ffffffffc0100000 t ip_vs_in_hook\t[ip_vs]\n\
        ffffffffc0100400 t init\t[ip_vs]\n\
        ffffffffc00f0000 t init\t[nf_conntrack]\n\
        zz T broken\n\
        ffffffffc00f0100 T nf_ct_get\t[nf_conntrack";

    fn symbols() -> Symbols {
        Symbols::parse(LIST).unwrap()
    }

    #[test]
    fn finds_functions_by_name() {
        let symbols = symbols();
        assert!(symbols.has_function("ip_rcv", None));
        assert!(!symbols.has_function("ip_rcv", Some("ip_vs")));
        assert!(symbols.has_function("ip_vs_in_hook", Some("ip_vs")));
        assert!(symbols.has_function("ip_vs_in_hook", None));
        assert_eq!(symbols.count_functions("init", None), 2);
        assert_eq!(symbols.count_functions("init", Some("nf_conntrack")), 1);
        for name in ["ip_rc", "ip_rcv_", "jiffies", "broken", "nf_ct_get", ""] {
            assert!(!symbols.has_function(name, None), "{name}");
        }
    }

    #[test]
    fn only_the_kept_variables_have_addresses() {
        let symbols = symbols();
        assert_eq!(symbols.variable(CURRENT_KPROBE), Some(0x21e40));
        // Hidden, not listed, not kept.
        for name in [BPF_PROG_ACTIVE, PER_CPU_OFFSET, "jiffies"] {
            assert_eq!(symbols.variable(name), None, "{name}");
        }
        assert!(!symbols.has_function(CURRENT_KPROBE, None));
    }

    #[test]
    fn finds_functions_by_address() {
        let symbols = symbols();
        let text = |address| symbols.locate(address).map(|place| place.to_string());
        assert_eq!(text(0xffff_ffff_81a0_0100).unwrap(), "ip_rcv_core");
        assert_eq!(text(0xffff_ffff_81a0_0212).unwrap(), "ip_rcv+0x12");
        assert_eq!(
            text(0xffff_ffff_c010_03ff).unwrap(),
            "ip_vs_in_hook+0x3ff [ip_vs]"
        );
        assert_eq!(text(0xffff_ffff_c00f_0010).unwrap(), "init+0x10 [nf_conntrack]");
        assert_eq!(text(0xffff_ffff_8100_0001).unwrap(), "_text+0x1");
        assert_eq!(text(0xffff_ffff_8000_0000), None);
        assert_eq!(text(0xffff_ffff_ffff_ffff), None);
    }

    #[test]
    fn hidden_addresses_still_have_names() {
        let symbols = Symbols::parse(&b"0000000000000000 T ip_rcv\n0000000000000000 t x\t[m]\n"[..]).unwrap();
        assert!(symbols.has_function("ip_rcv", None));
        assert_eq!(symbols.locate(0), None);
        assert_eq!(symbols.locate(4096), None);
    }
}
