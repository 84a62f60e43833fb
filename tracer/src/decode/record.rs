//! Decodes the bytes of records, from the ring buffer or a recording. No length or number in them is trusted.

use tracer_common::record::{Header, HeaderVersion, Kind, RAW_POINTERS, RawConn};

use super::{
    bytes::{DecodeError, take},
    event::Event,
    payload::Payload,
};

/// The version of the records' header layout, as the head of a recording gives it.
pub const RECORDS: u32 = HeaderVersion::CURRENT as u32;

/// The memory of an IPVS connection entry that the kernel printed, to prove the layout.
#[derive(Clone, Debug)]
pub struct PrintedConn {
    /// Address of the entry.
    pub pointer: u64,
    /// Bytes of the `struct ip_vs_conn`.
    pub conn: Vec<u8>,
    /// Offsets of pointers in it, with the memory that each points to.
    pub pointees: Vec<(u32, Vec<u8>)>,
}

/// Decodes one record of a packet.
pub fn event(version: HeaderVersion, mut bytes: &[u8]) -> Result<Event, DecodeError> {
    let header = header(version, &mut bytes)?;
    let unknown = DecodeError::Unknown {
        kind: header.kind,
        hook: header.hook,
    };
    let payload = match Kind::from_number(header.kind) {
        Some(kind) => Payload::take(kind, &mut bytes)?,
        None => None,
    };
    payload
        .and_then(|payload| Event::new(&header, payload))
        .ok_or(unknown)
}

/// Decodes a record that holds the memory of an IPVS connection entry, as it comes from the ring buffer.
pub fn printed_conn(mut bytes: &[u8]) -> Result<PrintedConn, DecodeError> {
    let header = header(HeaderVersion::CURRENT, &mut bytes)?;
    if Kind::from_number(header.kind) != Some(Kind::RawConn) {
        return Err(DecodeError::Unknown {
            kind: header.kind,
            hook: header.hook,
        });
    }
    let raw: RawConn = take(&mut bytes)?;
    let pointees = RAW_POINTERS.into_iter().zip(raw.pointees);
    Ok(PrintedConn {
        pointer: raw.conn,
        conn: raw.bytes.to_vec(),
        pointees: pointees
            .map(|(offset, memory)| (offset, memory.to_vec()))
            .collect(),
    })
}

/// Takes the header from the front of a record. One of an older layout is converted here.
fn header(version: HeaderVersion, bytes: &mut &[u8]) -> Result<Header, DecodeError> {
    match version {
        HeaderVersion::V1 => take(bytes),
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::{
        hook::Hook,
        record::{Chain, Clash, IpvsDests, IpvsLimits, Netns, PacketState, Phase, Skipped, Stack},
    };
    use zerocopy::IntoBytes as _;

    use super::*;

    fn event(bytes: &[u8]) -> Result<Event, DecodeError> {
        super::event(HeaderVersion::CURRENT, bytes)
    }

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
    fn each_member_of_a_header_is_decoded() {
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
    fn every_truncation_is_an_error() {
        for (kind, hook, size) in [
            (Kind::Chain, Hook::NftDoChain, size_of::<Chain>()),
            (Kind::IpvsDests, Hook::IpvsLeave, size_of::<IpvsDests>()),
            (Kind::IpvsLimits, Hook::IpvsTcpSchedule, size_of::<IpvsLimits>()),
            (Kind::Clash, Hook::CtClash, size_of::<Clash>()),
            (Kind::PacketState, Hook::KfreeSkb, size_of::<PacketState>()),
            (Kind::Stack, Hook::KfreeSkb, size_of::<Stack>()),
            (Kind::Skipped, Hook::NetifReceive, size_of::<Skipped>()),
            (Kind::Netns, Hook::NetifReceive, size_of::<Netns>()),
        ] {
            let mut whole = header_bytes(kind as u8, hook as u16);
            whole.resize(whole.len() + size, 0);
            assert!(event(&whole).is_ok(), "{kind:?}");
            for end in 0..whole.len() {
                assert!(
                    matches!(event(&whole[..end]), Err(DecodeError::Short(..))),
                    "{kind:?} truncated at {end}"
                );
            }
        }
    }

    #[test]
    fn records_of_a_newer_tracer_are_unknown() {
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

    #[test]
    fn a_retired_kind_is_unknown() {
        for &(kind, was) in Kind::RETIRED {
            let hook = Hook::NftDoChain as u16;
            let mut bytes = header_bytes(kind, hook);
            bytes.resize(bytes.len() + size_of::<Chain>(), 0);
            assert_eq!(event(&bytes), Err(DecodeError::Unknown { kind, hook }), "{was}");
        }
    }

    #[test]
    fn a_record_at_any_address_is_decoded() {
        let limits = IpvsLimits {
            have: 1,
            drop_rate: 7,
            conn_count: -3,
            conn_max: 9,
        };
        let mut record = header_bytes(Kind::IpvsLimits as u8, Hook::IpvsTcpSchedule as u16);
        record.extend(limits.as_bytes());
        for shift in 0..8 {
            let mut bytes = vec![0xff; shift];
            bytes.extend(&record);
            let payload = event(&bytes[shift..]).expect("a record").payload;
            assert_eq!(payload, Payload::IpvsLimits(limits));
        }
    }

    #[test]
    fn memory_of_a_connection_entry_is_no_event() {
        let mut raw = RawConn {
            conn: 5,
            bytes: [1; _],
            pointees: [[2; _], [3; _], [4; _]],
        };
        raw.bytes[287] = 6;
        let hook = Hook::IpvsConnSeqShow as u16;
        let mut bytes = header_bytes(Kind::RawConn as u8, hook);
        bytes.extend(raw.as_bytes());
        let kind = Kind::RawConn as u8;
        assert_eq!(event(&bytes), Err(DecodeError::Unknown { kind, hook }));
        let printed = printed_conn(&bytes).expect("a record");
        assert_eq!(printed.pointer, 5);
        assert_eq!((printed.conn.len(), printed.conn[287]), (288, 6));
        assert_eq!(printed.pointees[2], (RAW_POINTERS[2], vec![4; 128]));
    }
}
