//! The real servers of an IPVS service.

use tracer_common::{
    record::{DESTS_COUNTED, IpvsDest, IpvsDests, ipvs_dest},
    tuple::Addr,
};

use super::{
    fields::{self, read, read_at},
    ipvs::{AF_INET, AF_INET6},
};

/// Follows the list of real servers (`struct list_head`, neighbours doubly linked) from its head, and stops where it
/// is not one.
#[inline(always)]
pub(super) fn read_all(head: u64, out: &mut IpvsDests) {
    let (mut node, mut listed) = (head, 0);
    for _ in 0..=DESTS_COUNTED {
        let Some(next) = read_at::<u64>(node) else {
            return;
        };
        if read_at::<u64>(next.wrapping_add(8)) != Some(node) {
            return;
        }
        if next == head {
            out.complete = 1;
            return;
        }
        if out.counted == DESTS_COUNTED {
            return;
        }
        out.counted += 1;
        node = next;
        let Some(dest) = fields::base_of(node, &fields::IP_VS_DEST_LIST) else {
            return;
        };
        let weight = read::<i32>(dest, &fields::IP_VS_DEST_WEIGHT);
        let flags = read::<u32>(dest, &fields::IP_VS_DEST_OVERLOAD);
        if weight.is_some_and(|weight| weight > 0) {
            out.with_weight += 1;
            if flags.is_some_and(|flags| flags & ipvs_dest::OVERLOAD != 0) {
                out.overloaded += 1;
            }
        }
        if let Some(slot) = out.listed.get_mut(listed) {
            listed += 1;
            read_one(dest, weight, flags, slot);
        }
    }
}

#[inline(always)]
fn read_one(dest: u64, weight: Option<i32>, flags: Option<u32>, out: &mut IpvsDest) {
    if let Some(weight) = weight {
        out.weight = weight;
        out.have |= ipvs_dest::WEIGHT;
    }
    if let Some(flags) = flags {
        out.flags = flags;
        out.have |= ipvs_dest::FLAGS;
    }
    // One inside the other: what is read and then not used is, for verifiers before 6.3, stack that was never written.
    if let Some(port) = read::<[u8; 2]>(dest, &fields::IP_VS_DEST_PORT)
        && let Some(words) = read::<[u32; 4]>(dest, &fields::IP_VS_DEST_ADDR)
    {
        out.addr = match read::<u16>(dest, &fields::IP_VS_DEST_AF) {
            Some(family) if family == u16::from(AF_INET) => Addr::v4_word(words[0]),
            Some(family) if family == u16::from(AF_INET6) => Addr(words),
            _ => Addr::default(),
        };
        out.port = u16::from_be_bytes(port);
    }
    let conns = read::<u32>(dest, &fields::IP_VS_DEST_TOTALCONNS).or_else(|| {
        let active: u32 = read(dest, &fields::IP_VS_DEST_ACTIVECONNS)?;
        Some(active.wrapping_add(read(dest, &fields::IP_VS_DEST_INACTCONNS)?))
    });
    if let Some(conns) = conns {
        out.conns = conns;
        out.have |= ipvs_dest::CONNS;
    }
    if let Some(upper) = read(dest, &fields::IP_VS_DEST_U_THRESHOLD) {
        out.upper = upper;
        out.have |= ipvs_dest::UPPER;
    }
}
