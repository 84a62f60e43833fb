//! iptables: the table that dropped a packet, and the rule that rejected it.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_common::{
    hook::Hook,
    record::{Header, Reject, Table, table as have},
    uapi::{ctinfo, verdict},
};

use super::{
    call::{self, Call},
    emit::{self, emit},
    fields::{self, Offset, address, pointer, read, read_at, read_text},
    flow::{self, FlowRef},
    netfilter::{find_rule, place},
    packet::{self, Packet},
};

/// `ipt_do_table(skb, state, table)` from 4.4 to 5.15, `ipt_do_table(table, skb, state)` since 5.16, and
/// `ip6t_do_table` likewise. The argument with a traced packet shows which of them it is: a table never looks like one.
pub(super) mod table {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let arguments: (u64, u64, u64) = (ctx.arg(0)?, ctx.arg(1)?, ctx.arg(2)?);
        let ((packet, flow), table, state) = match traced(arguments.0) {
            Some(found) => (found, arguments.2, arguments.1),
            None => (traced(arguments.1)?, arguments.0, arguments.2),
        };
        call::enter(hook, ctx, &packet, &flow, (table, state), |_| ());
        Some(())
    }

    /// Records only a table that dropped the packet.
    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            if verdict::is_drop(call.header.verdict) {
                emit(hook, |header, table: &mut Table| describe(call, header, table));
            }
        })
    }

    #[inline(always)]
    fn describe(call: &Call, header: &mut Header, out: &mut Table) {
        let (table, state) = call.kept;
        *header = call.header;
        (out.nf_hook, _) = place(header, state);
        table_name(table, &mut out.name);
        device_name(state, &fields::NF_HOOK_STATE_IN, &mut out.input);
        device_name(state, &fields::NF_HOOK_STATE_OUT, &mut out.output);
        // With NF_DROP the caller frees the packet, which is still there.
        if let Some(mark) = read(header.skb, &fields::SK_BUFF_MARK) {
            out.mark = mark;
            out.have |= have::MARK;
        }
        if let Some(tagged) = read::<u64>(header.skb, &fields::SK_BUFF_NFCT) {
            let info = (tagged & ctinfo::MASK) as u32;
            out.ctinfo = if tagged & !ctinfo::MASK == 0 && info != ctinfo::UNTRACKED {
                have::NO_CONNECTION
            } else {
                info
            };
            out.have |= have::CTINFO;
        }
    }
}

/// The packet and its flow, if it is traced.
#[inline(always)]
fn traced(skb: u64) -> Option<(Packet, FlowRef)> {
    let packet = packet::parse(skb)?;
    let flow = flow::of(&packet)?;
    Some((packet, flow))
}

// Names are read into the record: the stack of a program is small.

#[inline(always)]
fn table_name(table: u64, out: &mut [u8; 32]) {
    if let Some(name) = address(table, &fields::XT_TABLE_NAME) {
        read_text(name, out);
    }
}

#[inline(always)]
fn device_name(state: u64, which: &impl Offset, out: &mut [u8; 16]) {
    if let Some(name) = pointer(state, which).and_then(|device| address(device, &fields::NET_DEVICE_NAME)) {
        read_text(name, out);
    }
}

/// Size of `struct xt_entry_target`, which precedes a target's own data.
const TARGET_HEAD: u64 = 32;

/// `reject_tg(skb, par)` and `reject_tg6`: the REJECT target, in a table of iptables, or in a rule of nf_tables that
/// `iptables-nft` wrote.
#[inline(always)]
pub(super) fn reject(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let (packet, flow) = traced(ctx.arg(0)?)?;
    let par: u64 = ctx.arg(1)?;
    let info = pointer(par, &fields::XT_ACTION_TARGINFO)?;
    let state = pointer(par, &fields::XT_ACTION_STATE).unwrap_or(0);
    let target = info.wrapping_sub(TARGET_HEAD);
    emit(hook, |header, out: &mut Reject| {
        emit::describe(header, hook, &packet, &flow);
        (out.nf_hook, _) = place(header, state);
        let net = pointer(state, &fields::NF_HOOK_STATE_NET).unwrap_or(0);
        let table = holder(net, u32::from(packet.tuple.is_v6()), out.nf_hook, target);
        match offset_in(table, target) {
            Some(offset) => {
                table_name(table, &mut out.table);
                out.target = offset;
            }
            // In nf_tables, the target's data is that of an expression.
            None => {
                find_rule(info.wrapping_sub(8), &mut out.rule);
            }
        }
    });
    Some(())
}

/// `xt_dnat_target_v2(skb, par)` and its older versions: a rule of iptables, or of `iptables-nft`, translates the
/// destination. `nf_nat_setup_info` shows the new one.
#[inline(always)]
pub(super) fn dnat(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let (packet, flow) = traced(ctx.arg(0)?)?;
    emit::packet(hook, &packet, &flow);
    Some(())
}

/// How many functions at one netfilter hook are searched.
const MAX_HOOKS: u64 = 16;

/// One of `struct nf_hook_entries`, which follow their number: the function and its argument.
#[repr(C)]
#[derive(Clone, Copy)]
struct HookEntry {
    function: u64,
    argument: u64,
}

/// The only table in which REJECT is allowed, as the first word of its name.
const FILTER: u64 = u64::from_le_bytes(*b"filter\0\0");

/// The table that contains the target at this address; 0 if none does. REJECT is allowed in the table `filter` only. Until
/// 5.14 the network namespace has a pointer to that table; since then it is the argument of the table's netfilter function.
/// The argument of another function, such as a chain of nf_tables, does not have its name.
#[inline(never)]
fn holder(net: u64, is_v6: u32, nf_hook: u32, target: u64) -> u64 {
    let (filter, hooks) = if is_v6 != 0 {
        (
            pointer(net, &fields::NET_IP6TABLE_FILTER),
            address(net, &fields::NET_HOOKS_IPV6),
        )
    } else {
        (
            pointer(net, &fields::NET_IPTABLE_FILTER),
            address(net, &fields::NET_HOOKS_IPV4),
        )
    };
    if let Some(table) = filter
        && offset_in(table, target).is_some()
    {
        return table;
    }
    let Some(entries) =
        hooks.and_then(|hooks| read_at::<u64>(hooks.wrapping_add(u64::from(nf_hook & 7) * 8)))
    else {
        return 0;
    };
    let count = read_at::<u16>(entries).unwrap_or(0);
    for index in 0..MAX_HOOKS {
        if index >= count as u64 {
            break;
        }
        let at = entries.wrapping_add(8 + index * size_of::<HookEntry>() as u64);
        if let Some(HookEntry { argument, .. }) = read_at(at)
            && read::<u64>(argument, &fields::XT_TABLE_NAME) == Some(FILTER)
            && offset_in(argument, target).is_some()
        {
            return argument;
        }
    }
    0
}

/// Offset of this address in a table's entries; `None` if it is outside.
#[inline(always)]
fn offset_in(table: u64, target: u64) -> Option<u32> {
    let private = pointer(table, &fields::XT_TABLE_PRIVATE)?;
    let size: u32 = read(private, &fields::XT_TABLE_INFO_SIZE)?;
    let offset = target.wrapping_sub(address(private, &fields::XT_TABLE_INFO_ENTRIES)?);
    (offset < u64::from(size)).then_some(offset as u32)
}
