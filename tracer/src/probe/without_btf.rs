//! Offsets of modules' structs on kernels without module BTF (before 5.11). Each is verified before it is relied on: by
//! a proof before tracing, or at each use.

use std::io;

use aya::maps::{MapData, RingBuf};
use tracer_common::{
    field,
    hook::{self, Hook},
};

use super::{
    attach::Probe,
    ipvs_proof::{self, ConnProbe, Field, Pointee, ProvenLayout, Record},
    offsets::Offsets,
    proof_netns::ProofNetns,
};
use crate::{decode::record, facts::modules::Modules, node::netns};

/// Whether the layout of IPVS has to be proven, because no BTF describes it.
#[must_use]
pub fn is_proof_due(offsets: &Offsets, modules: &Modules) -> bool {
    modules.has("ip_vs") && !offsets.has_module("ip_vs") && offsets.get(&field::IP_VS_CONN_STATE).is_err()
}

/// Proves the offsets of IPVS that no BTF describes, and fills them in.
pub fn prove(offsets: &mut Offsets, modules: &Modules, proof_netns: &ProofNetns) {
    let layout = prove_ip_vs(offsets, modules, proof_netns).unwrap_or_else(|why| ProvenLayout::nothing(&why));
    proof_netns.end();
    apply(offsets, &layout);
}

/// Fills in the offsets of nf_tables and `x_tables` that no BTF describes, if the modules are there.
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

/// Makes IPVS connections with known properties in a namespace of tracer's own, and compares their memory with them.
fn prove_ip_vs(
    offsets: &Offsets,
    modules: &Modules,
    proof_netns: &ProofNetns,
) -> Result<ProvenLayout, String> {
    // Never make the kernel load the module.
    if !modules.has("ip_vs") {
        return Err("module ip_vs is not loaded".to_owned());
    }
    let scheduler = ipvs_proof::pick_scheduler(modules)
        .ok_or("cannot prove the layout of IPVS: no scheduler module is loaded")?;
    let info = hook::ALL
        .iter()
        .find(|info| info.hook == Hook::IpvsConnSeqShow)
        .ok_or("the hook table has no ip_vs_conn_seq_show")?;
    let (attached, ring) =
        Probe::attach_one(info, offsets).map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    if let Some(why) = attached.hooks().iter().find_map(|hook| hook.state.why()) {
        return Err(format!("cannot prove the layout of IPVS: {why}"));
    }
    let mut probe = SeqShowProbe {
        ring,
        thread: 0,
        proof_netns,
    };
    let samples = ipvs_proof::collect_samples(scheduler, &mut probe).map_err(|error| {
        format!(
            "cannot prove the layout of IPVS: {:#}",
            anyhow::Error::from(error)
        )
    })?;
    Ok(ipvs_proof::prove(&samples))
}

/// The IPVS connections that the kernel prints for one thread, read by a probe on `ip_vs_conn_seq_show`.
struct SeqShowProbe<'a> {
    ring: RingBuf<MapData>,
    thread: u32,
    proof_netns: &'a ProofNetns,
}

impl ConnProbe for SeqShowProbe<'_> {
    fn start(&mut self, thread: u32) -> io::Result<()> {
        self.thread = thread;
        // The calling thread has entered the namespace, but has made no connection yet.
        self.proof_netns.begin(netns::current()?);
        Ok(())
    }

    fn records(&mut self) -> io::Result<Vec<Record>> {
        let mut out = Vec::new();
        while let Some(bytes) = self.ring.next() {
            let printed = record::printed_conn(&bytes).map_err(io::Error::other)?;
            if printed.thread == u64::from(self.thread) {
                let pointees = printed.pointees.into_iter();
                out.push(Record {
                    pointer: printed.pointer,
                    conn: printed.conn,
                    pointees: pointees
                        .map(|(pointer_at, bytes)| Pointee { pointer_at, bytes })
                        .collect(),
                });
            }
        }
        Ok(out)
    }
}

fn apply(offsets: &mut Offsets, layout: &ProvenLayout) {
    let pairs = [
        (Field::Family, &field::IP_VS_CONN_AF),
        (Field::RealServerFamily, &field::IP_VS_CONN_DAF),
        (Field::RealServerAddress, &field::IP_VS_CONN_DADDR),
        (Field::RealServerPort, &field::IP_VS_CONN_DPORT),
        (Field::State, &field::IP_VS_CONN_STATE),
        (Field::ConnFlags, &field::IP_VS_CONN_FLAGS),
        (Field::Dest, &field::IP_VS_CONN_DEST),
        (Field::DestWeight, &field::IP_VS_DEST_WEIGHT),
        // The proven word holds the bit, whichever name it has on this kernel. The kernel half looks here first.
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

/// Fills in offsets of IPVS services that are verified at each use. The list of real servers must lead back to its
/// start, with every neighbour pointing back, and hold exactly the servers that the kernel prints for the service
/// (`diagnose::ipvs::servers`). The scheduler's name must be that of a scheduler (`report::path`). Values of 5.10,
/// `include/net/ip_vs.h`.
fn propose_ip_vs(offsets: &mut Offsets) {
    offsets.set(&field::IP_VS_SERVICE_DESTINATIONS, Ok(88));
    offsets.set(&field::IP_VS_DEST_LIST, Ok(0));
    offsets.set(&field::IP_VS_SERVICE_SCHEDULER, Ok(384));
    offsets.set(&field::IP_VS_SCHEDULER_NAME, Ok(16));
}

/// Fills in offsets of nf_tables that are verified at each use. `nft_pktinfo.skb` must lead to the headers of a traced
/// packet, including its sequence number; otherwise nothing is recorded. `nft_chain.name` counts only if a base chain of
/// that name is loaded at that hook (`diagnose::netfilter`). A rule found through expressions must be linked to its
/// neighbours, end where the expression ends, and be loaded with the verdict that was seen. Values of 5.10,
/// `include/net/netfilter/nf_tables.h` and `nf_tables_core.h`.
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

/// Fills in offsets of `xt_action_param` that are verified at each use: what it points to must lie inside a loaded
/// table. Values of 5.10, `include/linux/netfilter/x_tables.h`.
fn propose_x_tables(offsets: &mut Offsets) {
    for (field, offset) in [(&field::XT_ACTION_TARGINFO, 8), (&field::XT_ACTION_STATE, 16)] {
        if offsets.get(field).is_err() {
            offsets.set(field, Ok(offset));
        }
    }
}
