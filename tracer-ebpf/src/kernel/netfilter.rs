//! nf_tables: the base chain that threw a packet away, and the rule that said so.
//!
//! A rule's verdict comes from one of three expressions: one that holds it, one that looks it up in a map, one that
//! rejects. While a chain works on a packet that is followed, what they say is kept with the call; nothing else
//! leaves a trace of which rule it was.

use aya_ebpf::{
    macros::map,
    maps::LruHashMap,
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::{
    hook::Hook,
    record::{Chain, Header, NftRule, Reject, chain as seen},
};

use super::{
    call::{self, Call},
    emit::{self, emit},
    fields::{self, address, pointer, read, read_at, read_or_zero, read_text},
    flow, packet,
};

const NF_DROP: u32 = 0;
const NF_STOLEN: u32 = 2;
const NF_VERDICT_MASK: u32 = 0xff;
/// `NFT_CONTINUE` and `NFT_BREAK` (`enum nft_verdicts`): no verdict.
const NFT_CONTINUE: i32 = -1;
const NFT_BREAK: i32 = -2;
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u8 = 0;

/// What the rules of a chain were seen to say so far.
#[repr(C)]
#[derive(Clone, Copy)]
struct Said {
    /// Bits of [`seen`].
    seen: u32,
    /// The last verdict.
    code: i32,
    /// The rule that gave it.
    rule: NftRule,
}

/// By the address of the call's `nft_pktinfo`, which the chain hands to each expression. Only calls about packets that
/// are followed are in it, so that all others leave after one look.
#[map]
static SAID: LruHashMap<u64, Said> = LruHashMap::with_max_entries(1024, 0);

/// `nft_do_chain(pkt, chain)` (chain since 4.4): one base chain and all that it jumps to.
pub(super) mod chain {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let info: u64 = ctx.arg(0)?;
        let packet = packet::parse_through_tunnels(pointer(info, &fields::NFT_PKTINFO_SKB)?)?;
        let flow = flow::of(&packet)?;
        let nothing = Said {
            seen: 0,
            code: NFT_CONTINUE,
            rule: NftRule { handle: 0, next: 0 },
        };
        let _ = SAID.insert(&info, &nothing, 0);
        call::enter(hook, ctx, &packet, &flow, (ctx.arg(1)?, info), |_| ());
        Some(())
    }

    /// Only a chain that ended the packet's way is told: the others decided nothing.
    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            if is_drop(call.header.verdict as u32) {
                emit(hook, |header, chain: &mut Chain| tell(call, header, chain));
            }
            let _ = SAID.remove(&call.second);
        })
    }

    #[inline(always)]
    fn tell(call: &Call, header: &mut Header, out: &mut Chain) {
        let (chain, info) = (call.first, call.second);
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
        // SAFETY: the entry is this call's alone, and is copied at once.
        if let Some(said) = unsafe { SAID.get(&info) } {
            out.seen = said.seen;
            out.code = said.code;
            out.rule = said.rule;
        }
    }
}

/// Hook number and family of a `struct nf_hook_state`. Behind the routing decision the packet may have no device; the
/// hook knows its namespace all the same.
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

/// Newer kernels free the packet in the chain and return `NF_STOLEN` with an errno above it (`NF_DROP_REASON`).
#[inline(always)]
pub(super) fn is_drop(verdict: u32) -> bool {
    let code = verdict & NF_VERDICT_MASK;
    code == NF_DROP || (code == NF_STOLEN && verdict >> 16 != 0)
}

/// `struct nft_expr`: its operations, then its own data, the same since 3.13.
const EXPR_DATA: u64 = 8;

/// `nft_immediate_eval(expr, regs, pkt)`: loads a constant, such as a rule's verdict.
#[inline(always)]
pub(super) fn immediate(_: Hook, ctx: &ProbeContext) -> Option<()> {
    let said = SAID.get_ptr_mut(&ctx.arg::<u64>(2)?)?;
    let expr: u64 = ctx.arg(0)?;
    let data = expr.wrapping_add(EXPR_DATA);
    if read::<u8>(data, &fields::NFT_IMMEDIATE_DREG)? != VERDICT_REGISTER {
        return None;
    }
    // The verdict's code is the first member of the data.
    let code: i32 = read_at(data)?;
    // SAFETY: the entry is this call's alone, and stays valid while the program runs.
    note(unsafe { &mut *said }, seen::IMMEDIATE, code, expr);
    Some(())
}

/// A lookup that has begun.
#[repr(C)]
#[derive(Clone, Copy)]
struct Lookup {
    expr: u64,
    registers: u64,
    info: u64,
}

/// By the stack pointer at entry, as calls are.
#[map]
static LOOKUPS: LruHashMap<u64, Lookup> = LruHashMap::with_max_entries(1024, 0);

const WORD: u64 = 8;

/// `nft_lookup_eval(expr, regs, pkt)`: looks a value up in a set, or what belongs to it in a map, such as a verdict.
pub(super) mod lookup {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(_: Hook, ctx: &ProbeContext) -> Option<()> {
        let info: u64 = ctx.arg(2)?;
        SAID.get_ptr(&info)?;
        let lookup = Lookup {
            expr: ctx.arg(0)?,
            registers: ctx.arg(1)?,
            info,
        };
        // SAFETY: the context is valid while the program runs.
        let key = unsafe { (*ctx.regs).rsp };
        LOOKUPS.insert(&key, &lookup, 0).ok()
    }

    /// The verdict is the first member of the registers. A lookup that gives none leaves it at `NFT_CONTINUE`, or says
    /// `NFT_BREAK` if it found nothing.
    #[inline(always)]
    pub(crate) fn leave(_: Hook, ctx: &RetProbeContext) -> Option<()> {
        // SAFETY: the context is valid while the program runs.
        let key = unsafe { (*ctx.regs).rsp }.wrapping_sub(WORD);
        // SAFETY: the entry is copied at once.
        let Lookup {
            expr,
            registers,
            info,
        } = *unsafe { LOOKUPS.get(&key) }?;
        let _ = LOOKUPS.remove(&key);
        let code: i32 = read_at(registers)?;
        if code == NFT_CONTINUE || code == NFT_BREAK {
            return None;
        }
        let said = SAID.get_ptr_mut(&info)?;
        // SAFETY: the entry is this call's alone, and stays valid while the program runs.
        note(unsafe { &mut *said }, seen::LOOKUP, code, expr);
        Some(())
    }
}

#[inline(always)]
fn note(said: &mut Said, kind: u32, code: i32, expr: u64) {
    said.seen = (said.seen | kind) & !seen::BY_LOOKUP;
    if kind == seen::LOOKUP {
        said.seen |= seen::BY_LOOKUP;
    }
    said.code = code;
    // Jumps are many; what matters is the rule that ends the packet's way.
    let mut rule = NftRule { handle: 0, next: 0 };
    if code as u32 & NF_VERDICT_MASK == NF_DROP {
        find_rule(expr, &mut rule);
    }
    said.rule = rule;
}

/// `nft_reject_ipv4_eval(expr, regs, pkt)` and its kin.
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

/// Hooks at which nf_tables translates a destination (`NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT`). At the others the
/// same function translates a source.
const DNAT_HOOKS: [u8; 2] = [0, 3];

/// `nft_nat_eval(expr, regs, pkt)`: a rule of nf_tables translates. What to, `nf_nat_setup_info` tells.
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

/// The most words of a rule that are looked at, from its end: 768 bytes. What nft and iptables write of kube-proxy's
/// rules has less than 300. Each word costs the verifier time, in each program that looks.
const MOST_WORDS: u64 = 96;
/// What a rule's size may be: `nft_rule.dlen` and `nft_rule_dp.dlen` have 12 bits.
const LENGTH: u64 = 0xfff;
/// What a handle may be: 42 bits.
const HANDLE: u64 = (1 << 42) - 1;

/// Finds the rule of which `expr` is the last expression, as one that gives a verdict is.
///
/// Nothing leads from an expression to its rule, but the rule's head stands right before its first expression and says
/// how long all of them are. So the words before the expression are looked at, one after the other, for one that is
/// such a head and says that the rule ends where the expression ends. The user half takes the handle only if the table
/// has such a rule, with that verdict.
#[inline(never)]
pub(super) fn find_rule(expr: u64, out: &mut NftRule) -> u64 {
    let size =
        read_at::<u64>(expr).and_then(|operations| read::<u32>(operations, &fields::NFT_EXPR_OPS_SIZE));
    let end = match size {
        Some(size) if size as u64 <= LENGTH => expr.wrapping_add(u64::from(size)),
        _ => return 0,
    };
    // Since 5.17 a chain's rules lie one behind the other, each with a `struct nft_rule_dp` before it; before that,
    // each is a `struct nft_rule` of its own, in a list.
    match address(1, &fields::NFT_RULE_DP_DATA) {
        Some(_) => in_blob(expr, end, out),
        None => in_list(expr, end, out),
    }
    out.handle
}

// The two searches have one branch a word, so that the verifier has one way through each: what makes a word no head
// comes together in one number. A word that cannot be read is zeroes, which is none.

/// `u64 is_last:1, dlen:12, handle:42` (`struct nft_rule_dp`, from bit 0), then the expressions. The head that says
/// `is_last` stands behind the last rule.
///
/// A word of an expression can look like a head by chance: the pointer of a `counter` right before a verdict does in
/// one of some hundred rules. Then the true head is the next one that fits, and all expressions between are its own.
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
    let behind = read_or_zero::<u64>(end);
    if behind & 1 == 0 {
        out.next = behind >> 13 & HANDLE;
    }
}

/// The nearest word before this address that can be the head of a rule that ends at `end`, and where that rule's
/// expressions would begin; 0 if there is none.
#[inline(always)]
fn head_before(from: u64, end: u64) -> (u64, u64) {
    let mut data = from;
    for _ in 0..MOST_WORDS {
        let head = read_or_zero::<u64>(data.wrapping_sub(WORD));
        let is_last = head & 1;
        let beyond = head >> (13 + 42);
        let length = head >> 1 & LENGTH;
        if is_last | beyond | (data.wrapping_add(length) ^ end) == 0 {
            return (data, head);
        }
        data = data.wrapping_sub(WORD);
    }
    (data, 0)
}

/// The most expressions of a rule that are followed.
const MOST_EXPRESSIONS: u64 = 32;

/// Do the expressions from this address on lead to that one, each right behind the last? Behind the last expression of
/// a rule stands the next rule's head, which has no operations.
#[inline(always)]
fn leads_to(from: u64, expr: u64) -> bool {
    let mut at = from;
    for _ in 0..MOST_EXPRESSIONS {
        let size = read::<u32>(read_or_zero::<u64>(at), &fields::NFT_EXPR_OPS_SIZE).unwrap_or(0);
        at = at.wrapping_add(u64::from(size));
        if size == 0 || at >= expr {
            break;
        }
    }
    at == expr
}

/// What the upper bits of every address of the kernel are, whatever the number of page table levels.
const KERNEL: u64 = 0xff;

/// `struct list_head list; u64 handle:42, genmask:2, dlen:12, udata:1` (`struct nft_rule`, from bit 0), then the
/// expressions. That its neighbour in the list points back to it proves the head.
#[inline(always)]
fn in_list(expr: u64, end: u64, out: &mut NftRule) {
    let mut data = expr;
    let (mut next, mut head) = (0, 0);
    for _ in 0..MOST_WORDS {
        let [next_rule, previous_rule, bits] = read_or_zero::<[u64; 3]>(data.wrapping_sub(3 * WORD));
        let no_addresses = (next_rule >> 56 ^ KERNEL) | (previous_rule >> 56 ^ KERNEL);
        let beyond = bits >> 57;
        let length = bits >> 44 & LENGTH;
        if no_addresses | beyond | (data.wrapping_add(length) ^ end) == 0 {
            (next, head) = (next_rule, bits);
            break;
        }
        data = data.wrapping_sub(WORD);
    }
    if read_or_zero::<u64>(next.wrapping_add(WORD)) == data.wrapping_sub(3 * WORD) {
        out.handle = head & HANDLE;
    }
}
