//! Reads the [`Facts`] that flows need while tracing.

mod backends;
mod ports;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use tracer_common::{hook::Hook, record::ipvs_conn, tcp::Part, uapi::verdict};

use self::{
    ports::PortReader,
    rules::{RuleHits, RuleReader},
};
use super::{destinations::Destinations, ipvs, kube_proxy, max_age::MAX_AGE, netns, nft, route, sysctl};
use crate::{
    decode::event::{Event, Payload},
    facts::{Facts, NetnsFacts, changed_facts::ChangedFacts, kallsyms::Symbols},
    flow::model::{Flow, Step},
};

/// IPVS settings that are older than this are read again when a SYN meets an old IPVS entry.
const SETTINGS_MAX_AGE: Duration = Duration::from_millis(100);
/// How often they are read where a SYN has met an old IPVS entry before.
const SETTINGS_INTERVAL: Duration = Duration::from_millis(250);

/// How many routes are looked up within [`MAX_AGE`], so that a flood of unroutable packets does not keep tracer busy.
const MAX_ROUTE_LOOKUPS: usize = 32;

/// Collects facts. Maps are by network namespace (inode number).
#[derive(Debug)]
pub struct Collector {
    facts: Facts,
    changed: ChangedFacts,
    symbols: Arc<Symbols>,
    netns_readings: HashMap<u32, NetnsReading>,
    rule_readers: HashMap<u32, RuleReader>,
    /// Rules that decided since the rules were last read.
    rule_hits: HashMap<u32, RuleHits>,
    name_readings: HashMap<u32, NameReading>,
    ports: PortReader,
    /// When each route was looked up.
    route_lookups: HashMap<(u32, IpAddr), Instant>,
    destinations: HashMap<u32, Destinations>,
    /// Where IPVS settings are to be read.
    settings_wanted: BTreeSet<u32>,
    /// When they were last read.
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
            netns_readings: HashMap::new(),
            rule_readers: HashMap::new(),
            rule_hits: HashMap::new(),
            name_readings: HashMap::new(),
            ports: PortReader::default(),
            route_lookups: HashMap::new(),
            destinations: HashMap::new(),
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

    /// Records were lost up to now (monotonic nanoseconds).
    pub fn records_lost(&mut self, now_ns: u64) {
        self.facts.lost_ns = Some(now_ns);
        self.changed.lost = true;
    }

    /// Takes an event into account: [`Self::read_rules_hit`] reads a rule that decided, and [`Self::read_ipvs_settings`] the
    /// settings that apply to an old IPVS entry.
    pub fn observe(&mut self, event: &Event) {
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

    fn is_in(&self, address: u64, function: &str) -> bool {
        self.symbols
            .locate(address)
            .is_some_and(|location| location.symbol == function)
    }

    /// Reads the rules that decided since the last call, before somebody removes them.
    pub fn read_rules_hit(&mut self) {
        self.ports.read_wanted();
        for (netns, hits) in std::mem::take(&mut self.rule_hits) {
            self.read_rules(netns, &hits);
        }
    }

    /// Reads the IPVS settings where a SYN met an old entry since the last call, before somebody changes them. Where that
    /// ever happened, it also reads them at intervals, to find out when they change.
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
        self.look_up_routes(flow);
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

    /// Reads what names the port of a flow that ended at this node's own TCP without a translation.
    pub fn read_port(&mut self, flow: &Flow) {
        if self.ports.read_for(flow, &mut self.facts.netns) {
            self.changed.netns.insert(flow.netns);
        }
    }

    /// Reads the names of services by NodePort if they are unread, old, or lack the name of the flow's service.
    pub fn read_service_names(&mut self, flow: &Flow) {
        let is_due = self
            .name_readings
            .get(&flow.netns)
            .is_none_or(|reading| reading.is_due(self.facts.service(flow.netns, flow.node()).is_some()));
        if flow.netns == 0 || !is_due {
            return;
        }
        let begun = Instant::now();
        let read = netns::inside(flow.netns, kube_proxy::node_ports);
        let node_ports = read.map(Result::unwrap_or_default).unwrap_or_default();
        self.name_readings.insert(
            flow.netns,
            NameReading {
                at: Instant::now(),
                cost: begun.elapsed(),
                found_any: !node_ports.is_empty(),
            },
        );
        let known = self.facts.netns.entry(flow.netns).or_default();
        self.ports
            .names_read(flow.netns, &known.node_ports, &node_ports, now_ns());
        known.node_ports = node_ports;
        self.changed.netns.insert(flow.netns);
    }

    /// Looks up the route to each address that routing rejected.
    fn look_up_routes(&mut self, flow: &Flow) {
        let Self {
            facts,
            route_lookups,
            changed,
            ..
        } = self;
        route_lookups.retain(|_, read| read.elapsed() < MAX_AGE);
        changed.routes |= !facts.routes.is_empty();
        facts.routes.retain(|key, _| route_lookups.contains_key(key));
        let mut wanted: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        for step in &flow.steps {
            let event = &step.event;
            let address = match (event.hook, &event.payload) {
                (Hook::RouteMartian, _) => event.tuple.saddr.ip(),
                (Hook::RouteError, _) => event.tuple.daddr.ip(),
                // A listener drops a SYN if it has no route for the answer.
                (_, Payload::Listener(_)) if step.verdict.is_some_and(|drops| drops != 0) => {
                    event.tuple.saddr.ip()
                }
                (_, Payload::Drop(drop)) if facts.symbol(drop.location).is_some_and(drops_unroutable) => {
                    event.tuple.daddr.ip()
                }
                // Is the SYN's destination an address of the namespace that it came into?
                (Hook::NetifReceive, _) if event.part == Part::Syn && !flow.is_on_node(event) => {
                    event.tuple.daddr.ip()
                }
                _ => continue,
            };
            let key = (event.netns, address);
            if event.netns != 0
                && route_lookups.len() < MAX_ROUTE_LOOKUPS
                && !route_lookups.contains_key(&key)
            {
                route_lookups.insert(key, Instant::now());
                wanted.entry(event.netns).or_default().push(address);
            }
        }
        for (netns, addresses) in wanted {
            let look_up = || -> Vec<_> {
                let found = addresses.into_iter().map(|address| (address, route::to(address)));
                found.collect()
            };
            for (address, route) in netns::inside(netns, look_up).unwrap_or_default() {
                if let Ok(route) = route {
                    changed.routes = true;
                    facts.routes.insert((netns, address), route);
                }
            }
        }
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

/// Whether the kernel drops unroutable packets in this function, which has no hook of its own.
fn drops_unroutable(place: &str) -> bool {
    place.starts_with("ip6_pkt_") || place.starts_with("dst_discard")
}

/// When a network namespace was read, apart from its rules.
#[derive(Debug)]
struct NetnsReading {
    at: Instant,
    /// Whether NodePorts with `externalTrafficPolicy: Local` were read too.
    local_node_ports: bool,
}

/// When the names of services were read.
#[derive(Debug)]
struct NameReading {
    at: Instant,
    /// How long reading took.
    cost: Duration,
    /// Whether there were any.
    found_any: bool,
}

/// Names that are older than this are read again. For a flow whose service has no name, [`MAX_AGE`] applies.
const NAMES_MAX_AGE: Duration = Duration::from_secs(10);
/// Reading names takes at most this part of the time: 1/100.
const NAMES_SHARE: u32 = 100;

impl NameReading {
    fn is_due(&self, has_name: bool) -> bool {
        let wait = if has_name || !self.found_any {
            NAMES_MAX_AGE
        } else {
            MAX_AGE
        };
        self.at.elapsed() > wait.max(self.cost * NAMES_SHARE)
    }
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
