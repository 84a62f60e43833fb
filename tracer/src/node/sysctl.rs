//! Reads the sysctls of a network namespace.

use std::{collections::BTreeMap, fs, io, path::Path};

use crate::facts::sysctl::Sysctls;

/// Directories, and the prefix of the names that are read in each.
const GROUPS: [(&str, &str); 2] = [("net/ipv4/vs", ""), ("net/netfilter", "nf_conntrack_")];

/// Single settings.
const SINGLE: [&str; 17] = [
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-iptables",
    "net/core/somaxconn",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/ipv4/tcp_abort_on_overflow",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_syncookies",
    "net/ipv4/tcp_synack_retries",
    "net/ipv4/tcp_timestamps",
    "net/ipv4/tcp_tw_reuse",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/neigh/default/gc_thresh3",
];

/// Reads the sysctls of the calling thread's network namespace.
pub fn read() -> io::Result<Sysctls> {
    read_from(Path::new("/proc/sys"))
}

fn read_from(root: &Path) -> io::Result<Sysctls> {
    let mut values = BTreeMap::new();
    let mut add = |name: &str| {
        // Some are write-only, and some need more privileges.
        if let Ok(value) = fs::read_to_string(root.join(name)) {
            values.insert(name.replace('/', "."), value.trim_end().replace('\t', " "));
        }
    };
    for (group, prefix) in GROUPS {
        let entries = match fs::read_dir(root.join(group)) {
            // The module is not loaded.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with(prefix)) else {
                continue;
            };
            add(&format!("{group}/{name}"));
        }
    }
    SINGLE.into_iter().for_each(add);
    Ok(values.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_settings_are_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        };
        write("net/ipv4/vs/conn_reuse_mode", "1\n");
        write("net/ipv4/vs/sync_threshold", "3\t50\n");
        write("net/netfilter/nf_conntrack_max", "262144\n");
        write("net/netfilter/nf_log/0", "NONE\n");
        write("net/ipv4/ip_forward", "1\n");
        let sysctls = read_from(root.path()).unwrap();
        assert_eq!(sysctls.number("net.ipv4.vs.conn_reuse_mode"), Some(1));
        assert_eq!(sysctls.get("net.ipv4.vs.sync_threshold"), Some("3 50"));
        assert_eq!(sysctls.number("net.netfilter.nf_conntrack_max"), Some(262_144));
        assert_eq!(sysctls.iter().count(), 4);
        assert_eq!(sysctls.get("net.ipv4.tcp_syncookies"), None);
    }

    #[test]
    fn an_empty_system_has_no_settings() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read_from(root.path()).unwrap(), Sysctls::default());
    }

    #[test]
    fn reads_the_running_kernel() {
        assert!(read().unwrap().number("net.ipv4.ip_forward").is_some());
    }
}
