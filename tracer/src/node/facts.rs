//! What is known of the node besides the packets: names for addresses and numbers, tables and settings by netns.
//!
//! Plain data, so that a recording can carry it and tests can write it down.

use std::{collections::HashMap, net::SocketAddr};

/// All facts.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Names of kernel functions by return address, as far as they were asked for (`nf_hook_slow+0xc3`).
    pub symbols: HashMap<u64, String>,
    /// Names of this kernel's drop reasons by number.
    pub drop_reasons: HashMap<u32, String>,
    /// What belongs to one network namespace, by its inode number.
    pub netns: HashMap<u32, NetnsFacts>,
}

/// Facts of one network namespace, with the moment at which they were read.
#[derive(Clone, Debug, Default)]
pub struct NetnsFacts {
    /// Virtual services of IPVS with their real servers (`/proc/net/ip_vs`).
    pub services: Vec<ServiceFacts>,
    /// `net.ipv4.vs.conn_reuse_mode`.
    pub conn_reuse_mode: Option<i64>,
    /// `net.ipv4.vs.expire_nodest_conn`.
    pub expire_nodest_conn: Option<i64>,
    /// Base chains of nf_tables.
    pub chains: Vec<ChainFacts>,
}

/// A virtual service of IPVS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Address and port.
    pub address: SocketAddr,
    /// Its real servers with their weights.
    pub real_servers: Vec<(SocketAddr, i64)>,
}

/// A base chain of nf_tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFacts {
    /// Name of its table.
    pub table: String,
    /// Name of the chain.
    pub chain: String,
    /// Netfilter hook number (`enum nf_inet_hooks`).
    pub nf_hook: u32,
}

impl NetnsFacts {
    /// The service with this address.
    #[must_use]
    pub fn service(&self, address: SocketAddr) -> Option<&ServiceFacts> {
        self.services.iter().find(|service| service.address == address)
    }

    /// Weight of a real server in a service; `None` if it is not in there (any more).
    #[must_use]
    pub fn weight(&self, service: SocketAddr, real_server: SocketAddr) -> Option<i64> {
        let service = self.service(service)?;
        service.real_servers.iter().find(|(address, _)| *address == real_server).map(|&(_, weight)| weight)
    }
}
