//! The dataplane that translated the NodePort.

use tracer_common::hook::Hook;

use crate::{decode::event::Payload, flow::model::Flow};

/// The part of the kernel that translated the NodePort to a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dataplane {
    /// An IPVS virtual service.
    Ipvs,
    /// An iptables rule, in a legacy table or written by `iptables-nft`.
    Iptables,
    /// An nf_tables rule.
    Nftables,
    /// None: a socket on the node itself.
    Local,
}

impl Dataplane {
    /// The name on screen, in files and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipvs => "ipvs",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Local => "local",
        }
    }

    /// The dataplane of a flow; `None` if no translation was seen.
    #[must_use]
    pub fn of(flow: &Flow) -> Option<Self> {
        if flow.steps.iter().any(|step| {
            step.event.hook.shows_ipvs()
                || matches!(&step.event.payload, Payload::IpvsConn(conn) if conn.conn != 0)
        }) {
            return Some(Self::Ipvs);
        }
        // A retransmitted SYN may meet other rules: the last one that translated counts.
        let by_rule = flow.steps.iter().rev().find_map(|step| match step.event.hook {
            hook if hook.is_iptables_dnat() => Some(Self::Iptables),
            Hook::NftNat => Some(Self::Nftables),
            _ => None,
        });
        if by_rule.is_some() {
            return by_rule;
        }
        let local = flow.steps.iter().any(|step| {
            matches!(step.event.hook, Hook::TcpConnRequest | Hook::TcpSendReset)
                && step.event.netns == flow.netns
                && step.event.tuple == flow.original
        });
        local.then_some(Self::Local)
    }
}
