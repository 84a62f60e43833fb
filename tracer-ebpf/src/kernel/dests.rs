//! The real servers of an IPVS service.

use core::hint::black_box;

use tracer_common::{
    record::{DESTS_COUNTED, DESTS_LISTED, IpvsDest, IpvsDests, ipvs_dest},
    tuple::Addr,
    uapi::{AF_INET, AF_INET6},
};

use super::fields::{self, maybe, read_or_zero};

/// A walk along a list (`struct list_head`, neighbours doubly linked).
struct Walk {
    head: u64,
    node: u64,
}

/// `struct list_head`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Links {
    next: u64,
    prev: u64,
}

impl Walk {
    /// Moves to the next node. `None` if that is the head again, or if this is not a list.
    #[inline(always)]
    fn step(&mut self, complete: &mut u32) -> Option<u64> {
        let next = read_or_zero::<Links>(self.node).next;
        if next == self.head {
            *complete = 1;
            return None;
        }
        // Unreadable memory reads as zeroes, which are not the address of a node.
        if read_or_zero::<Links>(next).prev != self.node {
            return None;
        }
        self.node = next;
        Some(next)
    }
}

/// Follows the list of real servers from its head, and stops where it is not a list.
///
/// Two loops, because the verifier walks through every iteration, and only the first few read much.
#[inline(always)]
pub(super) fn read_all(head: u64, out: &mut IpvsDests) {
    let mut walk = Walk { head, node: head };
    // The nodes of the list are this member of the real servers.
    let Some(before) = fields::base_of(0, &fields::IP_VS_DEST_LIST) else {
        return;
    };
    for index in 0..DESTS_LISTED {
        let Some(node) = walk.step(&mut out.complete) else {
            return;
        };
        count(node.wrapping_add(before), out);
        read_one(node.wrapping_add(before), &mut out.listed[index]);
    }
    for _ in DESTS_LISTED as u32..DESTS_COUNTED {
        let Some(node) = walk.step(&mut out.complete) else {
            return;
        };
        count(node.wrapping_add(before), out);
    }
    // Sets `complete` if that was all.
    let _ = walk.step(&mut out.complete);
}

#[inline(always)]
fn count(dest: u64, out: &mut IpvsDests) {
    let weight: i32 = maybe(dest, &fields::IP_VS_DEST_WEIGHT).value;
    let flags: u32 = maybe(dest, &fields::IP_VS_DEST_FLAGS).value;
    // 1 if the weight is above 0: the sign bit of its negation.
    let has_weight = black_box(-i64::from(weight)) as u64 >> 63;
    out.counted += 1;
    out.with_weight += has_weight as u32;
    out.overloaded += has_weight as u32 & flags / ipvs_dest::OVERLOAD;
}

#[inline(always)]
fn read_one(dest: u64, out: &mut IpvsDest) {
    let weight = maybe(dest, &fields::IP_VS_DEST_WEIGHT);
    let flags = maybe(dest, &fields::IP_VS_DEST_FLAGS);
    let port = maybe::<[u8; 2]>(dest, &fields::IP_VS_DEST_PORT);
    let words = maybe::<[u32; 4]>(dest, &fields::IP_VS_DEST_ADDR);
    let family = maybe::<u16>(dest, &fields::IP_VS_DEST_AF);
    let total = maybe::<u32>(dest, &fields::IP_VS_DEST_TOTALCONNS);
    let active = maybe::<u32>(dest, &fields::IP_VS_DEST_ACTIVECONNS);
    let inactive = maybe::<u32>(dest, &fields::IP_VS_DEST_INACTCONNS);
    let upper = maybe(dest, &fields::IP_VS_DEST_U_THRESHOLD);
    out.weight = weight.value;
    out.flags = flags.value;
    out.upper = upper.value;
    out.conns = total.value | active.value.wrapping_add(inactive.value) & !total.mask;
    let has_conns = total.mask | active.mask & inactive.mask;
    out.have = weight.mask as u16 & ipvs_dest::WEIGHT
        | flags.mask as u16 & ipvs_dest::FLAGS
        | has_conns as u16 & ipvs_dest::CONNS
        | upper.mask as u16 & ipvs_dest::UPPER;
    if port.mask & words.mask & family.mask == 0 {
        return;
    }
    out.port = u16::from_be_bytes(port.value);
    match family.value as u8 {
        AF_INET => out.addr = Addr::v4_word(words.value[0]),
        AF_INET6 => out.addr = Addr(words.value),
        _ => {}
    }
}
