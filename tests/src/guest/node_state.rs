//! The state of the node, as the kernel's files show it.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// The names of a folder's entries; none if there is no such folder.
pub(super) fn names_in(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// IPVS connections, as the kernel prints them.
pub(super) fn ipvs_connections() -> Vec<String> {
    let table = fs::read_to_string("/proc/net/ip_vs_conn").unwrap_or_default();
    table.lines().skip(1).map(str::to_owned).collect()
}

/// Whether a device of the node carries packets with addresses of this family.
pub(super) fn is_up(device: &str, address: IpAddr) -> bool {
    let state = fs::read_to_string(format!("/sys/class/net/{device}/operstate"));
    state.is_ok_and(|state| state.trim() == "up") && (address.is_ipv4() || has_link_local(device))
}

/// Whether the device has a link-local address, the source of its neighbour solicitations: without one it
/// sends none, and retries only a second later.
fn has_link_local(device: &str) -> bool {
    const LINK: &str = "20";
    let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        matches!(words[..], [_, _, _, LINK, _, name] if name == device)
    })
}
