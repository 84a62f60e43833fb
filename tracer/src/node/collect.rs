//! Fills in [`Facts`] while tracing, as far as flows ask for them.

mod rules;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use tracer_common::{hook::Hook, record::ipvs_conn};

use self::rules::Rules;
use super::{destinations::Destinations, ipvs, kube_proxy, netns, nft, route, sysctl};
use crate::{
    decode::event::{Event, What},
    facts::{Facts, NetnsFacts, changed_facts::ChangedFacts, kallsyms::Symbols},
    flow::model::{Flow, Step},
};

const NF_DROP: i32 = 0;

/// Tables and settings are read again when they are older than this.
const FRESH: Duration = Duration::from_secs(1);

/// Settings of IPVS are read again for what came later than this.
const SETTINGS_FRESH: Duration = Duration::from_millis(100);
/// And so often where such an entry was met before.
const SETTINGS_WATCHED: Duration = Duration::from_millis(250);

/// So many ways are asked for within [`FRESH`]: a flood of packets without a way must not keep tracer busy.
const MOST_WAYS: usize = 32;

/// The facts so far, and what they are read from.
#[derive(Debug)]
pub struct Collector {
    facts: Facts,
    changed: ChangedFacts,
    symbols: Arc<Symbols>,
    read: HashMap<u32, Look>,
    rules: HashMap<u32, Rules>,
    met: HashMap<u32, rules::Wanted>,
    named: HashMap<u32, Names>,
    ways: HashMap<(u32, IpAddr), Instant>,
    led: HashMap<u32, Destinations>,
    /// Where the settings of IPVS are to be read, and when they were read last.
    settings_met: BTreeSet<u32>,
    settings_read: HashMap<u32, Option<Instant>>,
}

impl Collector {
    /// `drop_reasons` are names and values of this kernel's `enum skb_drop_reason`.
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
            read: HashMap::new(),
            rules: HashMap::new(),
            met: HashMap::new(),
            named: HashMap::new(),
            ways: HashMap::new(),
            led: HashMap::new(),
            settings_met: BTreeSet::new(),
            settings_read: HashMap::new(),
        }
    }

    /// What is known.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Which of the facts may be others than when this was last asked.
    pub fn take_changed(&mut self) -> ChangedFacts {
        std::mem::take(&mut self.changed)
    }

    /// The kernel's functions as they are known now.
    #[must_use]
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Takes over the kernel's functions after modules came or went. A module that went may have left its addresses to
    /// another.
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

    /// Takes note of the hooks that cannot show anything.
    pub fn set_absent(&mut self, hooks: impl Iterator<Item = Hook>) {
        self.facts.absent = hooks.collect();
        self.changed.absent = true;
    }

    /// Takes note that records were lost up to now.
    pub fn lost(&mut self, now_ns: u64) {
        self.facts.lost_ns = Some(now_ns);
        self.changed.lost = true;
    }

    /// Takes note of a rule that decided, so that [`Self::look_for_rules`] reads it, and of an old entry of IPVS, so that
    /// [`Self::look_for_settings`] reads what decides about it.
    pub fn see(&mut self, event: &Event) {
        if let What::IpvsConn(conn) = &event.what
            && event.hook == Hook::IpvsLookup
            && event.netns != 0
            && conn.conn != 0
            && conn.have & ipvs_conn::EXPIRE_NODEST == 0
        {
            self.settings_met.insert(event.netns);
        }
        let of_rule = match &event.what {
            What::Chain(_) | What::Table(_) | What::Reject(_) => true,
            What::Drop(drop) => self.is_in(drop.location, "nft_do_chain"),
            _ => false,
        };
        if event.netns != 0 && of_rule {
            self.met.entry(event.netns).or_default().add(event);
        }
    }

    fn is_in(&self, address: u64, function: &str) -> bool {
        self.symbols
            .locate(address)
            .is_some_and(|location| location.symbol == function)
    }

    /// Reads the rules that decided since the last time, before somebody takes them away.
    pub fn look_for_rules(&mut self) {
        for (netns, wanted) in std::mem::take(&mut self.met) {
            self.read_rules(netns, &wanted);
        }
    }

    /// Reads the settings of IPVS for the old entries that it met since the last time, before somebody changes them; and now
    /// and then where it has met one, so that it is known when they changed.
    pub fn look_for_settings(&mut self) {
        let Self {
            facts,
            changed,
            settings_met,
            settings_read,
            ..
        } = self;
        for &netns in settings_met.iter() {
            settings_read.entry(netns).or_default();
        }
        settings_read.retain(|&netns, read| {
            let is_met = settings_met.contains(&netns);
            let fresh = if is_met { SETTINGS_FRESH } else { SETTINGS_WATCHED };
            if read.is_some_and(|read| read.elapsed() < fresh) {
                return true;
            }
            settings_met.remove(&netns);
            *read = Some(Instant::now());
            let look = || {
                let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).ok()?;
                Some((u64::try_from(now.as_nanos()).ok()?, ipvs::settings()))
            };
            let Ok(Some((at_ns, values))) = netns::inside(netns, look) else {
                return false;
            };
            let known = facts.netns.entry(netns).or_default();
            // That nothing has changed is told with the next entry that it matters for.
            if known.ipvs_settings.add(at_ns, values) || is_met {
                changed.netns.insert(netns);
            }
            true
        });
    }

    fn read_rules(&mut self, netns: u32, wanted: &rules::Wanted) {
        self.changed.netns.insert(netns);
        let known = self.facts.netns.entry(netns).or_default();
        if !self.rules.entry(netns).or_default().refresh(netns, known, wanted) {
            self.forget(netns);
        }
    }

    /// Nobody is in this network namespace any more, or tracer is not let in.
    fn forget(&mut self, netns: u32) {
        self.changed.netns.insert(netns);
        self.facts.netns.remove(&netns);
        self.read.remove(&netns);
        self.rules.remove(&netns);
        self.named.remove(&netns);
        self.settings_read.remove(&netns);
    }

    /// Names the kernel functions that a flow's steps tell of.
    pub fn name_functions(&mut self, flow: &Flow) {
        for step in &flow.steps {
            let addresses = match &step.event.what {
                What::Drop(drop) => std::slice::from_ref(&drop.location),
                What::Stack(stack) => &stack.frames,
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

    /// Reads what the diagnosis of a flow that went wrong may need. What cannot be read stays unknown.
    pub fn look(&mut self, flow: &Flow) {
        self.name_functions(flow);
        self.look_for_ways(flow);
        if flow.netns == 0 {
            return;
        }
        let mut met = rules::Wanted::default();
        let is_explained = flow.steps.iter().any(shows_verdict);
        for step in flow.steps.iter().filter(|step| flow.is_on_node(&step.event)) {
            match &step.event.what {
                What::Drop(drop) if !is_explained && self.is_in(drop.location, "nf_hook_slow") => {
                    met.add_any(&step.event);
                }
                What::Drop(drop) if self.is_in(drop.location, "nf_queue") => met.add_any(&step.event),
                What::Drop(drop) if !self.is_in(drop.location, "nft_do_chain") => {}
                _ => met.add(&step.event),
            }
        }
        if !met.is_empty() {
            self.read_rules(flow.netns, &met);
        }
        let local_node_ports = flow.steps.iter().any(|step| step.event.hook == Hook::IpvsLeave);
        if let Some(last) = self.read.get(&flow.netns)
            && last.at.elapsed() < FRESH
            && (last.local_node_ports || !local_node_ports)
        {
            return;
        }
        self.changed.netns.insert(flow.netns);
        let known = self.facts.netns.entry(flow.netns).or_default();
        if netns::inside(flow.netns, || read_netns(known, local_node_ports)).is_ok() {
            self.read.insert(
                flow.netns,
                Look {
                    at: Instant::now(),
                    local_node_ports,
                },
            );
        } else {
            self.forget(flow.netns);
        }
    }

    /// Reads the names of services by NodePort, if they were not read, are old, or do not know the flow's.
    pub fn name(&mut self, flow: &Flow) {
        let is_due = self
            .named
            .get(&flow.netns)
            .is_none_or(|names| names.is_due(self.facts.service(flow.netns, flow.node()).is_some()));
        if flow.netns == 0 || !is_due {
            return;
        }
        let begun = Instant::now();
        let read = netns::inside(flow.netns, kube_proxy::node_ports);
        let node_ports = read.map(Result::unwrap_or_default).unwrap_or_default();
        self.named.insert(
            flow.netns,
            Names {
                at: Instant::now(),
                cost: begun.elapsed(),
                any: !node_ports.is_empty(),
            },
        );
        self.facts.netns.entry(flow.netns).or_default().node_ports = node_ports;
        self.changed.netns.insert(flow.netns);
    }

    /// A SYN of this flow went to a backend because of an old conntrack entry: takes note if no rule leads there now. Rules
    /// that were read within the last second count as those of now.
    pub fn look_where_rules_lead(&mut self, flow: &Flow) {
        let newest = flow.attempts.len().saturating_sub(1);
        let Some(backend) = flow.backend_by_old_entry(newest) else {
            return;
        };
        let is_due = self.led.get(&flow.netns).is_none_or(Destinations::is_due);
        if is_due && let Some(led) = Destinations::read(flow.netns) {
            self.led.insert(flow.netns, led);
        }
        let Some(led) = self.led.get(&flow.netns) else {
            return;
        };
        let key = (flow.netns, backend);
        self.changed.unreachable = true;
        let known = &mut self.facts.unreachable_by_rule;
        if led.include(flow.node(), backend) {
            known.remove(&key);
            return;
        }
        if known.len() >= MOST_BACKENDS && !known.contains_key(&key) {
            known.clear();
        }
        let times = known.entry(key).or_default();
        if times.back() != Some(&led.at_ns) {
            times.push_back(led.at_ns);
            if times.len() > MOST_TIMES {
                times.pop_front();
            }
        }
    }

    /// Asks for the way to each address that the routing layer did not like.
    fn look_for_ways(&mut self, flow: &Flow) {
        let Self {
            facts, ways, changed, ..
        } = self;
        ways.retain(|_, read| read.elapsed() < FRESH);
        changed.routes |= !facts.routes.is_empty();
        facts.routes.retain(|key, _| ways.contains_key(key));
        let mut wanted: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        for step in &flow.steps {
            let event = &step.event;
            let address = match (event.hook, &event.what) {
                (Hook::RouteMartian, _) => event.tuple.saddr.ip(),
                (Hook::RouteError, _) => event.tuple.daddr.ip(),
                // It throws a SYN away for whose answer it has no way.
                (_, What::Listener(_)) if step.verdict.is_some_and(|grown| grown != 0) => {
                    event.tuple.saddr.ip()
                }
                (_, What::Drop(drop)) if facts.symbol(drop.location).is_some_and(has_no_way) => {
                    event.tuple.daddr.ip()
                }
                _ => continue,
            };
            let key = (event.netns, address);
            if event.netns != 0 && ways.len() < MOST_WAYS && !ways.contains_key(&key) {
                ways.insert(key, Instant::now());
                wanted.entry(event.netns).or_default().push(address);
            }
        }
        for (netns, addresses) in wanted {
            let look = || -> Vec<_> {
                let found = addresses.into_iter().map(|address| (address, route::to(address)));
                found.collect()
            };
            for (address, way) in netns::inside(netns, look).unwrap_or_default() {
                if let Ok(way) = way {
                    changed.routes = true;
                    facts.routes.insert((netns, address), way);
                }
            }
        }
    }
}

/// Does this step show who had a packet discarded in `nf_hook_slow`?
fn shows_verdict(step: &Step) -> bool {
    let other = step.event.hook.is_ipvs_request() || step.event.hook == Hook::CtConfirm;
    let is_rule = matches!(step.event.what, What::Chain(_) | What::Table(_) | What::Reject(_));
    is_rule || (other && step.verdict == Some(NF_DROP))
}

/// Is this a place where the kernel discards what has no way, without a hook of its own?
fn has_no_way(place: &str) -> bool {
    place.starts_with("ip6_pkt_") || place.starts_with("dst_discard")
}

/// Of so many backends it is remembered that no rule led there, and of each so many times.
const MOST_BACKENDS: usize = 1024;
const MOST_TIMES: usize = 16;

/// What was read of a network namespace besides its rules, and when.
#[derive(Debug)]
struct Look {
    at: Instant,
    local_node_ports: bool,
}

/// When the names of services were read.
#[derive(Debug)]
struct Names {
    at: Instant,
    /// How long that took.
    cost: Duration,
    /// Were there any?
    any: bool,
}

/// Names are read again when they are older than this, or sooner, when a flow is for a NodePort that none is known of.
const NAMES_FRESH: Duration = Duration::from_secs(10);
/// Of the time that passes, reading names takes no more than the hundredth part.
const NAMES_SHARE: u32 = 100;

impl Names {
    fn is_due(&self, knows: bool) -> bool {
        let wait = if knows || !self.any { NAMES_FRESH } else { FRESH };
        self.at.elapsed() > wait.max(self.cost * NAMES_SHARE)
    }
}

/// Reads the calling thread's network namespace.
fn read_netns(known: &mut NetnsFacts, local_node_ports: bool) {
    known.services = ipvs::services().unwrap_or_default();
    known.sysctls = sysctl::read().unwrap_or_default();
    known.chains = nft::chains().unwrap_or_default();
    if local_node_ports {
        known.local_node_ports = kube_proxy::local_node_ports().unwrap_or_default();
    }
}
