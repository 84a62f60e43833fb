//! The objects that name a port of the node for a service, and the socket that listens on it. Read for a SYN that nothing
//! translated.

pub mod index;
mod walk;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// The most ports of a network namespace whose facts are kept.
const MAX_PORTS: usize = 256;

/// The ports of one network namespace that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Numbered>", into = "Vec<Numbered>")]
pub struct Ports {
    /// By family (whether it is IPv6) and number.
    of: BTreeMap<(bool, u16), Port>,
}

/// One of [`Ports`] as stored in a recording: whether it is IPv6, its number, the facts.
type Numbered = (bool, u16, Port);

impl From<Vec<Numbered>> for Ports {
    fn from(ports: Vec<Numbered>) -> Self {
        let ports = ports.into_iter();
        Self {
            of: ports
                .map(|(is_v6, number, port)| ((is_v6, number), port))
                .collect(),
        }
    }
}

impl From<Ports> for Vec<Numbered> {
    fn from(ports: Ports) -> Self {
        let ports = ports.of.into_iter();
        ports
            .map(|((is_v6, number), port)| (is_v6, number, port))
            .collect()
    }
}

impl Ports {
    /// The facts of a port, if they were read.
    #[must_use]
    pub fn get(&self, number: u16, is_v6: bool) -> Option<&Port> {
        self.of.get(&(is_v6, number))
    }

    /// Sets the facts of a port. If there are too many ports, the one that was read first is dropped.
    pub fn set(&mut self, number: u16, is_v6: bool, port: Port) {
        self.of.insert((is_v6, number), port);
        if self.of.len() > MAX_PORTS {
            let oldest = self.of.iter().min_by_key(|(_, port)| port.read_ns);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                self.of.remove(&key);
            }
        }
    }
}

/// What was read about one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// When it was read, monotonic nanoseconds.
    pub read_ns: u64,
    /// Whether rules, maps, IP sets and virtual services could all be read.
    pub is_complete: bool,
    /// The objects that name the port for a service, at most [`MAX_OBJECTS`].
    pub objects: Vec<PortObject>,
    /// The service that kube-proxy's rules named for the port before, if they no longer do.
    pub named_before: Option<NamedBefore>,
    /// Rules that may have excluded the packet from connection tracking.
    pub untracked_by: Vec<String>,
    /// The socket that listens on the port; `None` if there is none, or it could not be read.
    pub listener: Option<Listener>,
}

/// The most objects kept for a port.
pub const MAX_OBJECTS: usize = 8;

/// A service that rules named before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedBefore {
    /// `NAMESPACE/NAME`.
    pub service: String,
    /// When the rules were last seen to name it, monotonic nanoseconds.
    pub seen_ns: u64,
}

/// An object of the node that names a port for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortObject {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its place, as part of a sentence: `rule 3 of chain KUBE-NODEPORTS in iptables' legacy table nat`.
    pub place: String,
    /// The service that it names, as `NAMESPACE/NAME`.
    pub service: Option<String>,
    /// Why it did not translate the packet, if known.
    pub why_not: Option<WhyNot>,
}

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObjectKind {
    /// An IP set of kube-proxy's IPVS mode.
    IpSet,
    /// A virtual service of IPVS.
    VirtualService,
    /// A rule.
    Rule,
    /// An element of a map of nf_tables.
    MapElement,
}

/// Why an object did not translate a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhyNot {
    /// It is for another destination address.
    OtherAddress,
    /// No rule leads to its chain.
    NotReached,
    /// It does not match the packet.
    NoMatch,
    /// This rule may end the chain before it.
    EndedBefore(String),
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherAddress => f.write_str("it is for another address"),
            Self::NotReached => f.write_str("no rule leads to it"),
            Self::NoMatch => f.write_str("it does not match this SYN"),
            Self::EndedBefore(rule) => write!(f, "{rule} comes first and can accept or skip this SYN"),
        }
    }
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The inode number of the socket.
    pub inode: u32,
    /// The process that holds it; `None` if it was not found.
    pub owner: Option<Process>,
    /// The least time that a connection had been waiting for `accept()`, in nanoseconds; 0 if none was seen to wait.
    pub unaccepted_ns: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its PID.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`).
    pub name: String,
    /// Whether it is kube-proxy.
    pub is_kube_proxy: bool,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (PID {})", self.name, self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_in_a_recording_stay() {
        let mut ports = Ports::default();
        let port = Port {
            read_ns: 9,
            is_complete: true,
            objects: vec![PortObject {
                kind: ObjectKind::IpSet,
                place: "IP set A".to_owned(),
                service: None,
                why_not: Some(WhyNot::EndedBefore("rule 1".to_owned())),
            }],
            ..Port::default()
        };
        ports.set(30_080, false, port);
        let json = serde_json::to_string(&ports).expect("JSON");
        assert_eq!(
            json,
            r#"[[false,30080,{"read_ns":9,"is_complete":true,"objects":[{"kind":"IpSet","place":"IP set A","service":null,"why_not":{"EndedBefore":"rule 1"}}],"named_before":null,"untracked_by":[],"listener":null}]]"#
        );
        let read: Ports = serde_json::from_str(&json).expect("ports");
        assert_eq!(read, ports);
        // An older tracer wrote less.
        let older: Ports = serde_json::from_str(r#"[[true,1,{"read_ns":2}]]"#).expect("ports");
        assert_eq!(older.get(1, true).map(|port| port.read_ns), Some(2));
    }

    #[test]
    fn few_ports_are_kept() {
        let mut ports = Ports::default();
        for number in 0..1000 {
            let port = Port {
                read_ns: number.into(),
                ..Port::default()
            };
            ports.set(number, false, port);
        }
        assert_eq!(ports.of.len(), MAX_PORTS);
        assert!(ports.get(999, false).is_some() && ports.get(0, false).is_none());
    }
}
