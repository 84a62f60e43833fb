//! The loaded kernel half: attaches hooks at the start, and attaches and detaches some while tracing.
//!
//! Nothing is pinned: however the process ends, the kernel detaches everything.

use std::{cmp::Reverse, collections::BTreeMap};

use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, RingBuf},
};
use tracer_common::{
    hook::{self, Hook, HookInfo, HookKind, When},
    lost::{self, Counter},
    proof::TAG_IS_SET,
};

pub use super::object::{AttachError, Selection, has_kprobes, is_beyond_memlock};
use super::{
    costs::Meter,
    flow_table::FlowTable,
    kernel_log::KernelLog,
    links::{self, Links},
    missed,
    object::{self, OffsetsMap},
    offsets::Offsets,
    plan::{self, Planned, State},
};
use crate::finding::costs::Costs;

/// The loaded kernel half with its attached hooks. Dropping it detaches everything.
pub struct Probe {
    ebpf: Ebpf,
    log: Option<KernelLog>,
    lost: PerCpuArray<MapData, Counter>,
    flow_table: FlowTable,
    offsets: Offsets,
    offsets_map: OffsetsMap,
    /// All planned hooks, in the order of the hook table.
    hooks: Vec<Planned>,
    links: BTreeMap<Hook, Links>,
    meter: Option<Meter>,
}

/// A hook's index in the hook table, which follows the path of a packet.
fn position(hook: Hook) -> Option<usize> {
    hook::ALL.iter().position(|info| info.hook == hook)
}

impl Probe {
    /// Attaches the hooks of the plan, from the last one on a packet's path to the first, so that no flow begins before
    /// all hooks on its path are attached. A hook that the kernel rejects becomes [`State::Disabled`].
    ///
    /// # Errors
    /// The object cannot be loaded.
    pub fn attach(
        plan: Vec<Planned>,
        offsets: Offsets,
        selection: &Selection,
    ) -> Result<(Self, RingBuf<MapData>), AttachError> {
        let mut ebpf = object::load(&offsets, selection)?;
        let mut offsets_map = OffsetsMap::take(&mut ebpf)?;
        offsets_map.write(&offsets)?;
        let ring = object::take(&mut ebpf, "EVENTS")?;
        let lost = object::take(&mut ebpf, "LOST")?;
        let flow_table = FlowTable::take(&mut ebpf, selection.flow_entries)?;
        let log = KernelLog::of(&mut ebpf);
        let mut probe = Self {
            ebpf,
            log,
            lost,
            flow_table,
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
        for index in probe.last_to_first() {
            probe.attach_planned(index);
        }
        Ok((probe, ring))
    }

    /// Attaches a single hook.
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

    /// Makes the hook [`Hook::IpvsConnSeqShow`] report the entries of the proof with this tag.
    pub(super) fn report_proof(&mut self, tag: u16) -> Result<(), AttachError> {
        const MAP: &str = "PROOF";
        let map_error = |source| AttachError::Map { name: MAP, source };
        let map = self.ebpf.map_mut(MAP).ok_or(AttachError::NoMap(MAP))?;
        let mut map: Array<_, u32> = Array::try_from(map).map_err(map_error)?;
        map.set(0, u32::from(tag) | TAG_IS_SET, 0).map_err(map_error)
    }

    /// The table of flows.
    #[must_use]
    pub fn flow_table(&self) -> &FlowTable {
        &self.flow_table
    }

    /// All hooks with their states.
    #[must_use]
    pub fn hooks(&self) -> &[Planned] {
        &self.hooks
    }

    /// Attaches each on-demand hook for a moment, to find out whether the kernel accepts it.
    pub fn try_on_demand(&mut self) {
        for planned in &mut self.hooks {
            if matches!(planned.state, State::OnDemand(_))
                && let Err(why) = links::attach(&mut self.ebpf, planned.info)
            {
                planned.state = State::Disabled(why);
            }
        }
    }

    /// Switches to another plan after modules were loaded. Hooks that stay attached are not touched.
    pub fn change_plan(&mut self, plan: &[Planned], offsets: Offsets) -> Result<(), AttachError> {
        // The offsets first, then the hooks that read them.
        self.offsets = offsets;
        self.offsets_map.write(&self.offsets)?;
        for index in self.last_to_first() {
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
            self.attach_planned(index);
        }
        Ok(())
    }

    /// Detaches the hooks of an unloaded module, and drops its offsets. The kernel has disabled the probes in it for good.
    pub fn module_unloaded(&mut self, module: &'static str) -> Result<(), AttachError> {
        for planned in &mut self.hooks {
            if planned.info.module == module && planned.info.kind != HookKind::Tracepoint {
                self.links.remove(&planned.info.hook);
                planned.state = State::Missing(format!("module {module} is not loaded"));
            }
        }
        self.offsets.forget(module);
        self.offsets_map.write(&self.offsets)
    }

    /// Whether a hook of this kind is attached.
    #[must_use]
    pub fn has_attached(&self, when: When) -> bool {
        let mut hooks = self.hooks.iter();
        hooks.any(|planned| planned.info.when == when && planned.state == State::Attached)
    }

    /// Loads the programs of the on-demand hooks of one kind, so that they can be attached at once.
    pub fn preload(&mut self, when: When) {
        let idle = self
            .hooks
            .iter()
            .filter(|planned| planned.info.when == when && matches!(planned.state, State::OnDemand(_)));
        links::load_all(&mut self.ebpf, idle.map(|planned| planned.info));
    }

    /// Attaches or detaches the on-demand hooks of one kind. Returns whether any hook changed.
    pub fn set_wanted(&mut self, when: When, is_wanted: bool) -> bool {
        let mut has_changed = false;
        let mut detached = Vec::new();
        let mut order = self.last_to_first();
        if !is_wanted {
            // Detaching starts at the beginning of the path: what a packet meets after an attached hook is still seen.
            order.reverse();
        }
        if is_wanted {
            self.preload(when);
        }
        for index in order {
            let Planned { info, state } = &mut self.hooks[index];
            if info.when != when {
                continue;
            }
            match (is_wanted, &state) {
                (true, State::OnDemand(_)) => {
                    *state = State::Attached;
                    self.attach_planned(index);
                }
                (false, State::Attached) => {
                    *state = plan::idle_state(when);
                    detached.extend(self.links.remove(&info.hook));
                }
                _ => continue,
            }
            has_changed = true;
        }
        links::close_all(detached.into_iter());
        has_changed
    }

    /// The hooks' indices, from the end of a packet's path to its start.
    fn last_to_first(&self) -> Vec<usize> {
        let mut out: Vec<usize> = (0..self.hooks.len()).collect();
        out.sort_by_key(|&index| Reverse(position(self.hooks[index].info.hook.role())));
        out
    }

    /// Attaches a hook whose state is [`State::Attached`]. If the kernel rejects it, the state becomes
    /// [`State::Disabled`].
    fn attach_planned(&mut self, index: usize) {
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

    /// The cost of the hooks since the last call. `None` at the first call, while not wanted, and on kernels that do not
    /// count it.
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

    /// Prints the messages of a debug object since the last call.
    pub fn print_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.print();
        }
    }

    /// Records that did not fit into the ring buffer since the start, by hook. Hooks that lost none are left out.
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

impl Probe {
    /// How often the kernel skipped probes since the start, by hook; `None` if this kernel does not count that. Hooks that it
    /// never skipped are left out. Takes some milliseconds.
    #[must_use]
    pub fn missed(&self) -> Option<BTreeMap<&'static str, u64>> {
        let hooks = self.hooks.iter().map(|planned| planned.info);
        Some(missed::read(&self.ebpf, hooks, self.offsets.missed_at()?))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        links::close_all(std::mem::take(&mut self.links).into_values());
    }
}
