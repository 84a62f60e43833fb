//! Joins events to flows, and hands out flows whose fate is known.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
};

use tracer_common::{hook::Hook, tcp::Part, tuple::Tuple};

use super::{
    begun::Begun,
    fate::Fate,
    join::{SETTLE_NS, add, is_arrival},
    judge,
    model::Flow,
    open,
    step::Earlier,
};
use crate::decode::event::Event;

/// How long a decided flow still collects steps: a backend that did not get the ACK retransmits its SYN-ACK after one second.
const LINGER_NS: u64 = 1_500_000_000;
/// How long a decided flow is kept for what may still change it: a client's last retransmissions are minutes apart.
const KEEP_NS: u64 = 130_000_000_000;
/// The most flows that are kept, and the most steps of all of them together. The oldest flows go first. A step takes about
/// 300 bytes.
pub(crate) const MOST_FLOWS: usize = 200_000;
const MOST_STEPS: usize = 400_000;
/// [`Engine::take_pending`] hands out a flow whose fate is not known this long after a SYN.
const PENDING_NS: u64 = 250_000_000;
/// The most flows that one [`Engine::take_bypassing_rules`] hands out.
const MOST_BYPASSING: usize = 64;

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
    /// Flows in the order in which they began.
    order: VecDeque<u64>,
    /// Steps of all flows together.
    steps: usize,
    /// Events of flows whose beginning was not seen.
    orphans: u64,
    /// Flows of which a SYN has just left for a backend without a rule being evaluated.
    bypassing_rules: BTreeSet<u64>,
    /// Flows that began in a missing part of the recording.
    begun: Begun,
    /// When SYNs came, monotonic nanoseconds, and of which flows, if pending flows are wanted.
    pending: Option<VecDeque<(u64, u64)>>,
}

impl Engine {
    /// Creates an engine. A flow without progress for `patience_ns` after its last SYN is reported as it is.
    #[must_use]
    pub fn new(patience_ns: u64) -> Self {
        Self {
            patience_ns,
            next_id: 1,
            flows: HashMap::new(),
            due: BTreeSet::new(),
            by_tuple: HashMap::new(),
            order: VecDeque::new(),
            steps: 0,
            orphans: 0,
            bypassing_rules: BTreeSet::new(),
            begun: Begun::default(),
            pending: None,
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
        if !self.flows.contains_key(&event.flow) && !self.begin(&event) {
            self.orphans += 1;
            return;
        }
        let number = event.flow;
        let Some(tracked) = self.flows.get_mut(&number) else {
            return;
        };
        if tracked.closed {
            return;
        }
        let now = event.time_ns;
        let (before, syns_before) = (tracked.flow.steps.len(), tracked.flow.attempts.len());
        let leaves = event.part == Part::Syn
            && event.hook == Hook::DevStartXmit
            && event.tuple.destination() != tracked.flow.node();
        add(&mut tracked.flow, event);
        let newest = tracked.flow.attempts.len().saturating_sub(1);
        if leaves
            && self.bypassing_rules.len() < MOST_BYPASSING
            && tracked.flow.backend_by_old_entry(newest).is_some()
        {
            self.bypassing_rules.insert(number);
        }
        self.steps += tracked.flow.steps.len() - before;
        if let Some(pending) = &mut self.pending
            && tracked.flow.attempts.len() > syns_before
            && pending.len() < MOST_FLOWS
        {
            pending.push_back((now, number));
        }
        let due = due_ns(&tracked.flow, self.patience_ns).max(now);
        if due != tracked.due_ns {
            self.due.remove(&(tracked.due_ns, number));
            tracked.due_ns = due;
            self.due.insert((due, number));
        }
        // A recording can lack the moments at which flows are judged and dropped from memory.
        if self.order.len() > 2 * MOST_FLOWS || self.steps > 2 * MOST_STEPS {
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
            let fate = judge::of(&tracked.flow);
            if tracked.reported != Some(fate) || tracked.reported_syns != tracked.flow.attempts.len() {
                tracked.reported = Some(fate);
                tracked.reported_syns = tracked.flow.attempts.len();
                tracked.backend = tracked.flow.backend();
                hand_out(&tracked.flow, fate);
            }
            let Some(decided) = decided_ns(&tracked.flow) else {
                continue;
            };
            tracked.due_ns = decided.saturating_add(LINGER_NS);
            if tracked.due_ns <= now_ns || self.steps > MOST_STEPS / 2 {
                self.steps -= tracked.flow.steps.len();
                tracked.flow.steps = Vec::new();
                tracked.closed = true;
            } else {
                self.due.insert((tracked.due_ns, number));
            }
        }
        self.evict(now_ns, hand_out);
    }

    /// Hands out each flow that had a SYN shortly before `now_ns` and whose fate is not known yet. [`Engine::poll`] hands it
    /// out again later.
    pub fn take_pending(&mut self, now_ns: u64, mut hand_out: impl FnMut(&Flow)) {
        let Some(pending) = &mut self.pending else {
            return;
        };
        while let Some(&(time_ns, number)) = pending.front()
            && time_ns.saturating_add(PENDING_NS) <= now_ns
        {
            pending.pop_front();
            if let Some(tracked) = self.flows.get(&number)
                && tracked.reported.is_none()
                && decided_ns(&tracked.flow).is_none()
            {
                hand_out(&tracked.flow);
            }
        }
    }

    /// Hands out what is left when tracing ends. Flows whose fate is not known yet are [`Fate::Pending`].
    pub fn finish(&mut self, now_ns: u64, mut hand_out: impl FnMut(&Flow, Fate)) {
        self.poll(now_ns, &mut hand_out);
        for number in &self.order {
            let Some(tracked) = self.flows.get_mut(number) else {
                continue;
            };
            if tracked.closed {
                continue;
            }
            let flow = &tracked.flow;
            let decided = decided_ns(flow).is_some();
            let fate = fate_so_far(flow);
            if tracked.reported.is_none() || (decided && tracked.reported != Some(fate)) {
                tracked.reported = Some(fate);
                hand_out(flow, fate);
            }
        }
    }

    /// Hands out each flow whose newest SYN left for a backend without a rule being evaluated, once for each such SYN. Where the
    /// rules lead must be read before they change.
    pub fn take_bypassing_rules(&mut self, mut hand_out: impl FnMut(&Flow)) {
        for number in std::mem::take(&mut self.bypassing_rules) {
            if let Some(tracked) = self.flows.get(&number) {
                hand_out(&tracked.flow);
            }
        }
    }

    /// Begins a flow with its first SYN; `false` if the event is not one.
    fn begin(&mut self, event: &Event) -> bool {
        if event.part != Part::Syn || !is_arrival(event) || self.begun.has(event.flow) {
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
        self.order.push_back(event.flow);
        self.flows.insert(
            event.flow,
            Tracked {
                flow,
                due_ns: 0,
                reported: None,
                reported_syns: 0,
                backend: None,
                closed: false,
            },
        );
        true
    }

    /// Evicts flows that were decided long ago, and the oldest if there are too many. A flow that was never handed out is handed
    /// out as it is.
    fn evict(&mut self, now_ns: u64, mut hand_out: impl FnMut(&Flow, Fate)) {
        while let Some(number) = self.order.front().copied() {
            let too_many = self.order.len() > MOST_FLOWS || self.steps > MOST_STEPS;
            let old = self.flows.get(&number).is_none_or(|tracked| {
                tracked.reported.is_some() && tracked.flow.last_syn_ns().saturating_add(KEEP_NS) < now_ns
            });
            if !old && !too_many {
                break;
            }
            self.order.pop_front();
            if let Some(tracked) = self.flows.remove(&number) {
                if tracked.reported.is_none() {
                    hand_out(&tracked.flow, fate_so_far(&tracked.flow));
                }
                self.steps -= tracked.flow.steps.len();
                self.due.remove(&(tracked.due_ns, number));
                if self.by_tuple.get(&tracked.flow.original) == Some(&number) {
                    self.by_tuple.remove(&tracked.flow.original);
                }
            }
        }
    }
}

/// When the fate was decided, if it was. Later events change it only if they show a retransmission.
fn decided_ns(flow: &Flow) -> Option<u64> {
    flow.established_ns.or(flow.refused_ns)
}

/// The fate of a flow that may not be over.
fn fate_so_far(flow: &Flow) -> Fate {
    match decided_ns(flow) {
        Some(_) => judge::of(flow),
        None => Fate::Pending,
    }
}

/// The moment after which the fate of this flow cannot change, monotonic nanoseconds.
pub(crate) fn settled_ns(flow: &Flow) -> u64 {
    match decided_ns(flow) {
        Some(decided) => decided.saturating_add(LINGER_NS),
        None => flow.last_syn_ns().saturating_add(KEEP_NS),
    }
}

fn due_ns(flow: &Flow, patience_ns: u64) -> u64 {
    if let Some(decided) = decided_ns(flow) {
        return decided.saturating_add(SETTLE_NS);
    }
    let last = flow.last_syn_ns().max(flow.ack_lost_ns.unwrap_or(0));
    // What the kernel still holds may be dropped or sent on: the fate must not depend on which comes first.
    let held = open::held(flow).map_or(0, |step| step.event.time_ns.saturating_add(open::WAIT_NS));
    last.saturating_add(patience_ns).max(held)
}
