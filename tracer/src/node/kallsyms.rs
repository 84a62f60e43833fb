//! Reads the kernel's list of its functions, `/proc/kallsyms`.

use std::{
    fs::File,
    io::{self, BufReader},
};

use crate::facts::kallsyms::Symbols;

/// Reads the running kernel's list.
pub fn read() -> io::Result<Symbols> {
    Symbols::parse(BufReader::with_capacity(1 << 16, File::open("/proc/kallsyms")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_running_kernel() {
        // Without /proc there is nothing to test.
        let Ok(symbols) = read() else { return };
        assert!(symbols.has_function("ip_rcv", None));
    }
}
