//! Joins events to flows and says when a flow's fate is known.

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
    model::{Earlier, Flow},
};
use crate::decode::event::Event;

/// For so long after its fate was known a flow is listened to with all its steps: a backend that did not get the ACK
/// sends its SYN-ACK again after one second.
const LINGER_NS: u64 = 1_500_000_000;
/// A decided flow is kept for what may still change it (the client's last retransmissions come minutes apart).
const KEEP_NS: u64 = 130_000_000_000;
/// The most flows that are remembered, and the most steps of all of them; the oldest flows go first. A step takes
/// some 300 bytes.
pub(crate) const MOST_FLOWS: usize = 200_000;
const MOST_STEPS: usize = 400_000;
/// A flow whose fate is not known so long after a SYN of it is handed out by [`Engine::take_open`], if that is wanted.
const OPEN_NS: u64 = 250_000_000;
/// So many flows are handed out at once by [`Engine::take_unasked`].
const MOST_UNASKED: usize = 64;

/// A flow and when to look at it again.
#[derive(Debug)]
struct Tracked {
    flow: Flow,
    /// Monotonic nanoseconds at which its fate is due.
    due_ns: u64,
    /// What was last said about it.
    said: Option<Fate>,
    /// How many SYNs it had when that was said.
    said_syns: usize,
    /// Its backend when that was said.
    backend: Option<SocketAddr>,
    /// Nothing that comes changes what was said: its steps are gone.
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    patience_ns: u64,
    next_id: u64,
    flows: HashMap<u64, Tracked>,
    /// When to look at which flow: due time, then the kernel's number.
    due: BTreeSet<(u64, u64)>,
    /// The kernel's number of the last flow of a client's tuple.
    by_tuple: HashMap<Tuple, u64>,
    /// Flows in the order in which they began.
    order: VecDeque<u64>,
    /// Steps of all flows together.
    steps: usize,
    /// Events of flows whose beginning was not seen.
    orphans: u64,
    /// Flows of which a SYN has just gone to a backend without a rule being asked.
    unasked: BTreeSet<u64>,
    /// Flows whose beginning is in a part of the recording that is not there.
    begun: Begun,
    /// When SYNs came, monotonic nanoseconds, and of which flows, if those that are not decided are wanted.
    open: Option<VecDeque<(u64, u64)>>,
}

impl Engine {
    /// `patience_ns`: without progress for this long after its last SYN, a flow is reported as it stands.
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
            unasked: BTreeSet::new(),
            begun: Begun::default(),
            open: None,
        }
    }

    /// What was seen before is not there: these flows do not begin with what comes of them.
    pub fn begin_after(&mut self, begun: Begun) {
        self.begun = begun;
    }

    /// From now on flows that are not decided are remembered for [`Engine::take_open`].
    pub fn remember_open(&mut self) {
        self.open.get_or_insert_default();
    }

    /// Events that belonged to no flow whose first SYN was seen.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    /// The number that the next flow gets that begins.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Goes on counting from this number: flows that began before it were not seen.
    pub fn count_from(&mut self, next_id: u64) {
        self.next_id = self.next_id.max(next_id);
    }

    /// Is there a flow to look at by `now_ns`?
    #[must_use]
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.due.first().is_some_and(|&(due, _)| due <= now_ns)
    }

    /// Takes in one event.
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
        if leaves && self.unasked.len() < MOST_UNASKED && tracked.flow.backend_by_old_entry(newest).is_some()
        {
            self.unasked.insert(number);
        }
        self.steps += tracked.flow.steps.len() - before;
        if let Some(open) = &mut self.open
            && tracked.flow.attempts.len() > syns_before
            && open.len() < MOST_FLOWS
        {
            open.push_back((now, number));
        }
        let due = due_ns(&tracked.flow, self.patience_ns).max(now);
        if due != tracked.due_ns {
            self.due.remove(&(tracked.due_ns, number));
            tracked.due_ns = due;
            self.due.insert((due, number));
        }
        // A recording can lack the moments at which flows are asked for, and forgotten.
        if self.order.len() > 2 * MOST_FLOWS || self.steps > 2 * MOST_STEPS {
            self.forget(0, |_, _| {});
        }
    }

    /// The flows whose fate is known by `now_ns` and was not said yet, or has changed since. Each is handed to `say`.
    pub fn poll(&mut self, now_ns: u64, mut say: impl FnMut(&Flow, Fate)) {
        while let Some(&(due, number)) = self.due.first() {
            if due > now_ns {
                break;
            }
            self.due.pop_first();
            let Some(tracked) = self.flows.get_mut(&number) else {
                continue;
            };
            let fate = judge::of(&tracked.flow);
            if tracked.said != Some(fate) || tracked.said_syns != tracked.flow.attempts.len() {
                tracked.said = Some(fate);
                tracked.said_syns = tracked.flow.attempts.len();
                tracked.backend = tracked.flow.backend();
                say(&tracked.flow, fate);
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
        self.forget(now_ns, say);
    }

    /// Hands out each flow of which a SYN came a moment before `now_ns` and whose fate is still not known. It is told of
    /// by [`Engine::poll`] later.
    pub fn take_open(&mut self, now_ns: u64, mut look: impl FnMut(&Flow)) {
        let Some(open) = &mut self.open else {
            return;
        };
        while let Some(&(time_ns, number)) = open.front()
            && time_ns.saturating_add(OPEN_NS) <= now_ns
        {
            open.pop_front();
            if let Some(tracked) = self.flows.get(&number)
                && tracked.said.is_none()
                && decided_ns(&tracked.flow).is_none()
            {
                look(&tracked.flow);
            }
        }
    }

    /// Hands out what is left when tracing ends: flows whose fate is not known yet are [`Fate::Pending`].
    pub fn finish(&mut self, now_ns: u64, mut say: impl FnMut(&Flow, Fate)) {
        self.poll(now_ns, &mut say);
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
            if tracked.said.is_none() || (decided && tracked.said != Some(fate)) {
                tracked.said = Some(fate);
                say(flow, fate);
            }
        }
    }

    /// Hands out each flow whose newest SYN has gone to a backend without a rule being asked, once for each such SYN.
    /// Where the rules lead by now must be looked at before they change.
    pub fn take_unasked(&mut self, mut look: impl FnMut(&Flow)) {
        for number in std::mem::take(&mut self.unasked) {
            if let Some(tracked) = self.flows.get(&number) {
                look(&tracked.flow);
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
            fate: tracked.said.unwrap_or_else(|| judge::of(&tracked.flow)),
            backend: tracked.backend.or_else(|| tracked.flow.backend()),
        });
        let flow = Flow::new(self.next_id, event, earlier);
        self.next_id = self.next_id.saturating_add(1);
        self.by_tuple.insert(event.tuple, event.flow);
        self.order.push_back(event.flow);
        self.flows.insert(
            event.flow,
            Tracked {
                flow,
                due_ns: 0,
                said: None,
                said_syns: 0,
                backend: None,
                closed: false,
            },
        );
        true
    }

    /// Forgets flows that were decided long ago, and the oldest when there are too many. What is forgotten before anything
    /// was said of it is handed out as it stands.
    fn forget(&mut self, now_ns: u64, mut say: impl FnMut(&Flow, Fate)) {
        while let Some(number) = self.order.front().copied() {
            let too_many = self.order.len() > MOST_FLOWS || self.steps > MOST_STEPS;
            let old = self.flows.get(&number).is_none_or(|tracked| {
                tracked.said.is_some() && tracked.flow.last_syn_ns().saturating_add(KEEP_NS) < now_ns
            });
            if !old && !too_many {
                break;
            }
            self.order.pop_front();
            if let Some(tracked) = self.flows.remove(&number) {
                if tracked.said.is_none() {
                    say(&tracked.flow, fate_so_far(&tracked.flow));
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

/// When the fate was known, as far as it is: what comes later changes it only if it shows that a packet had to be sent
/// again.
fn decided_ns(flow: &Flow) -> Option<u64> {
    flow.established_ns.or(flow.refused_ns)
}

/// The fate of a flow of which more may come.
fn fate_so_far(flow: &Flow) -> Fate {
    match decided_ns(flow) {
        Some(_) => judge::of(flow),
        None => Fate::Pending,
    }
}

/// The moment after which nothing changes what was told of this flow, monotonic nanoseconds.
pub(crate) fn settled_ns(flow: &Flow) -> u64 {
    match decided_ns(flow) {
        Some(decided) => decided.saturating_add(LINGER_NS),
        None => flow.last_syn_ns().saturating_add(KEEP_NS),
    }
}

fn due_ns(flow: &Flow, patience_ns: u64) -> u64 {
    match decided_ns(flow) {
        Some(decided) => decided.saturating_add(SETTLE_NS),
        None => flow
            .last_syn_ns()
            .max(flow.ack_lost_ns.unwrap_or(0))
            .saturating_add(patience_ns),
    }
}
