//! The subject of a piece of evidence: a closed list of keys, each with its stable name and its label.

macro_rules! keys {
    ($($id:ident = $name:literal, $label:literal;)*) => {
        /// The subject of a piece of evidence. The name is stable and meant for programs; the label is for people, and
        /// its wording may change.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum Key {
            $(
                #[doc = concat!("`", $name, "`: ", $label)]
                $id,
            )*
        }

        impl Key {
            /// Every key, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$id),*];

            /// The stable name, in kebab case: `key` in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)*
                }
            }

            /// The label that people read: `what` in JSON.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$id => $label,)*
                }
            }
        }
    };
}

keys! {
    // The flow and its packets.
    EarlierFlow = "earlier-flow", "previous connection from this client port";
    SynsSent = "syns-sent", "SYNs sent";
    SynDeliveredTo = "syn-delivered-to", "SYN delivered to";
    SynSentTo = "syn-sent-to", "SYN sent to";
    SynLeftBy = "syn-left-by", "SYN left through";
    SynLength = "syn-length", "SYN length in bytes";
    SynSequence = "syn-sequence", "SYN sequence number";
    SynTimestamp = "syn-timestamp", "SYN TCP timestamp";
    EarlierSyn = "earlier-syn", "previous SYN";
    RetransmittedSyn = "retransmitted-syn", "retransmitted SYN";
    LastSeenAt = "last-seen-at", "last seen at";
    PacketLength = "packet-length", "packet length in bytes";
    Source = "source", "source address";
    Device = "device", "device";
    Qdisc = "qdisc", "qdisc";
    BpfProgram = "bpf-program", "BPF program";
    DeviceAddress = "device-address", "MAC address of the device";
    NeighbourAddress = "neighbour-address", "MAC address in the neighbour entry";
    Bridge = "bridge", "bridge";
    Hairpin = "hairpin", "hairpin of the bridge port";
    BridgeNetfilter = "bridge-netfilter", "netfilter for bridged packets";
    Mtu = "mtu", "MTU";
    RouteMtu = "route-mtu", "route MTU";
    NextHop = "next-hop", "next hop";
    NeighbourState = "neighbour-state", "neighbour state";
    SynAcksSeen = "syn-acks-seen", "SYN-ACKs seen";
    SynAcksSent = "syn-acks-sent", "SYN-ACKs sent";
    SynAcksThroughNode = "syn-acks-through-node", "SYN-ACKs through this node";
    SynAckLeftBy = "syn-ack-left-by", "SYN-ACK left through";
    SynAckLastSeenAt = "syn-ack-last-seen-at", "SYN-ACK last seen at";
    SynAckSource = "syn-ack-source", "SYN-ACK source";
    SynAckAcknowledges = "syn-ack-acknowledges", "the SYN-ACK acknowledges";
    SynAckAddresses = "syn-ack-addresses", "SYN-ACK from the backend";
    SynCameInBy = "syn-came-in-by", "asymmetric path: the SYN came in through";
    SynReachedBackendBy = "syn-reached-backend-by", "SYN reached the backend through";
    SynAckLeftBackendBy = "syn-ack-left-backend-by", "SYN-ACK left the backend through";
    ClientSeenByBackend = "client-seen-by-backend", "client address at the backend";

    // Drops, and what tracer missed.
    DroppedIn = "dropped-in", "dropped in";
    DroppedAt = "dropped-at", "dropped at";
    DropReason = "drop-reason", "drop reason";
    CalledBy = "called-by", "called by";
    InnerCause = "inner-cause", "cause of the drop";
    Outer = "outer", "inside a tunnel";
    RecordsLost = "records-lost", "records lost";
    Depth = "depth", "depth of tracing";
    ProbesSkipped = "probes-skipped", "probes skipped";

    // RST and ICMP.
    IcmpToClient = "icmp-to-client", "ICMP sent to the client";
    IcmpError = "icmp-error", "ICMP error for the packet";
    RstSentBy = "rst-sent-by", "RST sent by";
    RstFirstSeenAt = "rst-first-seen-at", "RST first seen at";
    RstToClient = "rst-to-client", "RST sent to the client";
    RstFromClient = "rst-from-client", "RST from the client";
    ClientReset = "client-reset", "client sent a RST to";

    // The port of a service, and who listens on it.
    PortNamedBy = "port-named-by", "the port is named by";
    PortNamedBefore = "port-named-before", "the port was named by kube-proxy's rules for";
    ListenerOwner = "listener-owner", "process that holds the listener";
    ListenerNeverAccepts = "listener-never-accepts", "connections to the listener";

    // Sockets.
    SynSocket = "syn-socket", "socket for the SYN";
    SynAckSocket = "syn-ack-socket", "socket for the SYN-ACK";
    Listener = "listener", "listener";
    ListenerAccepted = "listener-accepted", "listener accepted the SYN at";
    AcceptQueue = "accept-queue", "accept queue";
    SynQueue = "syn-queue", "SYN queue";
    MaxSynBacklog = "max-syn-backlog", "net.ipv4.tcp_max_syn_backlog of the listener's netns";
    SynCookies = "syn-cookies", "net.ipv4.tcp_syncookies of the listener's netns";
    ListenerDrops = "listener-drops", "increase of the listener's drop counter";
    AcksDropped = "acks-dropped", "ACKs dropped";
    EndedConnection = "ended-connection", "closed connection at the backend";
    EndedConnectionAnswer = "ended-connection-answer", "its answer to the SYN";
    OldConnection = "old-connection", "old connection at the backend";

    // IPVS.
    OwnConnection = "own-connection", "connection opened by this node";
    IpvsVerdict = "ipvs-verdict", "IPVS verdict for the SYN";
    IpvsScheduling = "ipvs-scheduling", "IPVS scheduling";
    IpvsNoService = "ipvs-no-service", "virtual service for the SYN";
    IpvsSchedulerResult = "ipvs-scheduler-result", "IPVS scheduler";
    VirtualService = "virtual-service", "virtual service";
    RealServer = "real-server", "real server";
    EntryServer = "entry-server", "real server of the IPVS entry";
    EntryWeight = "entry-weight", "weight of that real server";
    IpvsEntry = "ipvs-entry", "IPVS entry";
    Affinity = "affinity", "session affinity";
    AffinityTimeout = "affinity-timeout", "session affinity timeout of the service";
    OldEntryState = "old-entry-state", "old IPVS entry: state";
    OldEntryServer = "old-entry-server", "old IPVS entry: real server";
    OldEntryWeight = "old-entry-weight", "old IPVS entry: weight of the real server";
    OldEntryInService = "old-entry-in-service", "old IPVS entry: real server in the service";
    OldEntryAffinity = "old-entry-affinity", "old IPVS entry: session affinity";
    OldEntryExpired = "old-entry-expired", "old IPVS entry: expired";
    OldEntryUsed = "old-entry-used", "old IPVS entry: SYN sent to";
    EntryService = "entry-service", "service of the IPVS entry";
    AskedService = "asked-service", "service the client connected to";
    AnswerEntry = "answer-entry", "IPVS entry for the SYN-ACK";
    IpvsConntrack = "ipvs-conntrack", "net.ipv4.vs.conntrack";
    IpvsDropRate = "ipvs-drop-rate", "IPVS drop_rate";
    IpvsConnCount = "ipvs-conn-count", "IPVS connection entries";
    IpvsConnMax = "ipvs-conn-max", "net.ipv4.vs.conn_max";
    IpvsReuseMode = "ipvs-reuse-mode", "net.ipv4.vs.conn_reuse_mode";
    IpvsExpireNodest = "ipvs-expire-nodest", "net.ipv4.vs.expire_nodest_conn";
    IpvsExpireQuiescent = "ipvs-expire-quiescent", "net.ipv4.vs.expire_quiescent_template";
    IpvsDropPacket = "ipvs-drop-packet", "net.ipv4.vs.drop_packet";
    IpvsAmDroprate = "ipvs-am-droprate", "net.ipv4.vs.am_droprate";
    IpvsAmemthresh = "ipvs-amemthresh", "net.ipv4.vs.amemthresh";

    // conntrack and NAT.
    ConntrackEntry = "conntrack-entry", "conntrack entry";
    SynConntrackEntry = "syn-conntrack-entry", "conntrack entry of the SYN";
    ConntrackState = "conntrack-state", "conntrack state";
    ConntrackInsert = "conntrack-insert", "insertion into the conntrack table";
    WantedTuple = "wanted-tuple", "reply tuple wanted";
    ClashingEntry = "clashing-entry", "conflicting entry";
    ClashingDirection = "clashing-direction", "direction of the conflicting tuple";
    ClashingState = "clashing-state", "state of the conflicting entry";
    NewEntry = "new-entry", "entry for the new connection";
    EarlyDrop = "early-drop", "entry that could be evicted";
    ConntrackCount = "conntrack-count", "net.netfilter.nf_conntrack_count";
    ConntrackMax = "conntrack-max", "net.netfilter.nf_conntrack_max";
    NatRule = "nat-rule", "rule that translated the destination";
    NatSetup = "nat-setup", "NAT for this SYN";
    RulesToBackend = "rules-to-backend", "rules that translate to this backend";
    Masquerade = "masquerade", "masquerade";
    OutputDevice = "output-device", "output device of the SYN";

    // Rules.
    Verdict = "verdict", "verdict";
    ReturnedVerdict = "returned-verdict", "returned to netfilter";
    NetfilterHook = "netfilter-hook", "netfilter hook";
    Table = "table", "table";
    BaseChain = "base-chain", "base chain";
    Chain = "chain", "chain";
    ChainPolicy = "chain-policy", "chain policy";
    Rule = "rule", "rule";
    MarkingRule = "marking-rule", "rule that marked it";
    RuleComment = "rule-comment", "rule comment";
    RuleReason = "rule-reason", "why this rule";
    RuleSince = "rule-since", "rule now";
    MapElementComment = "map-element-comment", "comment of the map element";
    NotDroppedBy = "not-dropped-by", "not dropped by";
    Suspects = "suspects", "could have dropped it";
    CalicoPolicyIn = "calico-policy-in", "Calico policy, inbound";
    CalicoPolicyOut = "calico-policy-out", "Calico policy, outbound";
    CalicoProfileIn = "calico-profile-in", "Calico profile, inbound";
    CalicoProfileOut = "calico-profile-out", "Calico profile, outbound";
    CalicoToWorkload = "calico-to-workload", "Calico rules to the workload at";
    CalicoFromWorkload = "calico-from-workload", "Calico rules from the workload at";
    CalicoToHost = "calico-to-host", "Calico rules to the host through";
    CalicoFromHost = "calico-from-host", "Calico rules from the host through";
    CalicoChain = "calico-chain", "Calico chain";
    TrafficPolicy = "traffic-policy", "externalTrafficPolicy";

    // Routes, neighbours and tunnels.
    Route = "route", "route to";
    RouteError = "route-error", "error of the route to";
    UntrackedBy = "untracked-by", "rule that may exclude it from connection tracking";
    Checksum = "checksum", "TCP checksum";
    CameBack = "came-back", "came in again";
    LeftAgainBy = "left-again-by", "sent on again through";
    Ttl = "ttl", "TTL";
    RpFilter = "rp-filter", "rp_filter";
    RpFilterAll = "rp-filter-all", "net.ipv4.conf.all.rp_filter";
    Forwarding = "forwarding", "forwarding";
    ForwardingAll = "forwarding-all", "net.ipv4.ip_forward";
    NeighbourLimit = "neighbour-limit", "limit of the neighbour table (gc_thresh3)";
    Tunnel = "tunnel", "tunnel";
    OtherNode = "other-node", "other node";
}

impl serde::Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_labels_are_unique() {
        let names: BTreeSet<&str> = Key::ALL.iter().map(|key| key.name()).collect();
        let labels: BTreeSet<&str> = Key::ALL.iter().map(|key| key.label()).collect();
        assert_eq!((names.len(), labels.len()), (Key::ALL.len(), Key::ALL.len()));
    }

    #[test]
    fn names_are_kebab_case() {
        for key in Key::ALL {
            let is_kebab = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(key.name().bytes().all(is_kebab), "{key:?}");
        }
    }
}
