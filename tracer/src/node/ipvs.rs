//! Reads services and connections of IPVS, and the settings that decide about old connections.
//!
//! Everything is from the calling thread's network namespace, and empty if IPVS is not loaded.

use std::{
    fs::{self, File},
    io::{self, BufReader},
};

use nix::time::{ClockId, clock_getres};

use crate::facts::{
    ipvs::{Connection, Service, parse_connections, parse_services},
    ipvs_settings::Values,
};

/// Reads the virtual services (`/proc/net/ip_vs`).
pub fn services() -> io::Result<Vec<Service>> {
    match open("ip_vs")? {
        Some(file) => parse_services(file, ticks_per_second()?),
        None => Ok(Vec::new()),
    }
}

/// Reads the connections (`/proc/net/ip_vs_conn`) one by one.
pub fn connections() -> io::Result<impl Iterator<Item = io::Result<Connection>>> {
    Ok(open("ip_vs_conn")?.into_iter().flat_map(parse_connections))
}

fn open(name: &str) -> io::Result<Option<BufReader<File>>> {
    match File::open(format!("/proc/thread-self/net/{name}")) {
        Ok(file) => Ok(Some(BufReader::with_capacity(1 << 16, file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `CONFIG_HZ`, which is the resolution of the kernel's coarse clock. IPVS prints times in these ticks.
pub(super) fn ticks_per_second() -> io::Result<u32> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
    let tick = u32::try_from(tick.tv_nsec()).unwrap_or(0);
    if tick == 0 {
        return Err(io::Error::other(
            "the kernel reports no resolution for its coarse clock",
        ));
    }
    Ok((1_000_000_000 + tick / 2) / tick)
}

/// Reads the settings that decide about old connections.
#[must_use]
pub fn settings() -> Values {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/vs/{name}")).ok()?;
        text.trim().parse().ok()
    };
    Values {
        conn_reuse_mode: read("conn_reuse_mode"),
        expire_nodest_conn: read("expire_nodest_conn"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_rate_is_one_of_those_that_kernels_have() {
        assert!([100, 250, 300, 1000].contains(&ticks_per_second().unwrap()));
    }

    #[test]
    fn reads_the_running_kernel() {
        services().unwrap();
        assert!(connections().unwrap().all(|entry| entry.is_ok()));
    }
}
