//! Offsets of modules' structs on kernels without module BTF (before 5.11). Each is verified before it is relied on: by
//! a proof before tracing, or at each use.

use std::{
    io,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use tracer_common::{
    field,
    hook::{self, Hook},
};

use super::{
    attach::Probe,
    ipvs_proof::{self, ConnProbe, Field, Pointee, ProvenLayout, Record},
    offsets::Offsets,
};
use crate::{decode::record, facts::modules::Modules};

/// Whether the layout of IPVS has to be proven, because no BTF describes it.
#[must_use]
pub fn is_proof_due(offsets: &Offsets, modules: &Modules) -> bool {
    modules.has("ip_vs") && !offsets.has_module("ip_vs") && offsets.get(&field::IP_VS_CONN_STATE).is_err()
}

/// How long a proof may take. Reading a table of 165 000 connections three times takes about a second on a node, and some
/// ten seconds in an emulated machine.
pub const PROOF_LIMIT: Duration = Duration::from_secs(30);

/// Proves the offsets of IPVS that no BTF describes, and fills them in. Returns after [`PROOF_LIMIT`] at the latest.
pub fn prove(offsets: &mut Offsets, modules: &Modules) {
    let layout = prove_in_time(offsets, modules).unwrap_or_else(|why| ProvenLayout::nothing(&why));
    apply(offsets, &layout);
}

/// Proves on a thread of its own: nothing can interrupt a thread that reads the connection table, so one that takes too long
/// is left behind. It ends by itself.
fn prove_in_time(offsets: &Offsets, modules: &Modules) -> Result<ProvenLayout, String> {
    let (sender, result) = mpsc::channel();
    let (offsets, modules) = (offsets.clone(), modules.clone());
    let prove = move || {
        // Nobody receives it if the time is up.
        let _ = sender.send(prove_ip_vs(&offsets, &modules));
    };
    thread::Builder::new()
        .name("prove-ipvs".to_owned())
        .spawn(prove)
        .map_err(|error| format!("cannot prove the layout of IPVS: cannot start a thread: {error}"))?;
    match result.recv_timeout(PROOF_LIMIT) {
        Ok(layout) => layout,
        Err(RecvTimeoutError::Timeout) => Err(format!(
            "cannot prove the layout of IPVS: not done after {} s; IPVS may have too many connections",
            PROOF_LIMIT.as_secs()
        )),
        Err(RecvTimeoutError::Disconnected) => {
            Err("cannot prove the layout of IPVS: the thread panicked".to_owned())
        }
    }
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
fn prove_ip_vs(offsets: &Offsets, modules: &Modules) -> Result<ProvenLayout, String> {
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
        probe: attached,
        ring,
    };
    let samples = ipvs_proof::collect_samples(scheduler, &mut probe).map_err(|error| {
        format!(
            "cannot prove the layout of IPVS: {:#}",
            anyhow::Error::from(error)
        )
    })?;
    Ok(ipvs_proof::prove(&samples))
}

/// The IPVS connections of the proof that the kernel prints, read by a probe on `ip_vs_conn_seq_show`.
struct SeqShowProbe {
    probe: Probe,
    ring: RingBuf<MapData>,
}

impl ConnProbe for SeqShowProbe {
    fn start(&mut self, tag: u16) -> io::Result<()> {
        self.probe.report_proof(tag).map_err(io::Error::other)
    }

    fn records(&mut self) -> io::Result<Vec<Record>> {
        let mut out = Vec::new();
        while let Some(bytes) = self.ring.next() {
            let printed = record::printed_conn(&bytes).map_err(io::Error::other)?;
            let pointees = printed.pointees.into_iter();
            out.push(Record {
                pointer: printed.pointer,
                conn: printed.conn,
                pointees: pointees
                    .map(|(pointer_at, bytes)| Pointee { pointer_at, bytes })
                    .collect(),
            });
        }
        Ok(out)
    }
}

fn apply(offsets: &mut Offsets, layout: &ProvenLayout) {
    let pairs = [
        (Field::Family, &field::IP_VS_CONN_AF),
        (Field::RealServerFamily, &field::IP_VS_CONN_DAF),
        (Field::ClientAddress, &field::IP_VS_CONN_CADDR),
        (Field::ClientPort, &field::IP_VS_CONN_CPORT),
        (Field::ServiceAddress, &field::IP_VS_CONN_VADDR),
        (Field::ServicePort, &field::IP_VS_CONN_VPORT),
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
