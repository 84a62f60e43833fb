//! What a hook's records mean, whatever its function: the groups of hooks that readers of records need, each with its
//! reason.
//!
//! Readers see hooks by their role ([`Hook::role`]), so the methods name no IPv6 twins.

use super::Hook;

impl Hook {
    /// Whether this is a netfilter hook function by which IPVS handles requests.
    #[must_use]
    pub const fn is_ipvs_request(self) -> bool {
        matches!(
            self,
            Self::IpvsIn | Self::IpvsRemoteRequest | Self::IpvsLocalRequest
        )
    }

    /// Whether IPVS sends a request to a real server with this function.
    #[must_use]
    pub const fn is_ipvs_xmit(self) -> bool {
        matches!(self, Self::IpvsNatXmit) || self.is_ipvs_plain_xmit()
    }

    /// Whether it sends the request unmodified, so that the real server answers the client directly.
    #[must_use]
    pub const fn is_ipvs_plain_xmit(self) -> bool {
        matches!(self, Self::IpvsDirectXmit | Self::IpvsTunnelXmit)
    }

    /// Whether a record shows that IPVS handles the connection. These functions run only where IPVS has an entry or a
    /// service for the packet; those that netfilter calls run for every packet.
    #[must_use]
    pub const fn shows_ipvs(self) -> bool {
        self.is_ipvs_xmit()
            || matches!(
                self,
                Self::IpvsSchedule | Self::IpvsLeave | Self::IpvsReply | Self::IpvsExpireNow
            )
    }

    /// Whether a new flow can appear here first. These hooks see the SYN as the client sent it, whether the client is on
    /// this node or not.
    #[must_use]
    pub const fn begins_flow(self) -> bool {
        self.is_ipvs_request() || matches!(self, Self::NetifReceive | Self::TcpConnect)
    }

    /// Whether the packet passes a device here, in or out.
    #[must_use]
    pub const fn is_device(self) -> bool {
        matches!(self, Self::NetifReceive | Self::DevStartXmit)
    }

    /// Whether the SYN of a client on the node can pass here as it is sent, before it leaves by a device. Where the kernel
    /// reports no retransmission, a SYN at one of these hooks shows it.
    #[must_use]
    pub const fn is_output_path(self) -> bool {
        self.is_ipvs_request()
            || self.is_iptables_dnat()
            || self.evaluates_rules()
            || matches!(self, Self::NatSetup | Self::CtIn | Self::NftNat | Self::KfreeSkb)
    }

    /// Whether this step moves the packet on. If so, an earlier drop was that of a copy.
    #[must_use]
    pub const fn shows_progress(self) -> bool {
        self.is_ipvs_xmit()
            || self.is_device()
            || matches!(
                self,
                Self::TcpConnRequest | Self::IpvsReply | Self::TcpFinishConnect
            )
    }

    /// Whether a record shows that a SYN's destination is decided: translated by DNAT, or left unmodified.
    #[must_use]
    pub const fn decides_destination(self) -> bool {
        self.is_ipvs_xmit()
            || self.is_iptables_dnat()
            || matches!(
                self,
                Self::NatSetup | Self::CtConfirm | Self::NftNat | Self::IpvsSchedule
            )
    }

    /// Whether it is DNAT by an iptables rule.
    #[must_use]
    pub const fn is_iptables_dnat(self) -> bool {
        matches!(self, Self::XtDnat | Self::XtDnatV0)
    }

    /// Whether the function evaluates rules, so that its verdict is that of a rule or policy.
    #[must_use]
    pub const fn evaluates_rules(self) -> bool {
        matches!(self, Self::NftDoChain | Self::IptDoTable)
    }

    /// Whether the function gives netfilter a verdict of its own, not that of a rule. If it drops a packet, netfilter frees
    /// the packet in the same function as for a rule (`nf_hook_slow`).
    #[must_use]
    pub const fn gives_own_verdict(self) -> bool {
        self.is_ipvs_request() || matches!(self, Self::CtConfirm)
    }

    /// Whether the function returns a netfilter verdict (`NF_DROP` and so on), not a pointer or an errno.
    #[must_use]
    pub const fn returns_verdict(self) -> bool {
        self.gives_own_verdict()
            || self.evaluates_rules()
            || matches!(
                self,
                Self::IpvsNatXmit | Self::CtIn | Self::NatSetup | Self::NatMasquerade
            )
    }

    /// Whether a socket handles the SYN here: a listener, or the `TIME_WAIT` socket of an earlier connection.
    #[must_use]
    pub const fn receives_syn(self) -> bool {
        matches!(self, Self::TcpConnRequest | Self::TcpTimewait)
    }

    /// Whether the packet arrives at TCP here, where its path ends: at a socket, or refused because there is none.
    #[must_use]
    pub const fn is_tcp_input(self) -> bool {
        self.receives_syn() || matches!(self, Self::TcpSendReset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::{ALL, HookKind};

    #[test]
    fn roles_do_not_contradict_each_other() {
        for row in ALL {
            let hook = row.hook;
            assert!(
                !(hook.evaluates_rules() && hook.gives_own_verdict()),
                "{}",
                row.name
            );
            assert!(!(hook.is_tcp_input() && hook.is_output_path()), "{}", row.name);
            assert!(!(hook.is_ipvs_request() && hook.shows_ipvs()), "{}", row.name);
            assert!(!(hook.is_device() && hook.returns_verdict()), "{}", row.name);
        }
    }

    /// A verdict is read at the return. That of `ip_vs_nat_xmit` is always `NF_STOLEN`, so only older recordings have it.
    #[test]
    fn hooks_that_return_a_verdict_are_calls() {
        for row in ALL.iter().filter(|row| row.hook.returns_verdict()) {
            assert!(
                row.kind == HookKind::Call || row.hook == Hook::IpvsNatXmit,
                "{}",
                row.name
            );
        }
    }
}
