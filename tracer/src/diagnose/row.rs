//! One row of the catalogue: all that a cause owns.

use tracer_common::hook::Hook;

use super::{
    case::{Case, Proof},
    cause::Cause,
};

/// One cause.
pub struct Row {
    /// The cause that this row proves.
    pub cause: Cause,
    /// Its group in README and docs.
    pub group: Group,
    /// The event in one sentence, whatever the flow.
    pub summary: &'static str,
    /// The observations that prove it.
    pub proof: &'static str,
    /// The advice, whatever the flow; `None` for [`Cause::Unknown`]. A proof has the advice for its flow.
    pub advice: Option<&'static str>,
    /// On which kernels and dataplanes it can occur, and where it is not detectable.
    pub scope: &'static str,
    /// The hooks that show the proof: one of each group must be attached. The others of a group do the same work on another
    /// kernel or for another address family.
    pub hooks: &'static [&'static [Hook]],
    /// The observation whose absence it relies on.
    pub absence: Absence,
    /// Whether what the hooks at rest show proves it.
    pub light: Light,
    /// Looks for the proof.
    pub(super) detect: fn(&Case<'_>) -> Option<Proof>,
}

impl Row {
    /// Whether what was watched of this SYN can prove the cause.
    pub(super) fn is_provable(&self, case: &Case<'_>) -> bool {
        if case.is_watched() || self.cause == Cause::Unknown {
            return true;
        }
        // IPVS handles the answers of such a connection, with hooks that were not attached.
        !case.flow.is_own_connection
            && match self.light {
                Light::Proves => true,
                Light::WithPath => case.is_path_known(),
                Light::Hidden => false,
            }
    }
}

/// The observation whose absence a cause relies on. Where it may have been missed, the cause is not proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absence {
    /// Nothing: what was seen proves it.
    Nothing,
    /// Something that only tracepoints show. The kernel skips none of those, but their records can be lost.
    Tracepoints,
    /// Something that kprobes show, which the kernel may skip and whose records can be lost.
    Probes,
}

/// Whether a cause is proven for a SYN during which only the hooks at rest were attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Light {
    /// Yes: `detect` relies on no hook that waits for suspicion, whether it shows something or not.
    Proves,
    /// Yes, where those hooks also show how the SYN got to its backend. Otherwise an old entry may have led it there.
    WithPath,
    /// No.
    Hidden,
}

impl Light {
    /// The consequence, for docs/causes.md.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Proves => "names it from the first SYN on.",
            Self::WithPath => {
                "names it from the first SYN on, if the SYN made a new entry in conntrack or, where IPVS is loaded, in IPVS. \
                 Otherwise it shows only that something is wrong."
            }
            Self::Hidden => "shows only that something is wrong.",
        }
    }
}

/// The subject of a cause, for readers who look one up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// IPVS and the connection that used the port before.
    IpvsReuse,
    /// IPVS and its services and real servers.
    IpvsServers,
    /// Firewall rules and traffic policies.
    Rules,
    /// conntrack and NAT.
    Conntrack,
    /// Routing, neighbours, devices and tunnels.
    Network,
    /// The node itself answers: nothing translated the port.
    Service,
    /// The backend's TCP.
    BackendTcp,
    /// The backend, the return path and the client.
    Ends,
    /// None of the others.
    Unknown,
}

impl Group {
    /// Every group, in the order of README and docs.
    pub const ALL: [Self; 9] = [
        Self::IpvsReuse,
        Self::IpvsServers,
        Self::Rules,
        Self::Conntrack,
        Self::Network,
        Self::Service,
        Self::BackendTcp,
        Self::Ends,
        Self::Unknown,
    ];

    /// The title.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::IpvsReuse => "IPVS: an old connection used the port",
            Self::IpvsServers => "IPVS: no usable real server, or the SYN could not be sent",
            Self::Rules => "Firewall rules and traffic policy",
            Self::Conntrack => "conntrack and NAT",
            Self::Network => "Routing, neighbours, devices and tunnels",
            Self::Service => "The node itself answers",
            Self::BackendTcp => "The backend's TCP",
            Self::Ends => "The backend, the return path and the client",
            Self::Unknown => "Not identified: function and drop reason are given",
        }
    }
}
