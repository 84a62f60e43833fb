//! Facts of the node, as the kernel tells them.

pub mod changed;
pub mod collect;
mod destinations;
pub mod facts;
pub mod ipset;
pub mod iptables;
pub mod ipvs;
pub mod ipvs_settings;
pub mod kallsyms;
pub mod kube_proxy;
pub mod modules;
pub(crate) mod netlink;
pub mod netns;
pub mod nft;
pub mod route;
pub mod sysctl;
pub mod translation;
pub mod xt;
