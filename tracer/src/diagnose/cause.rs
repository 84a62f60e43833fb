//! The closed list of causes, by name. What each one means and what proves it is one [`super::row::Row`].

macro_rules! causes {
    ($($id:ident = $name:literal,)*) => {
        /// Why a connection failed or was delayed. A new cause comes with its row, the hooks that prove it and a scenario
        /// that makes it happen.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum Cause {
            $(
                #[doc = concat!("`", $name, "`")]
                $id,
            )*
        }

        impl Cause {
            /// Every cause, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$id),*];

            /// The name on screen, in files and in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)*
                }
            }
        }
    };
}

impl Cause {
    /// The family: the name up to its dot. `None` for [`Self::Unknown`].
    #[must_use]
    pub fn family(self) -> Option<&'static str> {
        self.name().split_once('.').map(|(family, _)| family)
    }
}

causes! {
    IpvsReuseDropped = "ipvs.reuse-dropped",
    IpvsNodestExpired = "ipvs.nodest-expired",
    IpvsDestUnavailable = "ipvs.dest-unavailable",
    IpvsReuseStaleBackend = "ipvs.reuse-stale-backend",
    IpvsAffinityStale = "ipvs.affinity-stale",
    IpvsNoService = "ipvs.no-service",
    IpvsNoDestination = "ipvs.no-destination",
    IpvsDestOverloaded = "ipvs.dest-overloaded",
    IpvsConnAllocFailed = "ipvs.conn-alloc-failed",
    IpvsDefenseDrop = "ipvs.defense-drop",
    IpvsXmitNoRoute = "ipvs.xmit-no-route",
    IpvsXmitTtl = "ipvs.xmit-ttl",
    IpvsXmitMtu = "ipvs.xmit-mtu",
    IpvsReplyAsRequest = "ipvs.reply-as-request",
    IpvsLoopbackClient = "ipvs.loopback-client",
    NetfilterRuleDropped = "netfilter.rule-dropped",
    NetfilterRuleRejected = "netfilter.rule-rejected",
    BpfDropped = "bpf.dropped",
    ConntrackTableFull = "conntrack.table-full",
    ConntrackInsertFailed = "conntrack.insert-failed",
    ConntrackInvalid = "conntrack.invalid",
    ConntrackPinned = "conntrack.pinned",
    NatPortExhausted = "nat.port-exhausted",
    NatNoAddress = "nat.no-address",
    RouteRpFilter = "route.rp-filter",
    RouteMartian = "route.martian",
    RouteUnreachable = "route.unreachable",
    RouteForwardingOff = "route.forwarding-off",
    RouteLoop = "route.loop",
    RouteTtlExceeded = "route.ttl-exceeded",
    NeighUnresolved = "neigh.unresolved",
    NeighWrongAddress = "neigh.wrong-address",
    PolicyLocalNoEndpoint = "policy.local-no-endpoint",
    DevTxDropped = "dev.tx-dropped",
    BridgeHairpinOff = "bridge.hairpin-off",
    TunnelMtu = "tunnel.mtu",
    TunnelFailed = "tunnel.failed",
    TcpBadChecksum = "tcp.bad-checksum",
    ServiceNotTranslated = "service.not-translated",
    ServiceAnsweredLocally = "service.answered-locally",
    TcpNoListener = "tcp.no-listener",
    TcpAcceptQueueFull = "tcp.accept-queue-full",
    TcpSynQueueFull = "tcp.syn-queue-full",
    TcpTimestampRejected = "tcp.timestamp-rejected",
    TcpTimewaitRefused = "tcp.timewait-refused",
    TcpOldConnection = "tcp.old-connection",
    TcpFinalAckDropped = "tcp.final-ack-dropped",
    BackendSilent = "backend.silent",
    BackendSlow = "backend.slow",
    ReturnDropped = "return.dropped",
    ReturnNotTranslated = "return.not-translated",
    ReturnBypassed = "return.bypassed",
    ClientSilent = "client.silent",
    Unknown = "unknown",
}

impl Cause {
    /// Whether the connection was misdirected: to the wrong backend, or to the node itself. Then it is a failure even if it
    /// was established.
    #[must_use]
    pub const fn misdirects(self) -> bool {
        matches!(self, Self::ConntrackPinned | Self::ServiceAnsweredLocally)
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

/// Any text: a newer version has more causes.
impl schemars::JsonSchema for Cause {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cause".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}
