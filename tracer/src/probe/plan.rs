//! Which hooks this kernel offers, and why the others stay off.

use tracer_common::hook::{self, Hook, HookInfo, HookKind};

use super::offsets::Offsets;
use crate::node::{kallsyms::Symbols, modules::Modules};

/// What becomes of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is, or is to be, attached.
    Attached,
    /// The kernel does not have the function now.
    Missing(String),
    /// The kernel has the function, but tracer cannot use it.
    Disabled(String),
}

impl State {
    /// The name that users see.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Missing(_) => "missing",
            Self::Disabled(_) => "disabled",
        }
    }

    /// Why it is not attached.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Attached => None,
            Self::Missing(why) | Self::Disabled(why) => Some(why),
        }
    }
}

/// A hook and what becomes of it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The row of the hook table.
    pub info: &'static HookInfo,
    /// What becomes of it.
    pub state: State,
}

/// Goes through the hook table. Hooks that only serve to prove a layout are not part of it.
#[must_use]
pub fn plan(symbols: &Symbols, modules: &Modules, offsets: &Offsets) -> Vec<Planned> {
    hook::ALL
        .iter()
        .filter(|info| info.hook != Hook::IpvsConnSeqShow)
        .map(|info| Planned {
            info,
            state: state(info, symbols, modules, offsets),
        })
        .collect()
}

fn state(info: &HookInfo, symbols: &Symbols, modules: &Modules, offsets: &Offsets) -> State {
    if info.kind != HookKind::Tracepoint
        && let Some(why) = absent(info, symbols, modules)
    {
        return State::Missing(why);
    }
    for field in info.needs {
        if let Err(why) = offsets.get(field) {
            return State::Disabled(why.to_owned());
        }
    }
    State::Attached
}

fn absent(info: &HookInfo, symbols: &Symbols, modules: &Modules) -> Option<String> {
    let module = (!info.module.is_empty() && modules.is_loaded(info.module)).then_some(info.module);
    match symbols.count_functions(info.name, module) {
        1 => None,
        0 if !info.module.is_empty() && !modules.has(info.module) => {
            Some(format!("module {} is not loaded", info.module))
        }
        0 => Some(match other_name(info.hook, symbols) {
            Some(other) => format!("this kernel has {} instead", other.name()),
            None => format!("this kernel has no function {}", info.name),
        }),
        several => Some(format!(
            "this kernel has {several} functions called {}",
            info.name
        )),
    }
}

/// The function that does the same work on this kernel.
fn other_name(hook: Hook, symbols: &Symbols) -> Option<Hook> {
    Hook::ALTERNATIVES
        .iter()
        .filter(|group| group.contains(&hook))
        .flat_map(|group| group.iter().copied())
        .find(|&other| other != hook && symbols.has_function(other.name(), None))
}
