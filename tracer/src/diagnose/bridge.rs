//! Packets that a bridge forwards: they are not routed, and pass netfilter only if `br_netfilter` is on.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
};
use crate::{
    facts::{NetnsFacts, link::Link},
    flow::model::Step,
};

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::BridgeHairpinOff,
    group: Group::Network,
    summary: "A pod connects to its own service and the SYN is sent back to that pod, but its bridge does not send a packet back \
              through the port it came in through (hairpin is off).",
    proof: "The translated SYN was freed in br_forward or br_handle_frame_finish, its destination is the pod that sent it, it \
            came in through a port of a bridge, and hairpin is off for that port.",
    advice: Some(
        "Turn on hairpin for the port: `bridge link set dev PORT hairpin on`; to keep it, set `\"hairpinMode\": true` for the \
         bridge plugin in /etc/cni/net.d (flannel: in its delegate).",
    ),
    scope: "Every kernel, for pods on a bridge with br_netfilter, in iptables and nftables mode. IPVS sends the packet itself, so \
            the bridge does not see it come in.",
    hooks: &[&[Hook::NetifReceive], &[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: hairpin_off,
}];

/// The functions in which a bridge frees a packet that it does not forward; the compiler may inline the first into the second.
const FORWARD: [&str; 2] = ["br_forward", "br_handle_frame_finish"];

/// Proves that hairpin is off: only in hairpin mode does a bridge forward a packet through its input port (`should_deliver`,
/// `net/bridge/br_forward.c`, 3.10 to 7.3).
fn hairpin_off(case: &Case<'_>) -> Option<Proof> {
    let dropped = case.dropped.filter(|_| case.situation == Situation::Dropped)?;
    let tuple = &dropped.event.tuple;
    let is_by_bridge = case
        .dropped_in()
        .is_some_and(|symbol| FORWARD.contains(&evidence::function(symbol)));
    if !is_by_bridge
        || dropped.event.part != Part::Syn
        || *tuple == case.flow.original
        || tuple.daddr != case.flow.original.saddr
    {
        return None;
    }
    let known = case.netns()?;
    let came = case.steps().rfind(|step| {
        step.event.hook == Hook::NetifReceive
            && case.flow.is_on_node(&step.event)
            && step.event.part == dropped.event.part
            && step.event.time_ns <= dropped.event.time_ns
    })?;
    let port = known.link(came.event.ifindex)?;
    let bridge = bridge_of(known, port)?;
    if port.hairpin != Some(false) {
        return None;
    }
    let evidence = [
        Evidence::read(
            Key::Bridge,
            format!("{}, port {}", bridge.name, port.name),
            "rtnetlink",
        ),
        Evidence::read(Key::Hairpin, "off", "rtnetlink"),
    ];
    Some(Proof::new(
        format!(
            "The SYN from {} was sent back to that pod ({}), but hairpin is off for its port {} of bridge {}: the bridge dropped \
             the {}.",
            case.flow.client().ip(),
            tuple.destination(),
            port.name,
            bridge.name,
            case.dropped_packet(),
        ),
        evidence.into_iter().chain(evidence::dropped(dropped, case.facts)),
    ))
}

/// A packet that went from one port of a bridge to another.
pub(super) struct Bridged<'a> {
    known: &'a NetnsFacts,
    bridge: &'a Link,
    from: &'a Link,
    to: &'a Link,
    is_v6: bool,
}

impl<'a> Bridged<'a> {
    /// The path through a bridge of the packet that left at this step; `None` if it is not known to have been bridged. A
    /// packet that is routed on a bridge is received again by the bridge device itself (`br_pass_frame_up`,
    /// `net/bridge/br_input.c`, 3.10 to 7.3).
    pub(super) fn of(case: &Case<'a>, left: &Step) -> Option<Self> {
        let known = case.facts.netns.get(&left.event.netns)?;
        let to = known.link(left.event.ifindex)?;
        let bridge = bridge_of(known, to)?;
        // A flooded packet is a copy with a buffer of its own.
        let came = case.steps().rfind(|step| {
            step.event.hook == Hook::NetifReceive
                && step.event.netns == left.event.netns
                && (step.event.part, step.event.tuple) == (left.event.part, left.event.tuple)
                && step.event.time_ns <= left.event.time_ns
        })?;
        let from = known.link(came.event.ifindex)?;
        (bridge_of(known, from)? == bridge).then_some(Self {
            known,
            bridge,
            from,
            to,
            is_v6: left.event.tuple.is_v6(),
        })
    }

    /// Whether it passed no netfilter hook: `br_netfilter` is not loaded, or off for all bridges and for this one
    /// (`br_nf_pre_routing`, `net/bridge/br_netfilter_hooks.c`, 3.10 to 7.3). `None` if the settings were not read.
    pub(super) fn skipped_netfilter(&self) -> Option<bool> {
        // Every namespace has this setting: without it, the settings were not read.
        self.known.sysctls.get("net.ipv4.ip_forward")?;
        let for_all = self.known.sysctls.number(self.setting());
        let for_this = self
            .bridge
            .nf_call
            .map(|nf_call| nf_call[usize::from(self.is_v6)]);
        match (for_all, for_this) {
            (None, _) => Some(true),
            (Some(0), for_this) => for_this.map(|on| !on),
            (Some(_), _) => Some(false),
        }
    }

    /// The setting that makes bridged packets pass netfilter.
    pub(super) fn setting(&self) -> &'static str {
        if self.is_v6 {
            "net.bridge.bridge-nf-call-ip6tables"
        } else {
            "net.bridge.bridge-nf-call-iptables"
        }
    }

    /// Its path through the bridge: `bridge cni0 passed it from calia to calib`.
    pub(super) fn path(&self) -> String {
        format!(
            "bridge {} passed it from {} to {}",
            self.bridge.name, self.from.name, self.to.name
        )
    }

    /// The bridge, and its setting for netfilter.
    pub(super) fn evidence(&self) -> impl Iterator<Item = Evidence> + use<> {
        let value = match self.known.sysctls.get(self.setting()) {
            Some(value) => format!("{value} ({})", self.setting()),
            None => format!("br_netfilter is not loaded (no {})", self.setting()),
        };
        [
            Evidence::read(
                Key::Bridge,
                format!(
                    "{}, from {} to {}",
                    self.bridge.name, self.from.name, self.to.name
                ),
                "rtnetlink",
            ),
            Evidence::read(Key::BridgeNetfilter, value, "/proc/sys"),
        ]
        .into_iter()
    }
}

/// The bridge that a device is a port of.
pub(super) fn bridge_of<'a>(known: &'a NetnsFacts, port: &Link) -> Option<&'a Link> {
    let master = known.link(port.master?)?;
    (master.kind.as_deref() == Some("bridge")).then_some(master)
}
