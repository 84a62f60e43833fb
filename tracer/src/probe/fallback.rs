//! Offsets for kernels that give no BTF for modules (before 5.11). None of them is taken on trust.

use std::{
    io,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aya::maps::{MapData, RingBuf};
use nix::time::{ClockId, clock_gettime};
use tracer_common::{
    field,
    hook::{self, Hook},
};

use super::{
    attach::Probe,
    ipvs_proof::{self, Behind, Field, ProvenLayout, Record, Witness},
    offsets::Offsets,
};
use crate::{decode::record, facts::modules::Modules, node::netns};

/// The network namespace in which a proof makes its connections: they are not the node's, and whoever traces
/// meanwhile leaves them out.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// Its inode number; 0 if there never was one.
    netns: AtomicU32,
    /// When it was over, nanoseconds of `CLOCK_MONOTONIC`. The number of the namespace may then be another's.
    over_ns: AtomicU64,
}

impl Rehearsal {
    /// Is what happened in this namespace at this time (nanoseconds of `CLOCK_MONOTONIC`) part of a proof?
    #[must_use]
    pub fn has(&self, netns: u32, time_ns: u64) -> bool {
        netns != 0
            && netns == self.netns.load(Ordering::Acquire)
            && time_ns <= self.over_ns.load(Ordering::Acquire)
    }

    fn begin(&self, netns: u32) {
        self.over_ns.store(u64::MAX, Ordering::Release);
        self.netns.store(netns, Ordering::Release);
    }

    fn end(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
        let now = now.map_or(u64::MAX, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        self.over_ns.store(now, Ordering::Release);
    }
}

/// Must the layout of IPVS be proven, since nothing describes it?
#[must_use]
pub fn is_proof_due(offsets: &Offsets, modules: &Modules) -> bool {
    modules.has("ip_vs") && !offsets.has_module("ip_vs") && offsets.get(&field::IP_VS_CONN_STATE).is_err()
}

/// Proves and fills in what nothing describes of IPVS.
pub fn prove(offsets: &mut Offsets, modules: &Modules, rehearsal: &Rehearsal) {
    let layout = prove_ip_vs(offsets, modules, rehearsal).unwrap_or_else(|why| ProvenLayout::nothing(&why));
    rehearsal.end();
    take_over(offsets, &layout);
}

/// Fills in what nothing describes of nf_tables and of iptables' tables, if they are there.
pub fn propose(offsets: &mut Offsets, modules: &Modules) {
    if modules.has("nf_tables")
        && !offsets.has_module("nf_tables")
        && offsets.get(&field::NFT_CHAIN_NAME).is_err()
    {
        propose_nf_tables(offsets);
    }
    if modules.has("x_tables") && !offsets.has_module("x_tables") {
        propose_x_tables(offsets);
    }
}

/// Makes IPVS connections whose every property is known, in a namespace of our own, and looks at their memory.
fn prove_ip_vs(offsets: &Offsets, modules: &Modules, rehearsal: &Rehearsal) -> Result<ProvenLayout, String> {
    // Never makes the kernel load anything.
    if !modules.has("ip_vs") {
        return Err("module ip_vs is not loaded".to_owned());
    }
    let scheduler = ipvs_proof::pick_scheduler(modules)
        .ok_or("no scheduler of IPVS is loaded, so its layout cannot be proven")?;
    let info = hook::ALL
        .iter()
        .find(|info| info.hook == Hook::IpvsConnSeqShow)
        .ok_or("the hook table has no ip_vs_conn_seq_show")?;
    let (probe, ring) =
        Probe::attach_one(info, offsets).map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    if let Some(why) = probe.hooks().iter().find_map(|hook| hook.state.why()) {
        return Err(format!("the layout of IPVS cannot be proven: {why}"));
    }
    let mut witness = SeqShow {
        ring,
        thread: 0,
        rehearsal,
    };
    let samples = ipvs_proof::collect_samples(scheduler, &mut witness).map_err(|error| {
        format!(
            "the layout of IPVS cannot be proven: {:#}",
            anyhow::Error::from(error)
        )
    })?;
    Ok(ipvs_proof::prove(&samples))
}

/// The entries that the kernel prints for one thread.
struct SeqShow<'a> {
    ring: RingBuf<MapData>,
    thread: u32,
    rehearsal: &'a Rehearsal,
}

impl Witness for SeqShow<'_> {
    fn watch(&mut self, thread: u32) -> io::Result<()> {
        self.thread = thread;
        // The calling thread is in the namespace already, and has made no connection through IPVS yet.
        self.rehearsal.begin(netns::current()?);
        Ok(())
    }

    fn records(&mut self) -> io::Result<Vec<Record>> {
        let mut out = Vec::new();
        while let Some(bytes) = self.ring.next() {
            let printed = record::printed_conn(&bytes).map_err(io::Error::other)?;
            if printed.thread == u64::from(self.thread) {
                let behind = printed.behind.into_iter();
                out.push(Record {
                    pointer: printed.pointer,
                    conn: printed.conn,
                    behind: behind
                        .map(|(pointer_at, bytes)| Behind { pointer_at, bytes })
                        .collect(),
                });
            }
        }
        Ok(out)
    }
}

fn take_over(offsets: &mut Offsets, layout: &ProvenLayout) {
    let pairs = [
        (Field::Family, &field::IP_VS_CONN_AF),
        (Field::RealServerFamily, &field::IP_VS_CONN_DAF),
        (Field::RealServerAddress, &field::IP_VS_CONN_DADDR),
        (Field::RealServerPort, &field::IP_VS_CONN_DPORT),
        (Field::State, &field::IP_VS_CONN_STATE),
        (Field::ConnFlags, &field::IP_VS_CONN_FLAGS),
        (Field::Dest, &field::IP_VS_CONN_DEST),
        (Field::DestWeight, &field::IP_VS_DEST_WEIGHT),
        // The word that was proven to hold the bit, whichever name it has in this kernel: the kernel half looks here first.
        (Field::DestAvailable, &field::IP_VS_DEST_CFLAGS),
        (Field::DestFlags, &field::IP_VS_DEST_FLAGS),
        (Field::DestFamily, &field::IP_VS_DEST_AF),
        (Field::DestPort, &field::IP_VS_DEST_PORT),
        (Field::DestAddress, &field::IP_VS_DEST_ADDR),
    ];
    for (proven, field) in pairs {
        // Without the word for availability, the kernel half would look for the bit in the flags, which nothing proves.
        let proven = match proven {
            Field::DestFlags if layout.offset(Field::DestAvailable).is_none() => Field::DestAvailable,
            other => other,
        };
        let offset = layout
            .offset(proven)
            .ok_or_else(|| format!("not proven: {}", layout.reason(proven)));
        offsets.set(field, offset);
    }
    if layout.offset(Field::DestWeight).is_some() {
        propose_ip_vs(offsets);
    }
}

/// Offsets of IPVS services that their own use proves. The list of real servers: followed from there it must come back
/// to its start, each neighbour pointing back, and hold just the servers that the kernel prints for the service
/// (`diagnose::ipvs::servers`). The scheduler: what is read must be the name of one (`report::path`). The values are
/// those of 5.10, from `include/net/ip_vs.h`.
fn propose_ip_vs(offsets: &mut Offsets) {
    offsets.set(&field::IP_VS_SERVICE_DESTINATIONS, Ok(88));
    offsets.set(&field::IP_VS_DEST_LIST, Ok(0));
    offsets.set(&field::IP_VS_SERVICE_SCHEDULER, Ok(384));
    offsets.set(&field::IP_VS_SCHEDULER_NAME, Ok(16));
}

/// Offsets of nf_tables and iptables that their own use proves. `nft_pktinfo.skb`: what is read there must be the
/// headers of a packet that is followed, sequence number and all, or nothing is told. `nft_chain.name`: what is read
/// there counts only if a base chain of that name is loaded at that hook (`diagnose::netfilter`). Expressions and
/// rules: a rule that is found through them must be linked to its neighbours, end where the expression ends, and be
/// loaded with the verdict that was seen. `xt_action_param`: what it points to must lie inside a loaded table. The
/// values are those of 5.10, from `include/net/netfilter/nf_tables.h`, `nf_tables_core.h` and
/// `include/linux/netfilter/x_tables.h`.
fn propose_nf_tables(offsets: &mut Offsets) {
    for (field, offset) in [
        (&field::NFT_PKTINFO_SKB, 0),
        (&field::NFT_PKTINFO_STATE, 32),
        (&field::NFT_CHAIN_NAME, 88),
        (&field::NFT_EXPR_OPS_SIZE, 16),
        (&field::NFT_IMMEDIATE_DREG, 16),
    ] {
        offsets.set(field, Ok(offset));
    }
}

fn propose_x_tables(offsets: &mut Offsets) {
    for (field, offset) in [(&field::XT_ACTION_TARGINFO, 8), (&field::XT_ACTION_STATE, 16)] {
        if offsets.get(field).is_err() {
            offsets.set(field, Ok(offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happens_during_a_proof_is_part_of_it() {
        let rehearsal = Rehearsal::default();
        assert!(!rehearsal.has(0, 0));
        rehearsal.begin(7);
        assert!(rehearsal.has(7, u64::MAX) && !rehearsal.has(8, 1) && !rehearsal.has(0, 1));
        rehearsal.end();
        assert!(rehearsal.has(7, 1) && !rehearsal.has(7, u64::MAX));
    }
}
