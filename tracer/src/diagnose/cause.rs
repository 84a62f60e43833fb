//! The closed list of causes: name, advice, and where each can occur.

/// Why a flow ended badly. A cause is added together with the hooks that prove it and a scenario that makes it happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// A reused client port met an old entry in `TIME_WAIT` or `CLOSE`; the SYN was sacrificed.
    IpvsReuseDropped,
    /// The old entry's real server is draining; the entry was expired and the SYN sacrificed.
    IpvsNodestExpired,
    /// The old entry's real server was removed; every SYN is dropped in silence.
    IpvsDestUnavailable,
    /// The SYN was sent to the draining or removed real server of an old entry.
    IpvsReuseStaleBackend,
    /// No virtual service for the address and port.
    IpvsNoService,
    /// The virtual service has no real server with weight.
    IpvsNoDestination,
    /// A base chain, or a rule reached from it, dropped the packet.
    NetfilterRuleDropped,
    /// Nothing listens on the backend's port.
    TcpNoListener,
    /// The SYN was delivered and nothing came back.
    BackendSilent,
    /// The SYN-ACK came later than the client's repetition.
    BackendSlow,
    /// The SYN-ACK was discarded on this node.
    ReturnDropped,
    /// Nothing known explains it.
    Unknown,
}

impl Cause {
    /// Every cause.
    pub const ALL: &'static [Self] = &[
        Self::IpvsReuseDropped,
        Self::IpvsNodestExpired,
        Self::IpvsDestUnavailable,
        Self::IpvsReuseStaleBackend,
        Self::IpvsNoService,
        Self::IpvsNoDestination,
        Self::NetfilterRuleDropped,
        Self::TcpNoListener,
        Self::BackendSilent,
        Self::BackendSlow,
        Self::ReturnDropped,
        Self::Unknown,
    ];

    /// The name that users and files see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IpvsReuseDropped => "ipvs.reuse-dropped",
            Self::IpvsNodestExpired => "ipvs.nodest-expired",
            Self::IpvsDestUnavailable => "ipvs.dest-unavailable",
            Self::IpvsReuseStaleBackend => "ipvs.reuse-stale-backend",
            Self::IpvsNoService => "ipvs.no-service",
            Self::IpvsNoDestination => "ipvs.no-destination",
            Self::NetfilterRuleDropped => "netfilter.rule-dropped",
            Self::TcpNoListener => "tcp.no-listener",
            Self::BackendSilent => "backend.silent",
            Self::BackendSlow => "backend.slow",
            Self::ReturnDropped => "return.dropped",
            Self::Unknown => "unknown",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::IpvsReuseDropped => {
                "Set net.ipv4.vs.conn_reuse_mode=0 together with expire_nodest_conn=1 (kernels before 4.1 by number, \
                 such as CentOS 7's 3.10, may have the setting too: look whether the file exists), or run a kernel \
                 of 5.9 or later; if the backend ends its connections with RST, let it close with FIN; keep \
                 connections alive, so that clients reuse fewer ports."
            }
            Self::IpvsNodestExpired => {
                "Expected while a backend drains or after it was removed: the next SYN gets through. Shorten the drain, \
                 keep connections alive, or let the backend close with FIN so that no old conntrack entry is left."
            }
            Self::IpvsDestUnavailable => {
                "Set net.ipv4.vs.expire_nodest_conn=1. Until then the client's port works again when the old entry \
                 times out (120 s after a close, 900 s if it was established): see `ipvsadm -Lnc`."
            }
            Self::IpvsReuseStaleBackend => {
                "Set net.ipv4.vs.expire_nodest_conn=1, so that entries of draining backends are not used for new \
                 connections (kernels since 5.16 and many stable ones do so even with conn_reuse_mode=0)."
            }
            Self::IpvsNoService => {
                "kube-proxy has made no virtual service for this address and port here: look at its log, at \
                 --nodeport-addresses, and at `ipvsadm -Ln` in this network namespace."
            }
            Self::IpvsNoDestination => {
                "The service has no usable endpoint on this node: look at its endpoints and their readiness, and at \
                 externalTrafficPolicy: Local."
            }
            Self::NetfilterRuleDropped => {
                "Look at the chain: `nft -a list chain` with the family, table and name given."
            }
            Self::TcpNoListener => {
                "The pod is reached but nothing listens on that port: look at targetPort and the container."
            }
            Self::BackendSilent => {
                "The SYN was delivered: look at the pod (its own firewall, its CPU, a stopped process) or, if it runs \
                 on another node, trace there."
            }
            Self::BackendSlow => "Look at the load of the pod and of the node it runs on.",
            Self::ReturnDropped => {
                "Look at the part of this node that is named as having discarded the answer."
            }
            Self::Unknown => return None,
        })
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl serde::Serialize for Cause {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_own_name_and_all_but_unknown_an_advice() {
        for (index, cause) in Cause::ALL.iter().enumerate() {
            assert!(
                Cause::ALL[..index]
                    .iter()
                    .all(|other| other.name() != cause.name())
            );
            assert_eq!(cause.advice().is_none(), *cause == Cause::Unknown);
        }
    }
}
