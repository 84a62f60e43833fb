//! IPVS: which connection entry a SYN met, what was decided, and where it was sent.

use aya_ebpf::{
    macros::map,
    maps::LruHashMap,
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::{
    hook::Hook,
    record::{Header, IpvsConn, IpvsService, Kind, ipvs_conn},
    tuple::{Addr, Tuple},
};

use super::{
    call,
    emit::{self, emit},
    fields::{self, pointer, read, read_at},
    flow::{self, FlowRef},
    packet,
};

const AF_INET: u8 = 2;
/// `IP_VS_DEST_F_AVAILABLE` in `ip_vs_dest.flags`, or its bit in `cflags` (6.1.187, 6.12.107, 7.2 and later).
const DEST_AVAILABLE: u32 = 1;

/// From a lookup to what IPVS does with the entry it found, in the same call: microseconds, more under emulation.
const AT_ONCE_NS: u64 = 20_000_000;

/// Where tracer meets a connection entry without a packet: the entry that a lookup returned, and for whom.
#[map]
static LOOKED_UP: LruHashMap<u64, Header> = LruHashMap::with_max_entries(8192, 0);

/// Reads what matters of a `struct ip_vs_conn`, and of the conntrack entry that `skb` (0: none) carries.
#[inline(always)]
fn read_conn(conn: u64, skb: u64) -> IpvsConn {
    let mut out = IpvsConn {
        conn,
        ..IpvsConn::default()
    };
    let family = read::<u8>(conn, &fields::IP_VS_CONN_AF);
    if let (Some(AF_INET), Some(addr), Some(port)) = (
        family,
        read::<[u8; 4]>(conn, &fields::IP_VS_CONN_DADDR),
        read::<[u8; 2]>(conn, &fields::IP_VS_CONN_DPORT),
    ) {
        out.daddr = Addr::v4(addr);
        out.dport = u16::from_be_bytes(port);
        out.have |= ipvs_conn::BACKEND;
    }
    if let Some(state) = read(conn, &fields::IP_VS_CONN_STATE) {
        out.state = state;
        out.have |= ipvs_conn::STATE;
    }
    if let Some(flags) = read(conn, &fields::IP_VS_CONN_FLAGS) {
        out.flags = flags;
        out.have |= ipvs_conn::FLAGS;
    }
    if let Some(control) = read::<u64>(conn, &fields::IP_VS_CONN_CONTROL) {
        out.have |= ipvs_conn::CONTROL | if control == 0 { 0 } else { ipvs_conn::CONTROLLED };
    }
    read_dest(conn, &mut out);
    if let Some(ipvs) = pointer(conn, &fields::IP_VS_CONN_IPVS) {
        if let Some(mode) = read(ipvs, &fields::NETNS_IPVS_CONN_REUSE_MODE) {
            out.conn_reuse_mode = mode;
            out.have |= ipvs_conn::REUSE_MODE;
        }
        if let Some(expire) = read(ipvs, &fields::NETNS_IPVS_EXPIRE_NODEST_CONN) {
            out.expire_nodest_conn = expire;
            out.have |= ipvs_conn::EXPIRE_NODEST;
        }
    }
    if let Some(ct) = super::conntrack::of(skb) {
        if let Some(status) = read(ct, &fields::NF_CONN_STATUS) {
            out.ct_status = status;
            out.have |= ipvs_conn::CT_STATUS;
        }
        if let Some(state) = read::<u8>(ct, &fields::NF_CONN_TCP_STATE) {
            out.ct_tcp_state = u32::from(state);
            out.have |= ipvs_conn::CT_TCP_STATE;
        }
    }
    out
}

#[inline(always)]
fn read_dest(conn: u64, out: &mut IpvsConn) {
    let Some(dest) = read::<u64>(conn, &fields::IP_VS_CONN_DEST) else {
        return;
    };
    if dest == 0 {
        out.have |= ipvs_conn::NO_DEST;
        return;
    }
    if let Some(weight) = read(dest, &fields::IP_VS_DEST_WEIGHT) {
        out.weight = weight;
        out.have |= ipvs_conn::WEIGHT;
    }
    // Where both exist, the bit moved to cflags; the loader leaves `flags` unset then.
    let flags: Option<u32> =
        read(dest, &fields::IP_VS_DEST_CFLAGS).or_else(|| read(dest, &fields::IP_VS_DEST_FLAGS));
    if let Some(flags) = flags {
        out.available = flags & DEST_AVAILABLE;
        out.have |= ipvs_conn::AVAILABLE;
    }
}

/// Does a pointer-returning function report an entry? NULL and error values are none.
#[inline(always)]
fn valid(pointer: u64) -> Option<u64> {
    (pointer != 0 && (pointer as i64) < -4095).then_some(pointer)
}

/// What most entries do: is it a SYN of ours? then remember the call.
#[inline(always)]
fn enter(hook: Hook, ctx: &ProbeContext, skb: u64) -> Option<(Header, FlowRef)> {
    let packet = packet::parse(skb)?;
    if !flow::is_request(&packet) {
        return None;
    }
    let flow = flow::known(&packet.tuple, packet.seq)?;
    let mut header = emit::header(hook, &packet, &flow);
    call::enter(ctx, &mut header, 0, 0);
    Some((header, flow))
}

/// `ip_vs_in_hook(priv, skb, state)` and its predecessors: netfilter asks IPVS.
pub(super) mod request {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let packet = packet::parse(ctx.arg(1)?)?;
        if !flow::is_request(&packet) {
            return None;
        }
        // A client on the node itself is first seen here.
        let flow = flow::of_request(&packet)?;
        // After DNAT the packet passes the local output hook, where IPVS lets it go at once.
        if !flow.is_original() {
            return None;
        }
        let mut header = emit::header(hook, &packet, &flow);
        call::enter(ctx, &mut header, 0, 0);
        emit(&header, Kind::Packet, ());
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        let call = call::leave(hook, ctx)?;
        emit(&call.header, Kind::Packet, ());
        Some(())
    }
}

/// `ip_vs_conn_in_get_proto(ipvs, af, skb, iph)` (since 4.4) returns the entry of an older connection, or NULL.
pub(super) mod lookup {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        super::enter(hook, ctx, ctx.arg(2)?).map(|_| ())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        let call = call::leave(hook, ctx)?;
        let Some(conn) = valid(ctx.ret()) else {
            emit(&call.header, Kind::IpvsConn, IpvsConn::default());
            return Some(());
        };
        let _ = LOOKED_UP.insert(&conn, &call.header, 0);
        emit(&call.header, Kind::IpvsConn, read_conn(conn, call.header.skb));
        Some(())
    }
}

/// `ip_vs_conn_expire_now(cp)`: ours if it is the entry that a lookup for our SYN just returned.
#[inline(always)]
pub(super) fn expire_now(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let conn: u64 = ctx.arg(0)?;
    // SAFETY: the entry is copied at once.
    let mut header = *unsafe { LOOKED_UP.get(&conn) }?;
    let _ = LOOKED_UP.remove(&conn);
    let looked_up = (header.time_ns, header.cpu);
    emit::restamp(&mut header, hook);
    // The memory may have become another entry since: only what happens at once, in the same call, is about this SYN.
    if header.cpu != looked_up.1 || header.time_ns.wrapping_sub(looked_up.0) > AT_ONCE_NS {
        return None;
    }
    emit(&header, Kind::IpvsConn, read_conn(conn, header.skb));
    Some(())
}

/// `tcp_conn_schedule(ipvs, af, skb, pd, verdict, cpp, iph)` (since 4.4): 0 means that the verdict is set.
pub(super) mod tcp_schedule {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        super::enter(hook, ctx, ctx.arg(2)?).map(|_| ())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        let call = call::leave(hook, ctx)?;
        emit(&call.header, Kind::Packet, ());
        Some(())
    }
}

/// `ip_vs_schedule(svc, skb, pd, ignored, iph)` returns the new entry, or NULL.
pub(super) mod schedule {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let (header, _) = super::enter(hook, ctx, ctx.arg(1)?)?;
        emit(&header, Kind::IpvsService, read_service(ctx.arg(0)?));
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        let call = call::leave(hook, ctx)?;
        let conn = valid(ctx.ret()).map_or(IpvsConn::default(), |conn| read_conn(conn, 0));
        emit(&call.header, Kind::IpvsConn, conn);
        Some(())
    }
}

#[inline(always)]
fn read_service(service: u64) -> IpvsService {
    IpvsService {
        service,
        num_dests: read(service, &fields::IP_VS_SERVICE_NUM_DESTS).unwrap_or(u32::MAX),
        reserved: 0,
        scheduler: pointer(service, &fields::IP_VS_SERVICE_SCHEDULER)
            .and_then(|scheduler| pointer(scheduler, &fields::IP_VS_SCHEDULER_NAME))
            .and_then(read_at)
            .unwrap_or([0; 16]),
    }
}

/// `ip_vs_leave(svc, skb, pd, iph)`: the scheduler found no real server.
#[inline(always)]
pub(super) fn leave(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(1)?)?;
    let flow = flow::of(&packet)?;
    emit(
        &emit::header(hook, &packet, &flow),
        Kind::IpvsService,
        read_service(ctx.arg(0)?),
    );
    Some(())
}

/// `ip_vs_nat_xmit(skb, cp, pp, ipvsh)`: the SYN goes to the real server of `cp`.
pub(super) mod nat_xmit {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let (header, flow) = super::enter(hook, ctx, ctx.arg(0)?)?;
        let conn = read_conn(ctx.arg(1)?, header.skb);
        if conn.have & ipvs_conn::BACKEND != 0 {
            flow::alias(
                &Tuple {
                    daddr: conn.daddr,
                    dport: conn.dport,
                    ..header.tuple
                },
                &flow,
            );
        }
        emit(&header, Kind::IpvsConn, conn);
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        let call = call::leave(hook, ctx)?;
        emit(&call.header, Kind::Packet, ());
        Some(())
    }
}

/// `handle_response(af, skb, pd, cp, iph, hooknum)`: the answer meets the entry that will translate it back.
#[inline(always)]
pub(super) fn reply(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(1)?)?;
    let flow = flow::of(&packet)?;
    emit(
        &emit::header(hook, &packet, &flow),
        Kind::IpvsConn,
        read_conn(ctx.arg(3)?, packet.skb),
    );
    Some(())
}

/// `ip_vs_conn_seq_show(seq, v)`: the kernel prints an entry; its memory goes along, to prove the layout with.
///
/// The pointer to the real server is tried at the offset in the constant, which the loader proposes.
#[inline(always)]
pub(super) fn seq_show(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let conn: u64 = ctx.arg(1)?;
    // The first line of the file is a heading, shown for the value 1 (SEQ_START_TOKEN).
    if conn <= 1 {
        return None;
    }
    let mut header = Header::default();
    emit::restamp(&mut header, hook);
    emit::emit_raw_conn(
        &header,
        conn,
        pointer(conn, &fields::IP_VS_CONN_DEST).unwrap_or(0),
    );
    Some(())
}
