//! Bytes of the ring buffer (or of a recording) into events. Nothing here trusts a length or a number.

use bytes::Buf as _;
use tracer_common::record::{Header, Kind, RAW_BEHIND_LEN, RAW_CONN_LEN, RAW_POINTERS};

use super::{
    bytes::{DecodeError, array, tuple},
    event::Event,
    payload,
};

/// The layouts of the kernel's records that this version writes, and the newest that it reads.
pub const RECORDS: u32 = 1;

/// The memory of an IPVS connection entry, as a proof of the layout wants it.
#[derive(Clone, Debug)]
pub struct PrintedConn {
    /// The thread for which the kernel printed the entry.
    pub thread: u64,
    /// Address of the entry.
    pub pointer: u64,
    /// Bytes of the `struct ip_vs_conn`.
    pub conn: Vec<u8>,
    /// Offset of a word in it, and the bytes that it leads to.
    pub behind: Vec<(u32, Vec<u8>)>,
}

/// Decodes one record of a traced packet.
pub fn event(mut bytes: &[u8]) -> Result<Event, DecodeError> {
    let header = header(&mut bytes)?;
    let unknown = DecodeError::Unknown {
        kind: header.kind,
        hook: header.hook,
    };
    let what = match Kind::from_number(header.kind) {
        Some(kind) => payload::what(kind, &mut bytes)?,
        None => None,
    };
    let Some(what) = what else {
        return Err(unknown);
    };
    Event::new(&header, what).ok_or(unknown)
}

/// Decodes a record that carries the memory of an IPVS connection entry.
pub fn printed_conn(mut bytes: &[u8]) -> Result<PrintedConn, DecodeError> {
    let header = header(&mut bytes)?;
    if Kind::from_number(header.kind) != Some(Kind::RawConn) {
        return Err(DecodeError::Unknown {
            kind: header.kind,
            hook: header.hook,
        });
    }
    let pointer = bytes.try_get_u64_le()?;
    let conn = array::<RAW_CONN_LEN>(&mut bytes)?.to_vec();
    let mut behind = Vec::new();
    for offset in RAW_POINTERS {
        behind.push((offset, array::<RAW_BEHIND_LEN>(&mut bytes)?.to_vec()));
    }
    Ok(PrintedConn {
        thread: header.flow,
        pointer,
        conn,
        behind,
    })
}

fn header(bytes: &mut &[u8]) -> Result<Header, DecodeError> {
    Ok(Header {
        time_ns: bytes.try_get_u64_le()?,
        flow: bytes.try_get_u64_le()?,
        skb: bytes.try_get_u64_le()?,
        call: bytes.try_get_u64_le()?,
        tuple: tuple(bytes)?,
        seq: bytes.try_get_u32_le()?,
        ack: bytes.try_get_u32_le()?,
        isn: bytes.try_get_u32_le()?,
        netns: bytes.try_get_u32_le()?,
        ifindex: bytes.try_get_u32_le()?,
        verdict: bytes.try_get_i32_le()?,
        dev: array(bytes)?,
        hook: bytes.try_get_u16_le()?,
        cpu: bytes.try_get_u16_le()?,
        kind: bytes.try_get_u8()?,
        phase: bytes.try_get_u8()?,
        tcp_flags: bytes.try_get_u8()?,
        encapsulation: bytes.try_get_u8()?,
        outer_daddr: bytes.try_get_u32_le()?,
    })
}

#[cfg(test)]
mod tests {
    use tracer_common::{
        hook::Hook,
        record::{Chain, Clash, IpvsDests, IpvsLimits, PacketState, Phase, Skipped, Stack},
    };

    use super::*;

    fn header_bytes(kind: u8, hook: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [7_u64, 8, 9, 10] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [
            0_u32,
            0,
            0xffff_u32.to_be(),
            0x0200_000a,
            0,
            0,
            0xffff_u32.to_be(),
            0x0100_000a,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(40_001_u16.to_le_bytes());
        bytes.extend(30_080_u16.to_le_bytes());
        for word in [1_u32, 2, 3, 4, 5, u32::MAX] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"eth0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes.extend(hook.to_le_bytes());
        bytes.extend(1_u16.to_le_bytes());
        bytes.extend([kind, 1, tracer_common::tcp::SYN, 0, 0, 0, 0, 0]);
        assert_eq!(bytes.len(), size_of::<Header>());
        bytes
    }

    #[test]
    fn a_record_is_decoded_member_by_member() {
        let event = event(&header_bytes(0, Hook::IpvsIn as u16)).expect("a whole record");
        assert_eq!((event.time_ns, event.flow, event.skb, event.call), (7, 8, 9, 10));
        assert_eq!(event.tuple.source().to_string(), "10.0.0.2:40001");
        assert_eq!(event.tuple.destination().to_string(), "10.0.0.1:30080");
        assert_eq!(
            (event.isn, event.netns, event.ifindex, event.verdict),
            (3, 4, 5, -1)
        );
        assert_eq!(event.dev.get().as_deref(), Some("eth0"));
        assert_eq!(event.phase, Phase::Return);
    }

    #[test]
    fn every_cut_is_an_error_and_no_panic() {
        for (kind, hook, size) in [
            (Kind::Chain, Hook::NftDoChain, size_of::<Chain>()),
            (Kind::IpvsDests, Hook::IpvsLeave, size_of::<IpvsDests>()),
            (Kind::IpvsLimits, Hook::IpvsTcpSchedule, size_of::<IpvsLimits>()),
            (Kind::Clash, Hook::CtClash, size_of::<Clash>()),
            (Kind::PacketState, Hook::KfreeSkb, size_of::<PacketState>()),
            (Kind::Stack, Hook::KfreeSkb, size_of::<Stack>()),
            (Kind::Skipped, Hook::NetifReceive, size_of::<Skipped>()),
        ] {
            let mut whole = header_bytes(kind as u8, hook as u16);
            whole.resize(whole.len() + size, 0);
            assert!(event(&whole).is_ok(), "{kind:?}");
            for end in 0..whole.len() {
                assert!(
                    matches!(event(&whole[..end]), Err(DecodeError::Short(..))),
                    "{kind:?} cut at {end}"
                );
            }
        }
    }

    #[test]
    fn what_a_newer_tracer_wrote_is_unknown() {
        let kind = event(&header_bytes(200, Hook::IpvsIn as u16));
        assert_eq!(
            kind,
            Err(DecodeError::Unknown {
                kind: 200,
                hook: Hook::IpvsIn as u16
            })
        );
        assert_eq!(
            event(&header_bytes(0, 127)),
            Err(DecodeError::Unknown { kind: 0, hook: 127 })
        );
    }
}
