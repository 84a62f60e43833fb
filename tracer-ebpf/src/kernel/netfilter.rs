//! nf_tables: the base chain that dropped a packet, and the rule whose verdict it was.
//!
//! A rule's verdict comes from one of three expressions: one that holds it, one that looks it up in a map, one that
//! rejects. While a chain evaluates a traced packet, their verdicts are kept with the call; nothing else shows which rule
//! it was.

use aya_ebpf::{
    macros::map,
    maps::LruHashMap,
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::{
    hook::Hook,
    record::{Chain, Header, NftRule, Reject, chain as seen},
    uapi::{
        nf_hook,
        nft_verdict::{NFT_BREAK, NFT_CONTINUE},
        verdict::{self, NF_DROP},
    },
};

use super::{
    call::{self, Call},
    emit::{self, emit},
    fields::{self, address, pointer, read, read_at, read_or_zero, read_text},
    flow, packet,
};

/// `NFT_REG_VERDICT` (`enum nft_registers`, `include/uapi/linux/netfilter/nf_tables.h`).
const VERDICT_REGISTER: u8 = 0;

/// The verdicts that the rules of a chain have given so far.
#[repr(C)]
#[derive(Clone, Copy)]
struct Verdicts {
    /// The key of this value. Another CPU may evict the entry and reuse its memory while a program here writes to it; the
    /// key then shows that the value is about another packet.
    info: u64,
    /// Bits of [`seen`].
    seen: u32,
    /// The last verdict.
    code: i32,
    /// The rule that gave it.
    rule: NftRule,
}

/// Verdicts by the address of the call's `nft_pktinfo`, which the chain hands to each expression. It has only calls about
/// traced packets, so all others return after one lookup.
#[map]
static VERDICTS: LruHashMap<u64, Verdicts> = LruHashMap::with_max_entries(1024, 0);

/// `nft_do_chain(pkt, chain)` (chain since 4.4) evaluates a base chain and all chains that it jumps to.
pub(super) mod chain {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let info: u64 = ctx.arg(0)?;
        let packet = packet::parse_through_tunnels(pointer(info, &fields::NFT_PKTINFO_SKB)?)?;
        let flow = flow::of(&packet)?;
        let none = Verdicts {
            info,
            seen: 0,
            code: NFT_CONTINUE,
            rule: NftRule { handle: 0, next: 0 },
        };
        let _ = VERDICTS.insert(&info, &none, 0);
        call::enter(hook, ctx, &packet, &flow, (ctx.arg(1)?, info), |_| ());
        Some(())
    }

    /// Records only a chain that dropped the packet: the others decided nothing.
    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            if verdict::is_drop(call.header.verdict) {
                emit(hook, |header, chain: &mut Chain| describe(call, header, chain));
            }
            let _ = VERDICTS.remove(&call.kept.1);
        })
    }

    #[inline(always)]
    fn describe(call: &Call, header: &mut Header, out: &mut Chain) {
        let (chain, info) = call.kept;
        let state = pointer(info, &fields::NFT_PKTINFO_STATE).unwrap_or(0);
        *header = call.header;
        (out.nf_hook, out.family) = place(header, state);
        if let Some(name) = pointer(chain, &fields::NFT_CHAIN_NAME) {
            read_text(name, &mut out.chain);
        }
        if let Some(name) =
            pointer(chain, &fields::NFT_CHAIN_TABLE).and_then(|table| pointer(table, &fields::NFT_TABLE_NAME))
        {
            read_text(name, &mut out.table);
        }
        if let Some((given, _)) = verdicts_of(info) {
            out.seen = given.seen;
            out.code = given.code;
            out.rule = given.rule;
        }
    }
}

/// A copy of the verdicts of a call, and where they are kept.
#[inline(always)]
fn verdicts_of(info: u64) -> Option<(Verdicts, *mut Verdicts)> {
    let entry = VERDICTS.get_ptr_mut(&info)?;
    // SAFETY: the value is plain bytes, valid while the program runs, and is copied at once.
    let given = unsafe { *entry };
    (given.info == info).then_some((given, entry))
}

/// Hook number and family of a `struct nf_hook_state`. Sets the header's network namespace if it has none: after the routing
/// decision the packet may have no device.
#[inline(always)]
pub(super) fn place(header: &mut Header, state: u64) -> (u32, u32) {
    if header.netns == 0
        && let Some(net) = pointer(state, &fields::NF_HOOK_STATE_NET)
    {
        header.netns = read(net, &fields::NET_INUM).unwrap_or(0);
    }
    (
        read::<u8>(state, &fields::NF_HOOK_STATE_HOOK).map_or(u32::MAX, u32::from),
        read::<u8>(state, &fields::NF_HOOK_STATE_PF).map_or(u32::MAX, u32::from),
    )
}

/// Offset of the data in `struct nft_expr`, after its operations; the same since 3.13.
const EXPR_DATA: u64 = 8;

/// `nft_immediate_eval(expr, regs, pkt)`: loads a constant, such as a rule's verdict.
#[inline(always)]
pub(super) fn immediate(_: Hook, ctx: &ProbeContext) -> Option<()> {
    let (given, entry) = verdicts_of(ctx.arg(2)?)?;
    let expr: u64 = ctx.arg(0)?;
    let data = expr.wrapping_add(EXPR_DATA);
    if read::<u8>(data, &fields::NFT_IMMEDIATE_DREG)? != VERDICT_REGISTER {
        return None;
    }
    // The verdict's code is the first member of the data.
    let code: i32 = read_at(data)?;
    add_verdict(given, entry, seen::IMMEDIATE, code, expr);
    Some(())
}

/// A lookup that has not returned yet.
#[repr(C)]
#[derive(Clone, Copy)]
struct Lookup {
    /// The key of this value: see [`Verdicts::info`].
    key: u64,
    expr: u64,
    registers: u64,
    info: u64,
}

/// Lookups by the stack pointer at entry, like in [`call`].
#[map]
static LOOKUPS: LruHashMap<u64, Lookup> = LruHashMap::with_max_entries(1024, 0);

const WORD: u64 = 8;

/// `nft_lookup_eval(expr, regs, pkt)`: looks up a value in a set, or in a map the data of a value, such as a verdict.
pub(super) mod lookup {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(_: Hook, ctx: &ProbeContext) -> Option<()> {
        let info: u64 = ctx.arg(2)?;
        VERDICTS.get_ptr(&info)?;
        // SAFETY: the context is valid while the program runs.
        let key = unsafe { (*ctx.regs).rsp };
        let lookup = Lookup {
            key,
            expr: ctx.arg(0)?,
            registers: ctx.arg(1)?,
            info,
        };
        LOOKUPS.insert(&key, &lookup, 0).ok()
    }

    /// The verdict is the first member of the registers. A lookup without a verdict leaves it at `NFT_CONTINUE`, or sets
    /// `NFT_BREAK` if it found nothing.
    #[inline(always)]
    pub(crate) fn leave(_: Hook, ctx: &RetProbeContext) -> Option<()> {
        // SAFETY: the context is valid while the program runs.
        let key = unsafe { (*ctx.regs).rsp }.wrapping_sub(WORD);
        // SAFETY: the value is plain bytes and is copied at once.
        let lookup = *unsafe { LOOKUPS.get(&key) }?;
        let _ = LOOKUPS.remove(&key);
        let Lookup {
            expr,
            registers,
            info,
            ..
        } = lookup;
        if lookup.key != key {
            return None;
        }
        let code: i32 = read_at(registers)?;
        if code == NFT_CONTINUE || code == NFT_BREAK {
            return None;
        }
        let (given, entry) = verdicts_of(info)?;
        add_verdict(given, entry, seen::LOOKUP, code, expr);
        Some(())
    }
}

/// Adds a verdict to those of its call.
#[inline(always)]
fn add_verdict(mut given: Verdicts, entry: *mut Verdicts, kind: u32, code: i32, expr: u64) {
    given.seen = (given.seen | kind) & !seen::BY_LOOKUP;
    if kind == seen::LOOKUP {
        given.seen |= seen::BY_LOOKUP;
    }
    given.code = code;
    given.rule = NftRule { handle: 0, next: 0 };
    // There are many jumps; only the rule that drops the packet matters.
    if verdict::code(code) == NF_DROP {
        find_rule(expr, &mut given.rule);
    }
    // SAFETY: the value is plain bytes and valid while the program runs. It is written as a whole, its key included: see
    // `Verdicts::info`.
    unsafe { *entry = given };
}

/// `nft_reject_ipv4_eval(expr, regs, pkt)` and those of other families: a rule of nf_tables rejects the packet.
#[inline(always)]
pub(super) fn reject(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let info: u64 = ctx.arg(2)?;
    let packet = packet::parse(pointer(info, &fields::NFT_PKTINFO_SKB)?)?;
    let flow = flow::of(&packet)?;
    let expr: u64 = ctx.arg(0)?;
    let state = pointer(info, &fields::NFT_PKTINFO_STATE).unwrap_or(0);
    emit(hook, |header, out: &mut Reject| {
        emit::describe(header, hook, &packet, &flow);
        (out.nf_hook, _) = place(header, state);
        find_rule(expr, &mut out.rule);
    });
    Some(())
}

/// Hooks at which nf_tables translates a destination. At the others the same function translates a source.
const DNAT_HOOKS: [u8; 2] = [nf_hook::PRE_ROUTING, nf_hook::LOCAL_OUT];

/// `nft_nat_eval(expr, regs, pkt)`: a rule of nf_tables translates. `nf_nat_setup_info` shows the new destination.
#[inline(always)]
pub(super) fn dnat(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let info: u64 = ctx.arg(2)?;
    let state = pointer(info, &fields::NFT_PKTINFO_STATE)?;
    if !DNAT_HOOKS.contains(&read(state, &fields::NF_HOOK_STATE_HOOK)?) {
        return None;
    }
    let packet = packet::parse(pointer(info, &fields::NFT_PKTINFO_SKB)?)?;
    let flow = flow::of(&packet)?;
    emit::packet(hook, &packet, &flow);
    Some(())
}

/// How many words of a rule are searched, from its end: 768 bytes. kube-proxy's rules as nft and iptables write them have
/// less than 300. Each word costs the verifier time, in each program that searches.
const MAX_WORDS: u64 = 96;
/// Mask of a rule's length: `nft_rule.dlen` and `nft_rule_dp.dlen` have 12 bits.
const LENGTH: u64 = 0xfff;
/// Mask of a handle: 42 bits.
const HANDLE: u64 = (1 << 42) - 1;

/// Finds the rule whose last expression is `expr`. An expression that gives a verdict is the last of its rule.
///
/// An expression has no pointer to its rule, but the rule's head is right before its first expression and has the length of
/// all of them. So this searches the words before the expression for one that can be such a head and whose rule ends where
/// the expression ends. The user half uses the handle only if the table has such a rule with that verdict.
#[inline(never)]
pub(super) fn find_rule(expr: u64, out: &mut NftRule) -> u64 {
    let size =
        read_at::<u64>(expr).and_then(|operations| read::<u32>(operations, &fields::NFT_EXPR_OPS_SIZE));
    let end = match size {
        Some(size) if size as u64 <= LENGTH => expr.wrapping_add(u64::from(size)),
        _ => return 0,
    };
    // Since 5.17 a chain's rules are in one block of memory, each after its `struct nft_rule_dp`; before that, each is a
    // `struct nft_rule` in a list.
    match address(1, &fields::NFT_RULE_DP_DATA) {
        Some(_) => in_blob(expr, end, out),
        None => in_list(expr, end, out),
    }
    out.handle
}

// The two searches have one branch per word, so that the verifier walks one path through each: everything that rules a
// word out as a head is combined into one number. A word that cannot be read is zero, which is not a head.

/// `u64 is_last:1, dlen:12, handle:42` (`struct nft_rule_dp`, from bit 0), then the expressions. The head with `is_last` is
/// after the last rule.
///
/// A word of an expression can look like a head by chance: in one of some hundred rules, the pointer of a `counter` right
/// before a verdict does. Then the true head is the next word that matches, and its expressions lead to this one.
#[inline(always)]
fn in_blob(expr: u64, end: u64, out: &mut NftRule) {
    let (data, near) = head_before(expr, end);
    let (far_data, far) = head_before(data.wrapping_sub(WORD), end);
    let head = if far != 0 && leads_to(far_data, expr) {
        far
    } else {
        near
    };
    out.handle = head >> 13;
    let next = read_or_zero::<u64>(end);
    if next & 1 == 0 {
        out.next = next >> 13 & HANDLE;
    }
}

/// The nearest word before `from` that can be the head of a rule that ends at `end`, as the address of the rule's first
/// expression and the word itself; the word is 0 if there is none.
#[inline(always)]
fn head_before(from: u64, end: u64) -> (u64, u64) {
    let mut data = from;
    for _ in 0..MAX_WORDS {
        let head = read_or_zero::<u64>(data.wrapping_sub(WORD));
        let is_last = head & 1;
        let excess = head >> (13 + 42);
        let length = head >> 1 & LENGTH;
        if is_last | excess | (data.wrapping_add(length) ^ end) == 0 {
            return (data, head);
        }
        data = data.wrapping_sub(WORD);
    }
    (data, 0)
}

/// How many expressions of a rule are followed.
const MAX_EXPRESSIONS: u64 = 32;

/// Whether the expressions at `from`, one right after the other, lead to `expr`. The last expression of a rule is followed
/// by the next rule's head, which has no operations.
#[inline(always)]
fn leads_to(from: u64, expr: u64) -> bool {
    let mut at = from;
    for _ in 0..MAX_EXPRESSIONS {
        let size = read::<u32>(read_or_zero::<u64>(at), &fields::NFT_EXPR_OPS_SIZE).unwrap_or(0);
        at = at.wrapping_add(u64::from(size));
        if size == 0 || at >= expr {
            break;
        }
    }
    at == expr
}

/// The upper byte of every kernel address, with four and with five page table levels.
const KERNEL: u64 = 0xff;

/// `struct list_head list; u64 handle:42, genmask:2, dlen:12, udata:1` (`struct nft_rule`, from bit 0), then the
/// expressions. It is the head if its neighbour in the list points back to it.
#[inline(always)]
fn in_list(expr: u64, end: u64, out: &mut NftRule) {
    let mut data = expr;
    let (mut next, mut head) = (0, 0);
    for _ in 0..MAX_WORDS {
        let [next_rule, previous_rule, bits] = read_or_zero::<[u64; 3]>(data.wrapping_sub(3 * WORD));
        let no_addresses = (next_rule >> 56 ^ KERNEL) | (previous_rule >> 56 ^ KERNEL);
        let excess = bits >> 57;
        let length = bits >> 44 & LENGTH;
        if no_addresses | excess | (data.wrapping_add(length) ^ end) == 0 {
            (next, head) = (next_rule, bits);
            break;
        }
        data = data.wrapping_sub(WORD);
    }
    if read_or_zero::<u64>(next.wrapping_add(WORD)) == data.wrapping_sub(3 * WORD) {
        out.handle = head & HANDLE;
    }
}
