//! Reads the [`Facts`] that flows need while tracing.

mod backends;
mod links;
mod names;
mod ports;
mod routes;
mod rules;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use tracer_common::{
    hook::Hook,
    record::{self, ipvs_conn},
    tcp::Part,
    uapi::verdict,
};

use self::{
    links::LinkReader,
    names::NameReading,
    ports::PortReader,
    routes::RouteReader,
    rules::{RuleHits, RuleReader},
};
use super::{destinations::Destinations, ipvs, kube_proxy, max_age::MAX_AGE, netns, nft, sysctl};
use crate::{
    decode::event::{Event, Payload},
    diagnose::Dataplane,
    facts::{Facts, NetnsFacts, changed_facts::ChangedFacts, kallsyms::Symbols, node_state::NodeState},
    flow::model::{Flow, Step},
};

/// IPVS settings older than this are read again when a SYN meets an old IPVS entry.
const SETTINGS_MAX_AGE: Duration = Duration::from_millis(100);
/// How often they are read where a SYN has met an old IPVS entry before.
const SETTINGS_INTERVAL: Duration = Duration::from_millis(250);

/// Of how many network namespaces it is remembered which one has their inode number.
const MAX_IDENTITIES: usize = 1 << 14;

/// Collects facts. Maps are by network namespace (inode number).
#[derive(Debug)]
pub struct Collector {
    facts: Facts,
    changed: ChangedFacts,
    symbols: Arc<Symbols>,
    /// The network namespace that has each inode number.
    identities: HashMap<u32, record::Netns>,
    netns_readings: HashMap<u32, NetnsReading>,
    rule_readers: HashMap<u32, RuleReader>,
    /// Rules that decided since the rules were last read.
    rule_hits: HashMap<u32, RuleHits>,
    name_readings: HashMap<u32, NameReading>,
    ports: PortReader,
    routes: RouteReader,
    destinations: HashMap<u32, Destinations>,
    links: LinkReader,
    /// The network namespaces whose IPVS settings are due to be read.
    settings_wanted: BTreeSet<u32>,
    /// When the settings were last read.
    settings_read: HashMap<u32, Option<Instant>>,
}

impl Collector {
    /// Starts without facts. `drop_reasons` are names and values of this kernel's `enum skb_drop_reason`.
    #[must_use]
    pub fn new(symbols: Arc<Symbols>, drop_reasons: &[(String, i64)]) -> Self {
        let named = drop_reasons.iter().filter_map(|(name, value)| {
            let name = name
                .strip_prefix("SKB_DROP_REASON_")
                .or(name.strip_prefix("SKB_"))
                .unwrap_or(name);
            Some((u32::try_from(*value).ok()?, name.to_owned()))
        });
        let facts = Facts {
            drop_reasons: named.collect(),
            ..Facts::default()
        };
        Self {
            facts,
            changed: ChangedFacts::default(),
            symbols,
            identities: HashMap::new(),
            netns_readings: HashMap::new(),
            rule_readers: HashMap::new(),
            rule_hits: HashMap::new(),
            name_readings: HashMap::new(),
            ports: PortReader::default(),
            routes: RouteReader::default(),
            destinations: HashMap::new(),
            links: LinkReader::default(),
            settings_wanted: BTreeSet::new(),
            settings_read: HashMap::new(),
        }
    }

    /// The facts so far.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The facts that may have changed since the last call.
    pub fn take_changed(&mut self) -> ChangedFacts {
        std::mem::take(&mut self.changed)
    }

    /// The kernel's functions.
    #[must_use]
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Replaces the kernel's functions after modules were loaded or unloaded. Another module may reuse the addresses of an
    /// unloaded one.
    pub fn set_symbols(&mut self, symbols: Arc<Symbols>) {
        self.symbols = symbols;
        self.changed.symbols = true;
        let symbols = &self.symbols;
        self.facts.symbols.retain(|&address, name| {
            symbols
                .locate(address)
                .is_none_or(|location| location.to_string() == *name)
        });
    }

    /// Sets the hooks that cannot show anything.
    pub fn set_absent(&mut self, hooks: impl Iterator<Item = Hook>) {
        self.facts.absent = hooks.collect();
        self.changed.absent = true;
    }

    /// All hooks are attached from now on, or not all of them any more (monotonic nanoseconds).
    pub fn set_watched(&mut self, is_watched: bool, now_ns: u64) {
        if is_watched {
            self.facts.gaps.end(now_ns);
        } else {
            self.facts.gaps.begin(now_ns);
        }
        self.changed.gaps = true;
    }

    /// Sets the state of the node.
    pub fn set_node(&mut self, node: NodeState) {
        self.facts.node = Some(Box::new(node));
        self.changed.node = true;
    }

    /// Records were lost up to now (monotonic nanoseconds).
    pub fn records_lost(&mut self, now_ns: u64) {
        self.facts.lost_ns = Some(now_ns);
        self.changed.lost = true;
    }

    /// Takes an event into account: [`Self::read_rules_hit`] reads a rule that decided, and [`Self::read_ipvs_settings`] the
    /// settings that apply to an old IPVS entry.
    pub fn observe(&mut self, event: &Event) {
        if let Payload::Netns(seen) = &event.payload {
            self.identify(event.netns, *seen, event.time_ns);
            return;
        }
        self.routes.observe(event, &self.symbols);
        if let Payload::IpvsConn(conn) = &event.payload
            && event.hook == Hook::IpvsLookup
            && event.netns != 0
            && conn.conn != 0
            && conn.have & ipvs_conn::EXPIRE_NODEST == 0
        {
            self.settings_wanted.insert(event.netns);
        }
        if let Payload::Socket(socket) = &event.payload
            && event.hook == Hook::TcpSendReset
            && event.part == Part::Syn
            && event.netns != 0
            && socket.sock == 0
        {
            self.ports.want(event.netns);
        }
        let of_rule = match &event.payload {
            Payload::Chain(_) | Payload::Table(_) | Payload::Reject(_) => true,
            Payload::Drop(drop) => self.is_in(drop.location, "nft_do_chain"),
            _ => false,
        };
        if event.netns != 0 && of_rule {
            self.rule_hits.entry(event.netns).or_default().add(event);
        }
    }

    /// Notes which network namespace has this inode number. If it is another one than before, the facts of that one end.
    fn identify(&mut self, netns: u32, seen: record::Netns, time_ns: u64) {
        netns::expect_cookie(netns, seen.cookie);
        if self.identities.len() >= MAX_IDENTITIES && !self.identities.contains_key(&netns) {
            self.identities.clear();
        }
        let before = self.identities.insert(netns, seen);
        if before.is_none_or(|before| before.is_same(&seen)) {
            return;
        }
        self.forget(netns);
        self.rule_hits.remove(&netns);
        self.destinations.remove(&netns);
        self.settings_wanted.remove(&netns);
        self.links.forget(netns);
        self.routes.forget(netns);
        self.facts.forget_netns(netns);
        self.facts.netns_since.insert(netns, time_ns);
        let changed = &mut self.changed;
        changed.routes = true;
        changed.unreachable = true;
        changed.nat_rules = true;
        changed.pids = true;
        changed.netns_since = true;
    }

    fn is_in(&self, address: u64, function: &str) -> bool {
        self.symbols
            .locate(address)
            .is_some_and(|location| location.symbol == function)
    }

    /// Looks up the routes that decided since the last call, before they change.
    pub fn read_routes(&mut self) {
        self.routes.read(&mut self.facts, &mut self.changed);
    }

    /// Reads the rules that decided since the last call, before they are removed.
    pub fn read_rules_hit(&mut self) {
        self.ports.read_wanted();
        for (netns, hits) in std::mem::take(&mut self.rule_hits) {
            self.read_rules(netns, &hits);
        }
    }

    /// Reads the IPVS settings where a SYN met an old entry since the last call, before they change. Where that ever
    /// happened, it also reads them at intervals, to find out when they change.
    pub fn read_ipvs_settings(&mut self) {
        let Self {
            facts,
            changed,
            settings_wanted,
            settings_read,
            ..
        } = self;
        for &netns in settings_wanted.iter() {
            settings_read.entry(netns).or_default();
        }
        settings_read.retain(|&netns, read| {
            let is_wanted = settings_wanted.contains(&netns);
            let max_age = if is_wanted {
                SETTINGS_MAX_AGE
            } else {
                SETTINGS_INTERVAL
            };
            if read.is_some_and(|read| read.elapsed() < max_age) {
                return true;
            }
            settings_wanted.remove(&netns);
            *read = Some(Instant::now());
            let read_settings = || (now_ns(), ipvs::settings());
            let Ok((at_ns, values)) = netns::inside(netns, read_settings) else {
                return false;
            };
            let known = facts.netns.entry(netns).or_default();
            // An unchanged reading at an interval is recorded with the next entry that needs it.
            if known.ipvs_settings.add(at_ns, values) || is_wanted {
                changed.netns.insert(netns);
            }
            true
        });
    }

    fn read_rules(&mut self, netns: u32, hits: &RuleHits) {
        self.changed.netns.insert(netns);
        let known = self.facts.netns.entry(netns).or_default();
        if !self
            .rule_readers
            .entry(netns)
            .or_default()
            .refresh(netns, known, hits)
        {
            self.forget(netns);
        }
    }

    /// Drops the facts of a network namespace that is gone or cannot be entered.
    fn forget(&mut self, netns: u32) {
        self.changed.netns.insert(netns);
        self.facts.netns.remove(&netns);
        self.netns_readings.remove(&netns);
        self.rule_readers.remove(&netns);
        self.name_readings.remove(&netns);
        self.settings_read.remove(&netns);
        self.ports.forget(netns);
    }

    /// Names the kernel functions whose addresses are in a flow's steps.
    pub fn name_functions(&mut self, flow: &Flow) {
        for step in &flow.steps {
            let addresses = match &step.event.payload {
                Payload::Drop(drop) => std::slice::from_ref(&drop.location),
                Payload::Stack(stack) => &stack.frames,
                _ => &[],
            };
            for &address in addresses {
                if let Some(location) = self.symbols.locate(address) {
                    let names = &mut self.facts.symbols;
                    names.entry(address).or_insert_with(|| location.to_string());
                    self.changed.symbols = true;
                }
            }
        }
    }

    /// Reads what the diagnosis of a failed or delayed flow may need. What cannot be read stays unknown.
    pub fn read_for(&mut self, flow: &Flow) {
        self.name_functions(flow);
        self.routes.read_for(flow, &mut self.facts, &mut self.changed);
        self.links.read_for(flow, &mut self.facts, &mut self.changed);
        self.read_port(flow);
        self.read_nat_rules(flow);
        self.find_processes(flow);
        if flow.netns == 0 {
            return;
        }
        let mut hits = RuleHits::default();
        let is_explained = flow.steps.iter().any(shows_verdict);
        for step in flow.steps.iter().filter(|step| flow.is_on_node(&step.event)) {
            match &step.event.payload {
                Payload::Drop(drop) if !is_explained && self.is_in(drop.location, "nf_hook_slow") => {
                    hits.add_any(&step.event);
                }
                Payload::Drop(drop) if self.is_in(drop.location, "nf_queue") => hits.add_any(&step.event),
                Payload::Drop(drop) if !self.is_in(drop.location, "nft_do_chain") => {}
                _ => hits.add(&step.event),
            }
        }
        if !hits.is_empty() {
            self.read_rules(flow.netns, &hits);
        }
        let local_node_ports = flow.steps.iter().any(|step| step.event.hook == Hook::IpvsLeave);
        if let Some(last) = self.netns_readings.get(&flow.netns)
            && last.at.elapsed() < MAX_AGE
            && (last.local_node_ports || !local_node_ports)
        {
            return;
        }
        self.changed.netns.insert(flow.netns);
        let known = self.facts.netns.entry(flow.netns).or_default();
        if netns::inside(flow.netns, || read_netns(known, local_node_ports)).is_ok() {
            self.netns_readings.insert(
                flow.netns,
                NetnsReading {
                    at: Instant::now(),
                    local_node_ports,
                },
            );
        } else {
            self.forget(flow.netns);
        }
    }

    /// Reads which objects name the port of a flow that ended at this node's own TCP without a translation.
    pub fn read_port(&mut self, flow: &Flow) {
        if self.ports.read_for(flow, &mut self.facts.netns) {
            self.changed.netns.insert(flow.netns);
        }
    }

    /// Reads the names of services by NodePort if they are unread, old, or lack the name of the flow's service.
    pub fn read_service_names(&mut self, flow: &Flow) {
        let by_rule = matches!(
            Dataplane::of(flow),
            Some(Dataplane::Iptables | Dataplane::Nftables)
        );
        let has_name = self.facts.service(flow.netns, flow.node()).is_some();
        let is_due = self
            .name_readings
            .get(&flow.netns)
            .is_none_or(|reading| reading.is_due(has_name, by_rule));
        if flow.netns == 0 || !is_due {
            return;
        }
        let begun = Instant::now();
        let read = netns::inside(flow.netns, kube_proxy::node_ports);
        let node_ports = read.map(Result::unwrap_or_default).unwrap_or_default();
        let reading = NameReading::new(begun, !node_ports.is_empty());
        self.name_readings.insert(flow.netns, reading);
        let known = self.facts.netns.entry(flow.netns).or_default();
        self.ports
            .names_read(flow.netns, &known.node_ports, &node_ports, now_ns());
        known.node_ports = node_ports;
        self.changed.netns.insert(flow.netns);
    }
}

/// The monotonic clock, nanoseconds.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.ok()
        .and_then(|now| u64::try_from(now.as_nanos()).ok())
        .unwrap_or(0)
}

/// Whether this step shows who decided on a drop in `nf_hook_slow`.
fn shows_verdict(step: &Step) -> bool {
    let is_rule = matches!(
        step.event.payload,
        Payload::Chain(_) | Payload::Table(_) | Payload::Reject(_)
    );
    is_rule || (step.event.hook.gives_own_verdict() && step.verdict.is_some_and(verdict::is_drop))
}

/// When a network namespace was read, apart from its rules.
#[derive(Debug)]
struct NetnsReading {
    at: Instant,
    /// Whether NodePorts with `externalTrafficPolicy: Local` were read too.
    local_node_ports: bool,
}

/// Reads IPVS services, settings and chains of the calling thread's network namespace.
fn read_netns(known: &mut NetnsFacts, local_node_ports: bool) {
    known.services = ipvs::services().unwrap_or_default();
    known.sysctls = sysctl::read().unwrap_or_default();
    known.chains = nft::chains().unwrap_or_default();
    if local_node_ports {
        known.local_node_ports = kube_proxy::local_node_ports().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::link::Link;

    /// A record of the namespace that has inode number 7 now.
    fn netns_record(time_ns: u64, hash_mix: u32, cookie: u64) -> Event {
        let header = record::Header {
            time_ns,
            netns: 7,
            hook: Hook::NetifReceive as u16,
            ..record::Header::default()
        };
        let seen = record::Netns {
            net: 1,
            cookie,
            hash_mix,
            reserved: 0,
        };
        Event::new(&header, Payload::Netns(seen)).expect("a hook")
    }

    #[test]
    fn facts_of_a_namespace_end_when_another_one_gets_its_number() {
        let mut collector = Collector::new(Arc::default(), &[]);
        collector.observe(&netns_record(10, 5, 0));
        let facts = NetnsFacts {
            links: vec![Link::default()],
            ..NetnsFacts::default()
        };
        collector.facts.netns.insert(7, facts.clone());
        collector.facts.netns.insert(8, facts);
        collector.facts.pids.insert(7, 4242);
        // The same one: a cookie is given on demand.
        collector.observe(&netns_record(20, 5, 0));
        collector.observe(&netns_record(30, 5, 3));
        assert!(collector.facts().netns.contains_key(&7) && collector.facts().netns_since.is_empty());
        collector.observe(&netns_record(40, 6, 4));
        assert!(!collector.facts().netns.contains_key(&7) && collector.facts().netns.contains_key(&8));
        assert!(collector.facts().pids.is_empty());
        assert!(collector.facts().is_of_former_netns(7, 39));
        assert!(!collector.facts().is_of_former_netns(7, 40) && !collector.facts().is_of_former_netns(8, 1));
        let changed = collector.take_changed();
        assert!(changed.netns_since && changed.netns.contains(&7));
    }
}
