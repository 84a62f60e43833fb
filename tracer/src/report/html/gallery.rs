//! Which flows are drawn: a bounded number, whatever the length of the recording.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use jiff::Timestamp;

use crate::{
    diagnose::{Diagnosis, cause::Cause},
    facts::Facts,
    finding::clock::Clock,
    flow::{fate::Fate, model::Flow},
    report::{
        joined::Key,
        ladder::Ladder,
        summary::{Several, lost_ns},
    },
};

/// So many flows that did not go well are drawn; more only if there are more causes.
const MOST_SHOWN: usize = 40;
/// So many of each cause.
const MOST_OF_CAUSE: usize = 5;
/// Flows that went well are kept of so many NodePorts.
const MOST_NODE_PORTS: usize = 32;
/// So many of each.
const MOST_OF_NODE_PORT: usize = 8;
/// One flow that went well is drawn to compare with, and more as long as there are no more flows than this.
const FEW: usize = 8;

/// So many times as many are kept where there are several runs.
const WIDER: usize = 4;

/// Flows that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Group {
    /// They did not go well, for this reason.
    Bad(Option<Cause>),
    /// They are not decided.
    Pending,
    /// They went well, to this NodePort.
    Healthy(SocketAddr),
}

impl Group {
    fn of(flow: &Flow, fate: Fate, diagnosis: &Diagnosis) -> Self {
        match fate {
            Fate::Established => Self::Healthy(flow.node()),
            Fate::Pending => Self::Pending,
            _ => Self::Bad(diagnosis.cause),
        }
    }

    fn most(self) -> usize {
        match self {
            Self::Bad(_) => MOST_OF_CAUSE,
            Self::Pending => 1,
            Self::Healthy(_) => MOST_OF_NODE_PORT,
        }
    }
}

/// The worst flow has the smallest rank; of those that are alike, the first.
type Rank = (Reverse<u64>, Timestamp);

/// A flow that is kept to be drawn.
#[derive(Debug)]
pub(super) struct Kept {
    /// The number of its run, from 0.
    pub(super) run: usize,
    /// Its way.
    pub(super) ladder: Ladder,
    rank: Rank,
    node: SocketAddr,
}

impl Kept {
    /// As the summary names it.
    pub(super) fn key(&self) -> Key {
        (self.run + 1, self.ladder.id)
    }

    /// Where on the page it is drawn.
    pub(super) fn anchor(&self) -> String {
        format!("flow-{}-{}", self.run + 1, self.ladder.id)
    }

    /// The flow from the same client port before it, if that is drawn too.
    pub(super) fn earlier<'a>(&self, shown: &[&'a Self]) -> Option<&'a Self> {
        let (id, _) = self.ladder.earlier.as_ref()?;
        shown
            .iter()
            .copied()
            .find(|other| other.run == self.run && other.ladder.id == *id)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gallery {
    groups: BTreeMap<Group, Vec<Kept>>,
    /// Where each kept flow is.
    places: HashMap<(usize, u64), Group>,
    runs: usize,
    /// Of several runs, of which one may tell of what another one knows better: more are kept to choose among.
    is_wide: bool,
    healthy: usize,
    patience_ns: u64,
}

impl Gallery {
    /// Of several runs.
    pub(super) fn of_several() -> Self {
        Self {
            is_wide: true,
            ..Self::default()
        }
    }

    /// So many flows of a group are kept.
    fn most(&self, group: Group) -> usize {
        group.most() * if self.is_wide { WIDER } else { 1 }
    }

    /// What follows is of another run.
    pub(super) fn begin(&mut self, patience_ns: u64) {
        self.runs += 1;
        self.patience_ns = patience_ns;
    }

    /// Keeps the flow if it is among the worst of its kind. What is said last about a flow stands.
    pub(super) fn add(
        &mut self,
        flow: &Flow,
        fate: Fate,
        diagnosis: &Diagnosis,
        facts: &Facts,
        clock: &Clock,
    ) {
        let run = self.runs.saturating_sub(1);
        self.forget((run, flow.id));
        let group = Group::of(flow, fate, diagnosis);
        let rank = (
            Reverse(lost_ns(flow, fate, self.patience_ns)),
            clock.at(flow.start_ns()),
        );
        if matches!(group, Group::Healthy(_)) && !self.groups.contains_key(&group) {
            if self.healthy == MOST_NODE_PORTS {
                return;
            }
            self.healthy += 1;
        }
        let most = self.most(group);
        let kept = self.groups.entry(group).or_default();
        let at = kept.partition_point(|other| other.rank <= rank);
        if at >= most {
            return;
        }
        // Only now: most flows of a long recording do not come so far.
        let ladder = Ladder::of(flow, fate, diagnosis, facts, clock);
        kept.insert(
            at,
            Kept {
                run,
                ladder,
                rank,
                node: flow.node(),
            },
        );
        self.places.insert((run, flow.id), group);
        if kept.len() > most
            && let Some(last) = kept.pop()
        {
            self.places.remove(&(last.run, last.ladder.id));
        }
    }

    /// A flow of this run that may have been kept is not asked for any more.
    pub(super) fn leave_out(&mut self, id: u64) {
        self.forget((self.runs.saturating_sub(1), id));
    }

    fn forget(&mut self, (run, id): (usize, u64)) {
        if let Some(group) = self.places.remove(&(run, id))
            && let Some(kept) = self.groups.get_mut(&group)
        {
            kept.retain(|other| other.run != run || other.ladder.id != id);
        }
    }

    /// The flows to draw: the worst of each cause, then others that cost much, and one that went well to compare with. Of a
    /// connection that several runs saw, one flow.
    pub(super) fn shown(&self, several: Option<&Several>) -> Vec<&Kept> {
        let has = |(run, id): Key| self.places.contains_key(&(run.saturating_sub(1), id));
        let groups: Vec<(Group, Vec<&Kept>)> = self
            .groups
            .iter()
            .map(|(group, kept)| {
                let drawn =
                    |kept: &&Kept| several.is_none_or(|several| several.together.is_drawn(kept.key(), has));
                (*group, kept.iter().filter(drawn).take(group.most()).collect())
            })
            .collect();
        let bad: Vec<&Vec<&Kept>> = groups
            .iter()
            .filter(|(group, kept)| matches!(group, Group::Bad(_)) && !kept.is_empty())
            .map(|(_, kept)| kept)
            .collect();
        let mut shown: Vec<&Kept> = bad.iter().filter_map(|kept| kept.first().copied()).collect();
        let mut others: Vec<&Kept> = bad.iter().flat_map(|kept| kept.iter().skip(1).copied()).collect();
        others.sort_by_key(|kept| kept.rank);
        others.truncate(MOST_SHOWN.saturating_sub(shown.len()));
        shown.extend(others);
        shown.sort_by_key(|kept| kept.rank);
        let of = |wanted: fn(&Group) -> bool| {
            let groups = groups.iter().filter(move |(group, _)| wanted(group));
            groups.flat_map(|(_, kept)| kept.iter().copied())
        };
        shown.extend(of(|group| *group == Group::Pending));
        let healthy = of(|group| matches!(group, Group::Healthy(_)));
        let worst = shown.first().map(|kept| kept.node);
        let most = FEW.saturating_sub(shown.len()).max(1);
        let (like, unlike): (Vec<&Kept>, Vec<&Kept>) =
            healthy.partition(|kept| worst.is_some_and(|worst| worst == kept.node));
        shown.extend(like.into_iter().chain(unlike).take(most));
        shown
    }
}
