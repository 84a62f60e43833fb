//! Reads the memory of IPVS connection entries, to prove their layout on kernels without BTF for modules.

use aya_ebpf::{macros::map, maps::Array, programs::ProbeContext};
use tracer_common::{
    hook::Hook,
    proof::{CLIENT_ADDRESS_AT, TAG_IS_SET, is_client},
    record::{RAW_POINTERS, RawConn},
};

use super::{
    emit::{self, emit},
    fields::{read_at, read_bytes},
};

/// Which entries [`seq_show`] records, set by the loader: the tag of a proof plus [`TAG_IS_SET`]; 0 for none.
#[map]
static PROOF: Array<u32> = Array::with_max_entries(1, 0);

/// `ip_vs_conn_seq_show(seq, v)`: the kernel prints an entry. Records the memory of the proof's own entries. The table may
/// have hundreds of thousands of others, and on many kernels the function is called for those of all network namespaces.
#[inline(always)]
pub(super) fn seq_show(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let conn: u64 = ctx.arg(1)?;
    let proof = *PROOF.get(0)?;
    // The first line of the file is a heading, shown for the value 1 (SEQ_START_TOKEN).
    if conn <= 1 || proof & TAG_IS_SET == 0 {
        return None;
    }
    let client: [u32; 4] = read_at(conn.wrapping_add(u64::from(CLIENT_ADDRESS_AT)))?;
    if !is_client(client, proof as u16) {
        return None;
    }
    emit(hook, |header, out: &mut RawConn| {
        emit::stamp(header, hook);
        out.conn = conn;
        read_bytes(conn, &mut out.bytes);
        for (offset, pointee) in RAW_POINTERS.into_iter().zip(&mut out.pointees) {
            let pointer = read_at::<u64>(conn.wrapping_add(u64::from(offset))).unwrap_or(0);
            read_bytes(pointer, pointee);
        }
    });
    Some(())
}
