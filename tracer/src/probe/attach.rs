//! The kernel half at work: which hooks are attached, and which are then attached and detached while it works.
//! Nothing is pinned: when the process ends, in whatever way, the kernel detaches everything.

use std::{cmp::Reverse, collections::BTreeMap};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
};
use tracer_common::{
    hook::{self, Hook, HookInfo, HookKind, When},
    lost::{self, Counter},
};

pub use super::object::{AttachError, Selection, has_kprobes};
use super::{
    costs::Meter,
    kernel_log::KernelLog,
    links::{self, Links},
    object::{self, ModuleOffsets},
    offsets::Offsets,
    plan::{self, Planned, State},
};
use crate::finding::costs::Costs;

/// The kernel half at work. Dropping it detaches everything.
pub struct Probe {
    ebpf: Ebpf,
    log: Option<KernelLog>,
    lost: PerCpuArray<MapData, Counter>,
    offsets: Offsets,
    offsets_map: ModuleOffsets,
    /// In the order of the hook table.
    hooks: Vec<Planned>,
    links: BTreeMap<Hook, Links>,
    meter: Option<Meter>,
}

/// A hook's place in the table, which is its place on a packet's way.
fn place(hook: Hook) -> Option<usize> {
    hook::ALL.iter().position(|info| info.hook == hook)
}

impl Probe {
    /// Attaches every hook of the plan that can be, from the last to the first, so that a flow begins when all hooks
    /// of its way are there. A hook that the kernel refuses is marked so and left out.
    pub fn attach(
        plan: Vec<Planned>,
        offsets: Offsets,
        selection: &Selection,
    ) -> Result<(Self, RingBuf<MapData>), AttachError> {
        let mut ebpf = object::load(&offsets, selection)?;
        let mut offsets_map = ModuleOffsets::take(&mut ebpf)?;
        offsets_map.write(&offsets)?;
        let ring = object::take(&mut ebpf, "EVENTS")?;
        let lost = object::take(&mut ebpf, "LOST")?;
        let log = KernelLog::of(&mut ebpf);
        let mut probe = Self {
            ebpf,
            log,
            lost,
            offsets,
            offsets_map,
            hooks: plan,
            links: BTreeMap::new(),
            meter: None,
        };
        let wanted = probe
            .hooks
            .iter()
            .filter(|planned| planned.state == State::Attached);
        links::load_all(&mut probe.ebpf, wanted.map(|planned| planned.info));
        for index in probe.against_the_way() {
            probe.settle(index);
        }
        Ok((probe, ring))
    }

    /// Attaches one hook alone, with the offsets given.
    pub fn attach_one(
        info: &'static HookInfo,
        offsets: &Offsets,
    ) -> Result<(Self, RingBuf<MapData>), AttachError> {
        let plan = vec![Planned {
            info,
            state: State::Attached,
        }];
        Self::attach(plan, offsets.clone(), &Selection::default())
    }

    /// Every hook and what became of it.
    #[must_use]
    pub fn hooks(&self) -> &[Planned] {
        &self.hooks
    }

    /// Attaches each hook that waits for its time, for a moment, to learn whether the kernel lets it.
    pub fn try_on_demand(&mut self) {
        for planned in &mut self.hooks {
            if matches!(planned.state, State::OnDemand(_))
                && let Err(why) = links::attach(&mut self.ebpf, planned.info)
            {
                planned.state = State::Disabled(why);
            }
        }
    }

    /// Goes over to another plan, after modules came. Hooks that are attached and stay so are left alone.
    pub fn follow(&mut self, plan: &[Planned], offsets: Offsets) -> Result<(), AttachError> {
        // Before a hook that reads them is attached.
        self.offsets = offsets;
        self.offsets_map.write(&self.offsets)?;
        for index in self.against_the_way() {
            let hook = self.hooks[index].info.hook;
            let Some(planned) = plan.iter().find(|planned| planned.info.hook == hook) else {
                continue;
            };
            let is_possible = matches!(planned.state, State::Attached | State::OnDemand(_));
            if is_possible && self.links.contains_key(&hook) {
                continue;
            }
            self.links.remove(&hook);
            self.hooks[index] = planned.clone();
            self.settle(index);
        }
        Ok(())
    }

    /// A module is gone: the kernel has disabled the probes in it for good.
    pub fn lose(&mut self, module: &'static str) -> Result<(), AttachError> {
        for planned in &mut self.hooks {
            if planned.info.module == module && planned.info.kind != HookKind::Tracepoint {
                self.links.remove(&planned.info.hook);
                planned.state = State::Missing(format!("module {module} is not loaded"));
            }
        }
        self.offsets.forget(module);
        self.offsets_map.write(&self.offsets)
    }

    /// Attaches the hooks of a kind that is wanted now, or detaches them. Gives whether there was anything to do.
    pub fn want(&mut self, when: When, is_wanted: bool) -> bool {
        let mut has_changed = false;
        let mut order = self.against_the_way();
        if !is_wanted {
            // Whatever is still seen of a packet at one hook, the hooks behind it are still there to see what follows.
            order.reverse();
        }
        if is_wanted {
            let resting = self
                .hooks
                .iter()
                .filter(|planned| planned.info.when == when && matches!(planned.state, State::OnDemand(_)));
            links::load_all(&mut self.ebpf, resting.map(|planned| planned.info));
        }
        for index in order {
            let Planned { info, state } = &mut self.hooks[index];
            if info.when != when {
                continue;
            }
            match (is_wanted, &state) {
                (true, State::OnDemand(_)) => {
                    *state = State::Attached;
                    self.settle(index);
                }
                (false, State::Attached) => {
                    *state = plan::resting(when);
                    self.links.remove(&info.hook);
                }
                _ => continue,
            }
            has_changed = true;
        }
        has_changed
    }

    /// The hooks' indices from the end of a packet's way to its beginning.
    fn against_the_way(&self) -> Vec<usize> {
        let mut out: Vec<usize> = (0..self.hooks.len()).collect();
        out.sort_by_key(|&index| Reverse(place(self.hooks[index].info.hook.role())));
        out
    }

    /// Does with a hook what its state says; if the kernel refuses, the state says so.
    fn settle(&mut self, index: usize) {
        let Planned { info, state } = &mut self.hooks[index];
        if *state != State::Attached {
            return;
        }
        match links::attach(&mut self.ebpf, info) {
            Ok(links) => {
                self.links.insert(info.hook, links);
            }
            Err(why) => *state = State::Disabled(why),
        }
    }

    /// What the hooks cost since the last call, while that is wanted; `None` at the first call, and where the kernel does
    /// not tell.
    pub fn costs(&mut self, is_wanted: bool) -> Option<Costs> {
        if !is_wanted {
            self.meter = None;
            return None;
        }
        let hooks = self.hooks.iter().map(|planned| planned.info);
        if let Some(meter) = &mut self.meter {
            return Some(meter.read(&self.ebpf, hooks));
        }
        self.meter = Meter::start(&self.ebpf, hooks);
        None
    }

    /// Prints what the debug object had to say since the last call.
    pub fn print_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.print();
        }
    }

    /// Records that did not fit into the ring buffer since the start, by hook; hooks that lost none are left out.
    pub fn lost(&self) -> Result<BTreeMap<&'static str, u64>, AttachError> {
        let mut out = BTreeMap::new();
        for info in hook::ALL {
            let per_cpu = self
                .lost
                .get(&u32::from(info.hook as u16), 0)
                .map_err(|source| AttachError::Map { name: "LOST", source })?;
            let sum: u64 = per_cpu.iter().map(lost::total).sum();
            if sum != 0 {
                out.insert(info.name, sum);
            }
        }
        Ok(out)
    }
}
