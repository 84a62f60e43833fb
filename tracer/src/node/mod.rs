//! Reads the facts of a node: netlink, procfs, other network namespaces. It never makes the kernel load, create or change
//! anything.

pub mod cgroup;
pub mod collect;
pub mod destinations;
pub mod host;
pub mod ipset;
pub mod iptables;
pub mod ipvs;
pub mod kallsyms;
pub mod kube_proxy;
pub mod link;
mod max_age;
pub mod modules;
pub(crate) mod netlink;
pub mod netns;
pub mod nft;
mod port;
pub mod route;
mod sockets;
pub mod state;
pub mod sysctl;
