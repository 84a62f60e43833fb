//! The flows that are drawn: a bounded number, however long the recording is.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use jiff::Timestamp;

use crate::{
    diagnose::cause::Cause,
    finding::Finding,
    flow::fate::Fate,
    report::{joined::Key, ladder::Ladder, summary::Several},
};

/// The most failed and delayed flows that are drawn; more only if there are more causes.
const MOST_SHOWN: usize = 40;
/// The most of each cause.
const MOST_OF_CAUSE: usize = 5;
/// The most NodePorts with healthy flows kept.
const MOST_NODE_PORTS: usize = 32;
/// The most healthy flows of each.
const MOST_OF_NODE_PORT: usize = 8;
/// One healthy flow is drawn for comparison, and more while there are fewer flows than this.
const FEW: usize = 8;

/// With several runs, this many times as many flows are kept.
const SEVERAL_FACTOR: usize = 4;

/// A kind of flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Group {
    /// Failed or delayed, with this cause.
    Failed(Option<Cause>),
    /// Not decided.
    Pending,
    /// Healthy, to this NodePort.
    Healthy(SocketAddr),
}

impl Group {
    fn of(finding: &Finding<'_>) -> Self {
        if finding.is_failure() {
            Self::Failed(finding.diagnosis.cause)
        } else if finding.fate == Fate::Pending {
            Self::Pending
        } else {
            Self::Healthy(finding.flow.node())
        }
    }

    fn most(self) -> usize {
        match self {
            Self::Failed(_) => MOST_OF_CAUSE,
            Self::Pending => 1,
            Self::Healthy(_) => MOST_OF_NODE_PORT,
        }
    }
}

/// The worst flow has the smallest rank; of equal ones, the first.
type Rank = (Reverse<u64>, Timestamp);

/// A flow that is kept to be drawn.
#[derive(Debug)]
pub(super) struct Kept {
    /// The number of its run, from 0.
    pub(super) run: usize,
    /// Its path.
    pub(super) ladder: Ladder,
    rank: Rank,
    node: SocketAddr,
}

impl Kept {
    /// Its key in the summary.
    pub(super) fn key(&self) -> Key {
        (self.run + 1, self.ladder.id)
    }

    /// Its id on the page.
    pub(super) fn anchor(&self) -> String {
        format!("flow-{}-{}", self.run + 1, self.ladder.id)
    }

    /// The flow from the same client port before it, if it is drawn too.
    pub(super) fn earlier<'a>(&self, shown: &[&'a Self]) -> Option<&'a Self> {
        let (id, _) = self.ladder.earlier.as_ref()?;
        shown
            .iter()
            .copied()
            .find(|other| other.run == self.run && other.ladder.id == *id)
    }
}

/// The flows that are kept to be drawn.
#[derive(Debug, Default)]
pub(super) struct Gallery {
    groups: BTreeMap<Group, Vec<Kept>>,
    /// The group of each kept flow.
    places: HashMap<(usize, u64), Group>,
    runs: usize,
    /// Whether there are several runs. If so, more flows are kept, because for each connection the best run is chosen at the end.
    is_several: bool,
    healthy: usize,
}

impl Gallery {
    /// A gallery for several runs.
    pub(super) fn of_several() -> Self {
        Self {
            is_several: true,
            ..Self::default()
        }
    }

    /// The most flows kept of a group.
    fn most(&self, group: Group) -> usize {
        group.most() * if self.is_several { SEVERAL_FACTOR } else { 1 }
    }

    /// Starts the next run.
    pub(super) fn begin(&mut self) {
        self.runs += 1;
    }

    /// Keeps the flow if it is among the worst of its kind, in place of its last report.
    pub(super) fn add(&mut self, finding: &Finding<'_>) {
        let flow = finding.flow;
        let run = self.runs.saturating_sub(1);
        self.forget((run, flow.id));
        let group = Group::of(finding);
        let rank = (Reverse(finding.lost_ns()), finding.clock.at(flow.start_ns()));
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
        // Built only now, because most flows of a long recording are not kept.
        let ladder = Ladder::of(finding);
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

    /// Removes a flow of this run, if it is kept.
    pub(super) fn remove(&mut self, id: u64) {
        self.forget((self.runs.saturating_sub(1), id));
    }

    fn forget(&mut self, (run, id): (usize, u64)) {
        if let Some(group) = self.places.remove(&(run, id))
            && let Some(kept) = self.groups.get_mut(&group)
        {
            kept.retain(|other| other.run != run || other.ladder.id != id);
        }
    }

    /// The flows to draw: the worst of each cause, then other costly ones, and one healthy flow for comparison. Of a
    /// connection that several runs saw, one flow.
    pub(super) fn shown(&self, several: Option<&Several>) -> Vec<&Kept> {
        let has = |(run, id): Key| self.places.contains_key(&(run.saturating_sub(1), id));
        let groups: Vec<(Group, Vec<&Kept>)> = self
            .groups
            .iter()
            .map(|(group, kept)| {
                let drawn =
                    |kept: &&Kept| several.is_none_or(|several| several.joined.is_drawn(kept.key(), has));
                (*group, kept.iter().filter(drawn).take(group.most()).collect())
            })
            .collect();
        let failed: Vec<&Vec<&Kept>> = groups
            .iter()
            .filter(|(group, kept)| matches!(group, Group::Failed(_)) && !kept.is_empty())
            .map(|(_, kept)| kept)
            .collect();
        let mut shown: Vec<&Kept> = failed.iter().filter_map(|kept| kept.first().copied()).collect();
        let mut others: Vec<&Kept> = failed
            .iter()
            .flat_map(|kept| kept.iter().skip(1).copied())
            .collect();
        others.sort_by_key(|kept| kept.rank);
        others.truncate(MOST_SHOWN.saturating_sub(shown.len()));
        shown.extend(others);
        shown.sort_by_key(|kept| kept.rank);
        let of = |selects: fn(&Group) -> bool| {
            let groups = groups.iter().filter(move |(group, _)| selects(group));
            groups.flat_map(|(_, kept)| kept.iter().copied())
        };
        shown.extend(of(|group| *group == Group::Pending));
        let healthy = of(|group| matches!(group, Group::Healthy(_)));
        let worst = shown.first().map(|kept| kept.node);
        let most = FEW.saturating_sub(shown.len()).max(1);
        let (same, other): (Vec<&Kept>, Vec<&Kept>) =
            healthy.partition(|kept| worst.is_some_and(|worst| worst == kept.node));
        shown.extend(same.into_iter().chain(other).take(most));
        shown
    }
}
