//! Reads the counters of the node's network namespace.

use crate::{facts::counters::Values, node::host::Host};

/// Reads all counters that `tracer check` judges.
pub(super) fn read(host: &Host) -> Values {
    let text = |name: &str| host.net_text(name).unwrap_or_default();
    let mut out = Values::default();
    out.add_groups(&text("netstat"));
    out.add_groups(&text("snmp"));
    for (group, file) in [
        ("conntrack", "stat/nf_conntrack"),
        ("arp", "stat/arp_cache"),
        ("ndisc", "stat/ndisc_cache"),
    ] {
        out.add_per_cpu(group, &text(file));
    }
    out.add_softnet(&text("softnet_stat"));
    for device in host.names("sys/class/net") {
        let counter = |name: &str| {
            let value = host.word(&format!("sys/class/net/{device}/statistics/{name}"))?;
            value.parse().ok()
        };
        // Packets for which the device's ring had no room. Virtual devices have none.
        for name in ["rx_missed_errors", "rx_fifo_errors"] {
            if host.path(&format!("sys/class/net/{device}/device")).exists()
                && let Some(value) = counter(name)
            {
                out.add(format!("device.{name}"), value);
            }
        }
    }
    out.keep(&WANTED);
    out
}

/// The counters that are judged.
const WANTED: [&str; 27] = [
    "IpExt.InNoRoutes",
    "Tcp.CurrEstab",
    "Tcp.PassiveOpens",
    "TcpExt.EmbryonicRsts",
    "TcpExt.IPReversePathFilter",
    "TcpExt.ListenDrops",
    "TcpExt.ListenOverflows",
    "TcpExt.PAWSPassive",
    "TcpExt.PAWSPassiveRejected",
    "TcpExt.SyncookiesSent",
    "TcpExt.TCPReqQFullDoCookies",
    "TcpExt.TCPReqQFullDrop",
    "TcpExt.TCPTimeWaitOverflow",
    "TcpExt.TWKilled",
    "arp.entries",
    "arp.table_fulls",
    "conntrack.chaintoolong",
    "conntrack.drop",
    "conntrack.early_drop",
    "conntrack.entries",
    "conntrack.insert_failed",
    "conntrack.invalid",
    "device.rx_fifo_errors",
    "device.rx_missed_errors",
    "ndisc.entries",
    "ndisc.table_fulls",
    "softnet.dropped",
];
