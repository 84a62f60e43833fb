//! How facts of a node are read: netlink, procfs, other network namespaces. Read-only: nothing is loaded, made or changed.

pub mod collect;
mod destinations;
pub mod ipset;
pub mod iptables;
pub mod ipvs;
pub mod kallsyms;
pub mod kube_proxy;
pub mod modules;
pub(crate) mod netlink;
pub mod netns;
pub mod nft;
pub mod route;
pub mod sysctl;
