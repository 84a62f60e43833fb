//! Reads the objects that name a port of the node, for a SYN to it that nothing translated.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use tracer_common::{hook::Hook, tcp::Part};

use crate::{
    decode::event::Payload,
    facts::{
        NetnsFacts,
        iptables::Packet,
        kube_proxy::NodePorts,
        port::{Listener, NamedBefore, Port},
        xt,
    },
    flow::model::Flow,
    node::{
        netns,
        port::PortObjects,
        sockets::{self, Owners},
    },
};

/// How often the listener of a port that answers connections is read again.
const LISTENER_MAX_AGE: Duration = Duration::from_secs(5);
/// The most ports whose former service is remembered, and the most whose listener should accept a connection.
const MAX_PORTS: usize = 4096;

/// A port of a network namespace: inode number, whether it is IPv6, number.
type Key = (u32, bool, u16);

/// Reads ports when needed.
#[derive(Debug, Default)]
pub(super) struct PortReader {
    objects: HashMap<u32, PortObjects>,
    /// Network namespaces in which a SYN was refused.
    wanted: BTreeSet<u32>,
    /// Services whose ports rules no longer name.
    named_before: HashMap<Key, NamedBefore>,
    /// When the names of services were last read, monotonic nanoseconds.
    names_read: HashMap<u32, u64>,
    /// When the listener of a port was last read, and the first connection that it should accept.
    listeners: HashMap<Key, Answering>,
    owners: Owners,
}

/// A listener of the node itself that answers connections.
#[derive(Debug)]
struct Answering {
    read: Instant,
    /// A connection, and the time at which tracer saw it established.
    first: (SocketAddr, SocketAddr, Instant),
}

impl PortReader {
    /// The names of services were read again, at `now_ns` of the monotonic clock: remembers those that rules no longer name.
    pub(super) fn names_read(&mut self, netns: u32, before: &NodePorts, now: &NodePorts, now_ns: u64) {
        let seen_ns = self.names_read.insert(netns, now_ns).unwrap_or(0);
        for (port, is_v6, service) in before.services() {
            if now.service(port, is_v6).is_none() && self.named_before.len() < MAX_PORTS {
                let service = service.to_owned();
                self.named_before
                    .insert((netns, is_v6, port), NamedBefore { service, seen_ns });
            }
        }
        self.named_before
            .retain(|&(of, is_v6, port), _| of != netns || now.service(port, is_v6).is_none());
    }

    /// The service that rules named for a port when they were last read or before.
    fn named_before(&self, key: Key, known: &NetnsFacts) -> Option<NamedBefore> {
        let (netns, is_v6, port) = key;
        let last = known.node_ports.service(port, is_v6).map(|service| NamedBefore {
            service: service.to_owned(),
            seen_ns: self.names_read.get(&netns).copied().unwrap_or(0),
        });
        last.or_else(|| self.named_before.get(&key).cloned())
    }

    /// Notes that a SYN was refused because no socket listens. [`Self::read_wanted`] then reads the objects that name its
    /// port, before they change.
    pub(super) fn want(&mut self, netns: u32) {
        self.wanted.insert(netns);
    }

    /// Reads the network namespaces in which a SYN was refused since the last call.
    pub(super) fn read_wanted(&mut self) {
        for netns in std::mem::take(&mut self.wanted) {
            self.refresh(netns);
        }
    }

    /// Reads a network namespace again if it is time to.
    fn refresh(&mut self, netns: u32) {
        if self.objects.get(&netns).is_none_or(PortObjects::is_due) {
            match PortObjects::read(netns) {
                Some(read) => drop(self.objects.insert(netns, read)),
                None => drop(self.objects.remove(&netns)),
            }
        }
    }

    /// Forgets a network namespace that is gone.
    pub(super) fn forget(&mut self, netns: u32) {
        self.objects.remove(&netns);
        self.names_read.remove(&netns);
        self.named_before.retain(|&(of, ..), _| of != netns);
        self.listeners.retain(|&(of, ..), _| of != netns);
    }

    /// Reads the objects that name the port of a flow whose SYN this node's own TCP refused, or whose connection a listener
    /// of this node answers, both without a translation. Returns whether facts changed.
    pub(super) fn read_for(&mut self, flow: &Flow, facts: &mut HashMap<u32, NetnsFacts>) -> bool {
        let Some(end) = untranslated_end(flow) else {
            return false;
        };
        let node = flow.node();
        let key = (flow.netns, node.is_ipv6(), node.port());
        if end == Hook::TcpConnRequest && !self.is_listener_due(key, flow) {
            return false;
        }
        // A reading after the SYN is as close to it as one can be.
        let read = self.objects.get(&flow.netns).map(|objects| objects.at_ns);
        if read.is_none_or(|read| read < flow.last_syn_ns()) {
            self.refresh(flow.netns);
        }
        let Some(objects) = self.objects.get(&flow.netns) else {
            return false;
        };
        let known = facts.entry(flow.netns).or_default();
        let device = device(flow);
        let packet = Packet {
            source: flow.client().ip(),
            destination: node.ip(),
            input: device.as_deref(),
            output: Some(""),
            inner: xt::Packet {
                sport: flow.client().port(),
                dport: node.port(),
                tcp_flags: Some(tracer_common::tcp::SYN),
                mark: None,
                ctinfo: None,
                from_node: device.as_deref().map(str::is_empty),
            },
        };
        let mut port = Port {
            read_ns: objects.at_ns,
            is_complete: objects.is_complete,
            objects: objects.index.objects(&packet, device.as_deref() == Some("")),
            named_before: self.named_before(key, known),
            untracked_by: objects.index.untracked_by(&packet),
            listener: None,
        };
        if port.read_ns < flow.last_syn_ns() {
            // The rules may have changed since, so the reason why they did not translate this SYN is unknown.
            port.untracked_by.clear();
            for object in &mut port.objects {
                object.why_not = None;
            }
        }
        if end == Hook::TcpConnRequest && (!port.objects.is_empty() || port.named_before.is_some()) {
            port.listener = self.listener(key, flow);
        }
        known.ports.set(node.port(), node.is_ipv6(), port);
        true
    }

    /// Whether the listener of a port is due to be read. Remembers the first connection.
    fn is_listener_due(&mut self, key: Key, flow: &Flow) -> bool {
        if let Some(known) = self.listeners.get_mut(&key) {
            let is_due = known.read.elapsed() > LISTENER_MAX_AGE;
            if is_due {
                known.read = Instant::now();
            }
            return is_due;
        }
        if self.listeners.len() >= MAX_PORTS {
            self.listeners.clear();
        }
        let now = Instant::now();
        let first = (flow.node(), flow.client(), now);
        self.listeners.insert(key, Answering { read: now, first });
        true
    }

    fn listener(&mut self, key: Key, flow: &Flow) -> Option<Listener> {
        let answering = self.listeners.get_mut(&key)?;
        let (node, client, since) = answering.first;
        let look = || {
            let inode = sockets::listener(flow.node()).ok()??;
            Some((inode, sockets::is_unaccepted(node, client)))
        };
        let (inode, is_unaccepted) = netns::inside(key.0, look).ok()??;
        let waited = if is_unaccepted {
            since.elapsed()
        } else {
            // It was accepted, or is gone: this connection counts from now on.
            answering.first = (flow.node(), flow.client(), Instant::now());
            Duration::ZERO
        };
        Some(Listener {
            inode,
            owner: self.owners.find(inode),
            unaccepted_ns: u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX),
        })
    }
}

/// The hook at which the node's own TCP got the SYN with the address and port that the client sent: it has no socket for it, or
/// a listener.
fn untranslated_end(flow: &Flow) -> Option<Hook> {
    let ends = flow.steps.iter().filter(|step| {
        step.event.part == Part::Syn && step.event.tuple == flow.original && flow.is_on_node(&step.event)
    });
    let mut hooks = ends.filter_map(|step| match (&step.event.payload, step.event.hook) {
        (Payload::Socket(socket), Hook::TcpSendReset) if socket.sock == 0 => Some(Hook::TcpSendReset),
        (Payload::Listener(_), Hook::TcpConnRequest) => Some(Hook::TcpConnRequest),
        _ => None,
    });
    hooks.next().filter(|_| flow.netns != 0)
}

/// The device through which the SYN came in; "" if the node itself sent it.
fn device(flow: &Flow) -> Option<String> {
    let first = flow.steps.first()?;
    match first.event.hook {
        Hook::TcpConnect => Some(String::new()),
        Hook::NetifReceive => first.event.dev.get(),
        _ => None,
    }
}
