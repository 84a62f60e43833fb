//! Joins events to flows, and hands out flows whose fate is known.

mod followed;
mod pending;
mod watched;

use std::{
    collections::{BTreeSet, VecDeque},
    mem::size_of,
    net::SocketAddr,
};

use foldhash::{HashMap, HashMapExt as _};
use serde::{Deserialize, Serialize};
use tracer_common::{hook::Hook, tcp::Part, tuple::Tuple};

use super::{
    begun::Begun,
    fate::Fate,
    gaps,
    join::{SETTLE_NS, add, is_arrival, is_taken_answer},
    judge,
    model::{Flow, MOST_ATTEMPTS},
    open,
    rank::{Evicted, Rank, Ranks},
    step::{Attempt, Earlier, Step},
    suspicion::{self, Suspicions},
};
use crate::decode::{
    event::{Event, Payload},
    watch::Gaps,
};

/// How long a decided flow still collects steps: a backend that did not get the ACK retransmits its SYN-ACK after one second.
const LINGER_NS: u64 = 1_500_000_000;
/// How long a decided flow is kept for events that may still change it: a client's retransmissions are up to two minutes
/// apart (`TCP_RTO_MAX`, `include/net/tcp.h`).
const KEEP_NS: u64 = 130_000_000_000;
/// The fewest flows that are kept, whatever the limits.
const LEAST_FLOWS: usize = 16;
/// The memory of a flow without its steps and SYNs, in bytes: its entry in the map of flows, and a similar amount for its
/// keys elsewhere.
const FLOW_BYTES: usize = size_of::<(u64, Tracked)>() + 160;
/// The most flows that one [`Engine::take_bypassing_rules`] hands out.
const MOST_BYPASSING: usize = 64;

/// The most that an engine keeps. Beyond that, the flows that explain least are evicted first ([`Rank`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Flows.
    pub flows: usize,
    /// Memory of all flows together, in bytes: an estimate from the sizes of their parts.
    pub bytes: usize,
}

impl Limits {
    /// The limits of a recording, but never more than the default memory: a file must not decide how much a reader needs.
    #[must_use]
    pub fn bounded(self) -> Self {
        let most = Self::default();
        Self {
            flows: self.flows.min(most.bytes / FLOW_BYTES),
            bytes: self.bytes.min(most.bytes),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 200_000,
            bytes: 256 << 20,
        }
    }
}

/// A flow and when to judge it again.
#[derive(Debug)]
struct Tracked {
    flow: Flow,
    /// Monotonic nanoseconds at which its fate is due.
    due_ns: u64,
    /// The fate with which it was last handed out.
    reported: Option<Fate>,
    /// How many SYNs it had then.
    reported_syns: usize,
    /// Its backend then.
    backend: Option<SocketAddr>,
    /// Its steps were freed: nothing that follows changes its fate.
    closed: bool,
    /// How much it may still explain.
    rank: Rank,
    /// Further numbers that the kernel half gave it.
    other_numbers: Vec<u64>,
}

impl Tracked {
    /// The memory of the flow, in bytes.
    fn weight(&self) -> usize {
        FLOW_BYTES
            + self.flow.steps.len() * size_of::<Step>()
            + self.flow.details.len() * size_of::<Event>()
            + self.flow.attempts.len() * size_of::<Attempt>()
    }
}

/// Joins events to flows, and hands out flows whose fate is known.
#[derive(Debug)]
pub struct Engine {
    patience_ns: u64,
    next_id: u64,
    flows: HashMap<u64, Tracked>,
    /// When to judge which flow: due time, then the kernel's number.
    due: BTreeSet<(u64, u64)>,
    /// The kernel's number of the last flow of a client's tuple.
    by_tuple: HashMap<Tuple, u64>,
    /// The first number of each flow that the kernel half renumbered.
    renumbered: HashMap<u64, u64>,
    /// Flows in the order in which they are evicted.
    ranks: Ranks,
    limits: Limits,
    /// Memory of all flows together, in bytes.
    weight: usize,
    /// Flows that were evicted because there were too many.
    evicted: Evicted,
    /// Events of flows whose beginning was not seen.
    orphans: u64,
    /// Flows whose SYN has just left for a backend without a rule being evaluated.
    bypassing_rules: BTreeSet<u64>,
    /// Flows that began in a missing part of the recording.
    begun: Begun,
    /// The arrival times of SYNs, monotonic nanoseconds, and their flows, if pending flows are wanted.
    pending: Option<VecDeque<(u64, u64)>>,
    /// The periods that were not watched in full.
    gaps: Gaps,
    /// What looks wrong, if that is wanted.
    suspicions: Option<Suspicions>,
}

impl Engine {
    /// Creates an engine. A flow without progress for `patience_ns` after its last SYN is reported as it is.
    #[must_use]
    pub fn new(patience_ns: u64, limits: Limits) -> Self {
        Self {
            patience_ns,
            next_id: 1,
            flows: HashMap::new(),
            due: BTreeSet::new(),
            by_tuple: HashMap::new(),
            renumbered: HashMap::new(),
            ranks: Ranks::default(),
            limits,
            weight: 0,
            evicted: Evicted::default(),
            orphans: 0,
            bypassing_rules: BTreeSet::new(),
            begun: Begun::default(),
            pending: None,
            gaps: Gaps::default(),
            suspicions: None,
        }
    }

    /// Sets the flows that began before the first event: their later packets begin no flow.
    pub fn begin_after(&mut self, begun: Begun) {
        self.begun = begun;
    }

    /// From now on, keeps undecided flows for [`Engine::take_pending`].
    pub fn keep_pending(&mut self) {
        self.pending.get_or_insert_default();
    }

    /// Events of flows whose first SYN was not seen.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    /// Flows that were evicted because there were too many, by how much they might still have explained.
    #[must_use]
    pub fn evicted(&self) -> &Evicted {
        &self.evicted
    }

    /// The number of the next flow that begins.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Numbers the next flow `next_id` or higher: flows that began before it were not seen.
    pub fn count_from(&mut self, next_id: u64) {
        self.next_id = self.next_id.max(next_id);
    }

    /// Whether a flow is due to be judged by `now_ns`.
    #[must_use]
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.due.first().is_some_and(|&(due, _)| due <= now_ns)
    }

    /// Adds one event.
    pub fn push(&mut self, event: Event) {
        // About a namespace, not about the packet, whose record follows.
        if let Payload::Netns(_) = event.payload {
            return;
        }
        let Some(number) = self.number_of(&event) else {
            self.orphans += 1;
            return;
        };
        let Some(tracked) = self.flows.get_mut(&number) else {
            return;
        };
        if tracked.closed {
            return;
        }
        let now = event.time_ns;
        let (before, syns_before) = (tracked.weight(), tracked.flow.attempts.len());
        let synacks_before = tracked.flow.synacks;
        let sign = self.suspicions.as_ref().and_then(|_| suspicion::sign_of(&event));
        let leaves = event.part == Part::Syn
            && event.hook == Hook::DevStartXmit
            && event.tuple.destination() != tracked.flow.node();
        add(&mut tracked.flow, event);
        if let Some(suspicions) = &mut self.suspicions {
            suspicions.observe(number, &tracked.flow, syns_before, synacks_before, sign);
        }
        let newest = tracked.flow.attempts.len().saturating_sub(1);
        if leaves
            && self.bypassing_rules.len() < MOST_BYPASSING
            && tracked.flow.backend_by_old_entry(newest).is_some()
        {
            self.bypassing_rules.insert(number);
        }
        self.weight = self.weight + tracked.weight() - before;
        if let Some(pending) = &mut self.pending
            && tracked.flow.attempts.len() > syns_before
            && pending.len() < self.limits.flows
        {
            pending.push_back((now, number));
        }
        let due = due_ns(&tracked.flow, self.patience_ns).max(now);
        if due != tracked.due_ns {
            self.due.remove(&(tracked.due_ns, number));
            tracked.due_ns = due;
            self.due.insert((due, number));
        }
        let (before, rank) = (tracked.rank, Rank::of(&tracked.flow));
        if before != rank {
            tracked.rank = rank;
            let flows = &self.flows;
            self.ranks
                .change(number, (before, rank), |number| Some(flows.get(&number)?.rank));
        }
        // A recording can lack the moments at which flows are judged and dropped from memory.
        if self.flows.len() > self.limits.flows.saturating_mul(2)
            || self.weight > self.limits.bytes.saturating_mul(2)
        {
            self.evict(0, |_, _| {});
        }
    }

    /// Hands out each flow whose fate is known by `now_ns` and is new or has changed.
    pub fn poll(&mut self, now_ns: u64, mut hand_out: impl FnMut(&Flow, Fate)) {
        while let Some(&(due, number)) = self.due.first() {
            if due > now_ns {
                break;
            }
            self.due.pop_first();
            let Some(tracked) = self.flows.get_mut(&number) else {
                continue;
            };
            gaps::mark(&mut tracked.flow, &self.gaps);
            let fate = judge::of(&tracked.flow);
            if tracked.reported != Some(fate) || tracked.reported_syns != tracked.flow.attempts.len() {
                tracked.reported = Some(fate);
                tracked.reported_syns = tracked.flow.attempts.len();
                tracked.backend = tracked.flow.backend();
                hand_out(&tracked.flow, fate);
            }
            let Some(decided) = tracked.flow.decided_ns() else {
                continue;
            };
            tracked.due_ns = decided.saturating_add(LINGER_NS);
            if tracked.due_ns <= now_ns || self.weight > self.limits.bytes / 2 {
                self.weight -= tracked.weight();
                tracked.flow.steps = Vec::new();
                tracked.flow.details = Vec::new();
                self.weight += tracked.weight();
                tracked.closed = true;
            } else {
                self.due.insert((tracked.due_ns, number));
            }
        }
        self.evict(now_ns, hand_out);
    }

    /// Hands out what is left when tracing ends. Flows whose fate is not known yet are [`Fate::Pending`].
    pub fn finish(&mut self, now_ns: u64, mut hand_out: impl FnMut(&Flow, Fate)) {
        self.poll(now_ns, &mut hand_out);
        let mut open: Vec<&mut Tracked> = self
            .flows
            .values_mut()
            .filter(|tracked| !tracked.closed)
            .collect();
        open.sort_unstable_by_key(|tracked| tracked.flow.id);
        for tracked in open {
            gaps::mark(&mut tracked.flow, &self.gaps);
            let flow = &tracked.flow;
            let decided = flow.decided_ns().is_some();
            let fate = fate_so_far(flow);
            if tracked.reported.is_none() || (decided && tracked.reported != Some(fate)) {
                tracked.reported = Some(fate);
                hand_out(flow, fate);
            }
        }
    }

    /// Hands out each flow whose newest SYN left for a backend without a rule being evaluated, once for each such SYN. The
    /// rules' destinations must be read before they change.
    pub fn take_bypassing_rules(&mut self, mut hand_out: impl FnMut(&Flow)) {
        for number in std::mem::take(&mut self.bypassing_rules) {
            if let Some(tracked) = self.flows.get(&number) {
                hand_out(&tracked.flow);
            }
        }
    }

    /// The number that identifies the flow of an event here. Begins the flow if the event is its first SYN.
    fn number_of(&mut self, event: &Event) -> Option<u64> {
        if self.flows.contains_key(&event.flow) {
            return Some(event.flow);
        }
        if let Some(&number) = self.renumbered.get(&event.flow) {
            return Some(number);
        }
        self.rejoin(event)
            .or_else(|| self.begin(event).then_some(event.flow))
    }

    /// The flow of a retransmitted SYN for which the kernel half began another one: its maps are bounded, and under a flood they
    /// lose the oldest entries.
    fn rejoin(&mut self, event: &Event) -> Option<u64> {
        if event.part != Part::Syn || !is_arrival(event) {
            return None;
        }
        let number = *self.by_tuple.get(&event.tuple)?;
        let tracked = self.flows.get_mut(&number)?;
        let is_same = tracked.flow.isn == event.isn
            && event.time_ns < tracked.flow.last_syn_ns().saturating_add(KEEP_NS)
            && tracked.other_numbers.len() < MOST_ATTEMPTS;
        if !is_same {
            return None;
        }
        tracked.other_numbers.push(event.flow);
        tracked.flow.was_unfollowed = true;
        self.renumbered.insert(event.flow, number);
        Some(number)
    }

    /// Begins a flow with its first SYN; `false` if the event is not one.
    fn begin(&mut self, event: &Event) -> bool {
        let is_first = event.part == Part::Syn && is_arrival(event) || is_taken_answer(event);
        if !is_first || self.begun.has(event.flow) {
            return false;
        }
        let earlier = self
            .by_tuple
            .get(&event.tuple)
            .and_then(|number| self.flows.get(number));
        let earlier = earlier.map(|tracked| Earlier {
            id: tracked.flow.id,
            start_ns: tracked.flow.start_ns(),
            fate: tracked.reported.unwrap_or_else(|| judge::of(&tracked.flow)),
            backend: tracked.backend.or_else(|| tracked.flow.backend()),
        });
        let flow = Flow::new(self.next_id, event, earlier, self.patience_ns);
        self.next_id = self.next_id.saturating_add(1);
        self.by_tuple.insert(event.tuple, event.flow);
        let tracked = Tracked {
            flow,
            due_ns: 0,
            reported: None,
            reported_syns: 0,
            backend: None,
            closed: false,
            rank: Rank::OneSyn,
            other_numbers: Vec::new(),
        };
        self.weight += tracked.weight();
        self.ranks.add(event.flow, tracked.rank);
        self.flows.insert(event.flow, tracked);
        true
    }

    /// Removes flows that were decided long ago and, if there are too many, those that explain least. A flow that was never
    /// handed out is handed out as it is.
    fn evict(&mut self, now_ns: u64, mut hand_out: impl FnMut(&Flow, Fate)) {
        for rank in Rank::ALL {
            while let Some(number) = self.first(rank)
                && self.flows.get(&number).is_none_or(|tracked| {
                    tracked.reported.is_some() && tracked.flow.last_syn_ns().saturating_add(KEEP_NS) < now_ns
                })
            {
                self.remove(number);
            }
        }
        while self.flows.len() > self.limits.flows.max(LEAST_FLOWS)
            || (self.weight > self.limits.bytes && self.flows.len() > LEAST_FLOWS)
        {
            let Some((rank, number)) = Rank::ALL
                .into_iter()
                .find_map(|rank| Some((rank, self.first(rank)?)))
            else {
                break;
            };
            self.evicted.count(rank);
            if let Some(mut tracked) = self.remove(number)
                && tracked.reported.is_none()
            {
                gaps::mark(&mut tracked.flow, &self.gaps);
                let fate = fate_so_far(&tracked.flow);
                tracked.flow.is_evicted = true;
                hand_out(&tracked.flow, fate);
            }
        }
    }

    /// The flow that has had this rank longest.
    fn first(&mut self, rank: Rank) -> Option<u64> {
        let flows = &self.flows;
        self.ranks.first(rank, |number| Some(flows.get(&number)?.rank))
    }

    fn remove(&mut self, number: u64) -> Option<Tracked> {
        let tracked = self.flows.remove(&number)?;
        self.weight -= tracked.weight();
        self.due.remove(&(tracked.due_ns, number));
        for other in &tracked.other_numbers {
            self.renumbered.remove(other);
        }
        if self.by_tuple.get(&tracked.flow.original) == Some(&number) {
            self.by_tuple.remove(&tracked.flow.original);
        }
        let flows = &self.flows;
        self.ranks
            .leave(tracked.rank, |number| Some(flows.get(&number)?.rank));
        Some(tracked)
    }
}

/// The fate of a flow that may not be over.
fn fate_so_far(flow: &Flow) -> Fate {
    match flow.decided_ns() {
        Some(_) => judge::of(flow),
        None => Fate::Pending,
    }
}

/// The moment after which the fate of this flow cannot change, monotonic nanoseconds.
pub(crate) fn settled_ns(flow: &Flow) -> u64 {
    match flow.decided_ns() {
        Some(decided) => decided.saturating_add(LINGER_NS),
        None => flow.last_syn_ns().saturating_add(KEEP_NS),
    }
}

fn due_ns(flow: &Flow, patience_ns: u64) -> u64 {
    if let Some(decided) = flow.decided_ns() {
        return decided.saturating_add(SETTLE_NS);
    }
    let last = flow.last_syn_ns().max(flow.ack_lost_ns.unwrap_or(0));
    // A packet that the kernel still holds may be dropped or sent on: the fate must not depend on which record comes first.
    let held = open::held(flow).map_or(0, |step| step.event.time_ns.saturating_add(open::WAIT_NS));
    last.saturating_add(patience_ns).max(held)
}
