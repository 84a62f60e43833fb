//! The hooks that this kernel offers, and why the others are not attached.

use tracer_common::hook::{self, Hook, HookInfo, HookKind, When};

use super::offsets::Offsets;
use crate::{
    facts::{kallsyms::Symbols, modules::Modules},
    finding::hook_state::{self, HookState},
};

/// The state of a hook, with the reason if it is not attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Attached, or to be attached.
    Attached,
    /// Attached only while it is wanted.
    OnDemand(&'static str),
    /// Not attached, because other hooks show the same on this kernel.
    Unneeded(&'static str),
    /// The kernel does not have the function at the moment.
    Missing(String),
    /// The kernel has the function, but tracer cannot use it.
    Disabled(String),
}

impl State {
    /// The kind of state, without the reason.
    #[must_use]
    pub const fn kind(&self) -> hook_state::State {
        match self {
            Self::Attached => hook_state::State::Attached,
            Self::OnDemand(_) => hook_state::State::OnDemand,
            Self::Unneeded(_) => hook_state::State::Unneeded,
            Self::Missing(_) => hook_state::State::Missing,
            Self::Disabled(_) => hook_state::State::Disabled,
        }
    }

    /// Why the hook is not attached.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Attached => None,
            Self::OnDemand(why) | Self::Unneeded(why) => Some(why),
            Self::Missing(why) | Self::Disabled(why) => Some(why),
        }
    }
}

/// A hook and its state.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The row of the hook table.
    pub info: &'static HookInfo,
    /// Its state.
    pub state: State,
}

/// Converts hooks for observers and recordings.
#[must_use]
pub fn states(hooks: &[Planned]) -> Vec<HookState> {
    hooks
        .iter()
        .map(|planned| HookState {
            name: planned.info.name.to_owned(),
            kind: planned.info.kind.name().to_owned(),
            state: planned.state.kind(),
            why: planned.state.why().map(str::to_owned),
        })
        .collect()
}

/// Plans the state of each hook of the hook table. The hook that serves only to prove a layout is left out.
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
    match info.when {
        When::WithoutDropReasons if !offsets.drop_reasons().is_empty() => {
            State::Unneeded("skb:kfree_skb reports the drop reason on this kernel")
        }
        when => idle_state(when),
    }
}

/// The state of a hook that can be attached, before anything makes on-demand hooks wanted.
#[must_use]
pub(super) fn idle_state(when: When) -> State {
    match when {
        When::Always | When::WithoutDropReasons => State::Attached,
        When::OnSuspicion => State::OnDemand("runs for every packet: attached at depth full"),
        When::AfterRuleDrop => {
            State::OnDemand("runs for every packet of the node: attached while a rule may have dropped one")
        }
    }
}

/// The plan of a run that begins at depth full, or at depth light.
#[must_use]
pub fn begin_at(mut plan: Vec<Planned>, is_full: bool) -> Vec<Planned> {
    for planned in &mut plan {
        if is_full && planned.info.when == When::OnSuspicion && matches!(planned.state, State::OnDemand(_)) {
            planned.state = State::Attached;
        }
    }
    plan
}

/// Why the kernel does not have this function, or not exactly once. `None` if it does.
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
        several => Some(format!("this kernel has {several} functions named {}", info.name)),
    }
}

/// The function that does the same on this kernel.
fn other_name(hook: Hook, symbols: &Symbols) -> Option<Hook> {
    Hook::ALTERNATIVES
        .iter()
        .filter(|group| group.contains(&hook))
        .flat_map(|group| group.iter().copied())
        .find(|&other| other != hook && symbols.has_function(other.name(), None))
}

#[cfg(test)]
mod tests {
    use tracer_common::field::{NFT_CHAIN_NAME, NFT_PKTINFO_SKB, SK_BUFF_HEAD, SK_BUFF_NETWORK_HEADER};

    use super::*;

    fn planned(symbols: &str, modules: &str, offsets: &Offsets) -> impl Fn(Hook) -> State + use<> {
        let symbols = Symbols::parse(symbols.as_bytes()).expect("a list of symbols");
        let plan = begin_at(plan(&symbols, &Modules::parse(modules, ""), offsets), true);
        move |hook| {
            let found = plan.iter().find(|planned| planned.info.hook == hook);
            found.expect("every hook is planned").state.clone()
        }
    }

    const OLD: &str = "\
ffffffffc0100000 t ip_vs_remote_request4\t[ip_vs]
ffffffffc0100100 t ip_vs_in.part.0\t[ip_vs]
ffffffffc0100200 T ip_vs_schedule\t[ip_vs]
ffffffff81000000 T tcp_conn_request
ffffffff81000100 t __icmp_send
ffffffff81000200 t __icmp_send
";
    const IP_VS: &str = "ip_vs 180224 2 ip_vs_rr, Live 0x0000000000000000\n";

    fn headers() -> Offsets {
        Offsets::of(&[(&SK_BUFF_HEAD, 192), (&SK_BUFF_NETWORK_HEADER, 180)])
    }

    #[test]
    fn an_existing_function_is_attached_and_an_absent_one_is_missing_with_the_reason() {
        let state = planned(OLD, IP_VS, &headers());
        assert_eq!(state(Hook::IpvsRemoteRequest), State::Attached);
        assert_eq!(state(Hook::TcpConnRequest), State::Attached);
        let State::Missing(why) = state(Hook::IpvsIn) else {
            panic!("ip_vs_in_hook is not there")
        };
        assert_eq!(why, "this kernel has ip_vs_remote_request4 instead");
        let State::Missing(why) = state(Hook::IpvsLeave) else {
            panic!("ip_vs_leave is not there")
        };
        assert_eq!(why, "this kernel has no function ip_vs_leave");
    }

    #[test]
    fn an_ambiguous_function_name_is_not_probed() {
        let state = planned(OLD, IP_VS, &headers());
        assert!(matches!(state(Hook::IcmpSend), State::Missing(why) if why.contains("2 functions")));
    }

    #[test]
    fn an_unloaded_module_is_named_as_the_reason() {
        let state = planned("", "", &headers());
        assert_eq!(
            state(Hook::IpvsSchedule),
            State::Missing("module ip_vs is not loaded".to_owned())
        );
    }

    #[test]
    fn an_unknown_offset_disables_only_the_hooks_that_need_it() {
        let state = planned(OLD, IP_VS, &Offsets::of(&[(&SK_BUFF_HEAD, 192)]));
        assert_eq!(
            state(Hook::IpvsSchedule),
            State::Disabled("not on this kernel".to_owned())
        );
        assert_eq!(
            state(Hook::NetifReceive),
            State::Disabled("not on this kernel".to_owned())
        );
    }

    #[test]
    fn a_hook_that_runs_for_every_packet_is_on_demand() {
        let mut offsets = headers();
        let symbols = "ffffffffc0200000 T nft_do_chain\t[nf_tables]\n";
        let nf_tables = "nf_tables 303104 1 - Live 0xffffffffc0200000\n";
        let state = planned(symbols, nf_tables, &offsets);
        assert!(matches!(state(Hook::NftDoChain), State::Disabled(_)));
        offsets.set(&NFT_PKTINFO_SKB, Ok(0));
        offsets.set(&NFT_CHAIN_NAME, Ok(88));
        let state = planned(symbols, nf_tables, &offsets);
        assert!(matches!(state(Hook::NftDoChain), State::OnDemand(_)));
    }

    #[test]
    fn a_run_that_begins_light_attaches_only_what_runs_at_rest() {
        let symbols = Symbols::parse(OLD.as_bytes()).expect("a list of symbols");
        let plan = || plan(&symbols, &Modules::parse(IP_VS, ""), &headers());
        let attached = |plan: Vec<Planned>, hook: Hook| {
            let found = plan.iter().find(|planned| planned.info.hook == hook);
            found.expect("a hook").state == State::Attached
        };
        for (hook, at_rest) in [
            (Hook::IpvsRemoteRequest, false),
            (Hook::DevStartXmit, false),
            (Hook::IpvsSchedule, true),
            (Hook::NetifReceive, true),
        ] {
            assert_eq!(
                attached(begin_at(plan(), false), hook),
                at_rest,
                "{}",
                hook.name()
            );
            assert!(attached(begin_at(plan(), true), hook));
        }
    }

    #[test]
    fn the_hook_that_proves_a_layout_is_not_planned() {
        let symbols = Symbols::default();
        let plan = plan(&symbols, &Modules::default(), &headers());
        assert!(
            plan.iter()
                .all(|planned| planned.info.hook != Hook::IpvsConnSeqShow)
        );
    }
}
