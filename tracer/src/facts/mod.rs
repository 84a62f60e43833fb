//! Facts about a node: data, and parsers of the kernel's formats. Pure: `node` reads them.

pub mod changed_facts;
pub mod counters;
pub mod ipset;
pub mod iptables;
pub mod ipvs;
pub mod ipvs_settings;
pub mod kallsyms;
pub mod known;
pub mod kube_proxy;
pub mod link;
pub mod modules;
pub mod nat_rule;
pub mod neighbour;
pub mod netlink;
pub mod nft;
pub mod node_address;
pub mod node_state;
pub mod port;
pub mod port_range;
pub mod reading;
pub mod route;
pub mod route_lookup;
pub mod rule_owner;
pub mod rule_summary;
pub mod sysctl;
pub mod tcp_socket;
pub mod translation;
pub mod xt;

pub use self::known::{Facts, NetnsFacts};
