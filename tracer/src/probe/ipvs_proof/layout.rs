//! What the proof is after: the fields, where they may lie, and what must stand there.

use std::net::{IpAddr, SocketAddr};

/// `IP_VS_DEST_F_OVERLOAD`; its neighbour `IP_VS_DEST_F_AVAILABLE` is 1, wherever it is kept.
const OVERLOAD: u128 = 2;
const AVAILABLE: u128 = 1;

/// What is known of an entry without looking at its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Number of the protocol, such as 6 for TCP.
    pub protocol: u8,
    /// The client.
    pub client: SocketAddr,
    /// The virtual service.
    pub service: SocketAddr,
    /// The real server.
    pub real_server: SocketAddr,
    /// Number of the state that the kernel printed.
    pub state: u16,
    /// Those of the entry's flags that are known.
    pub flags: Flags,
    /// Weight of the real server.
    pub weight: i32,
    /// Whether the real server still belongs to its service.
    pub available: bool,
    /// Whether the real server has as many connections as it may have.
    pub overloaded: bool,
}

/// Flags of an entry, of which some are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// The bits that are known.
    pub known: u32,
    /// Those of them that are set.
    pub set: u32,
}

/// Memory that a pointer inside an entry leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Offset of the pointer in the entry.
    pub pointer_at: u32,
    /// What is there.
    pub bytes: Vec<u8>,
}

/// One entry's memory at the moment at which the kernel printed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The entry, from its start.
    pub conn: Vec<u8>,
    /// What those of its words lead to that may be the pointer to the real server.
    pub behind: Vec<Behind>,
    /// What is known of it.
    pub known: Known,
}

/// A field that the proof is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `ip_vs_conn.cport`
    ClientPort,
    /// `ip_vs_conn.dport`
    RealServerPort,
    /// `ip_vs_conn.vport`
    ServicePort,
    /// `ip_vs_conn.af`
    Family,
    /// `ip_vs_conn.daf`
    RealServerFamily,
    /// `ip_vs_conn.caddr`
    ClientAddress,
    /// `ip_vs_conn.vaddr`
    ServiceAddress,
    /// `ip_vs_conn.daddr`
    RealServerAddress,
    /// `ip_vs_conn.flags`
    ConnFlags,
    /// `ip_vs_conn.protocol`
    Protocol,
    /// `ip_vs_conn.state`
    State,
    /// `ip_vs_conn.dest`
    Dest,
    /// `ip_vs_dest.af`
    DestFamily,
    /// `ip_vs_dest.port`
    DestPort,
    /// `ip_vs_dest.addr`
    DestAddress,
    /// `ip_vs_dest.weight`
    DestWeight,
    /// `ip_vs_dest.flags`, as far as it says whether the real server is overloaded
    DestFlags,
    /// The word whose bit 0 says whether the real server is available: `ip_vs_dest.flags`, or `ip_vs_dest.cflags`
    /// where the kernel has that
    DestAvailable,
}

/// Which memory a field lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum In {
    Conn,
    Dest,
}

/// What makes samples telling: a constant would prove nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Telling {
    /// So many different values.
    Distinct(usize),
    /// Each known bit both set and not.
    EveryBit,
}

pub(super) struct Row {
    pub(super) field: Field,
    pub(super) path: &'static str,
    pub(super) within: In,
    pub(super) size: u32,
    /// Where kernels from 3.10 to 6.18 keep it; what follows the timer moved with the timer's size.
    pub(super) candidates: &'static [u32],
    pub(super) telling: Telling,
}

const fn row(
    field: Field,
    path: &'static str,
    within: In,
    size: u32,
    candidates: &'static [u32],
    telling: Telling,
) -> Row {
    Row {
        field,
        path,
        within,
        size,
        candidates,
        telling,
    }
}

/// The pointer comes before what lies behind it.
pub(super) const ROWS: [Row; 18] = [
    row(
        Field::ClientPort,
        "ip_vs_conn.cport",
        In::Conn,
        2,
        &[16],
        Telling::Distinct(3),
    ),
    row(
        Field::RealServerPort,
        "ip_vs_conn.dport",
        In::Conn,
        2,
        &[18],
        Telling::Distinct(3),
    ),
    row(
        Field::ServicePort,
        "ip_vs_conn.vport",
        In::Conn,
        2,
        &[20],
        Telling::Distinct(3),
    ),
    row(
        Field::Family,
        "ip_vs_conn.af",
        In::Conn,
        2,
        &[22],
        Telling::Distinct(2),
    ),
    row(
        Field::RealServerFamily,
        "ip_vs_conn.daf",
        In::Conn,
        2,
        &[78],
        Telling::Distinct(2),
    ),
    row(
        Field::ClientAddress,
        "ip_vs_conn.caddr",
        In::Conn,
        16,
        &[24],
        Telling::Distinct(2),
    ),
    row(
        Field::ServiceAddress,
        "ip_vs_conn.vaddr",
        In::Conn,
        16,
        &[40],
        Telling::Distinct(3),
    ),
    row(
        Field::RealServerAddress,
        "ip_vs_conn.daddr",
        In::Conn,
        16,
        &[56],
        Telling::Distinct(3),
    ),
    row(
        Field::ConnFlags,
        "ip_vs_conn.flags",
        In::Conn,
        4,
        &[72],
        Telling::EveryBit,
    ),
    row(
        Field::Protocol,
        "ip_vs_conn.protocol",
        In::Conn,
        2,
        &[76],
        Telling::Distinct(2),
    ),
    row(
        Field::State,
        "ip_vs_conn.state",
        In::Conn,
        2,
        &[148, 180, 188],
        Telling::Distinct(4),
    ),
    row(
        Field::Dest,
        "ip_vs_conn.dest",
        In::Conn,
        8,
        &[184, 216, 224],
        Telling::Distinct(3),
    ),
    row(
        Field::DestFamily,
        "ip_vs_dest.af",
        In::Dest,
        2,
        &[32],
        Telling::Distinct(2),
    ),
    row(
        Field::DestPort,
        "ip_vs_dest.port",
        In::Dest,
        2,
        &[34],
        Telling::Distinct(3),
    ),
    row(
        Field::DestAddress,
        "ip_vs_dest.addr",
        In::Dest,
        16,
        &[36],
        Telling::Distinct(3),
    ),
    row(
        Field::DestWeight,
        "ip_vs_dest.weight",
        In::Dest,
        4,
        &[60],
        Telling::Distinct(4),
    ),
    row(
        Field::DestFlags,
        "ip_vs_dest.flags",
        In::Dest,
        4,
        &[52],
        Telling::EveryBit,
    ),
    row(
        Field::DestAvailable,
        "ip_vs_dest available",
        In::Dest,
        4,
        &[52, 64],
        Telling::EveryBit,
    ),
];

impl Field {
    /// All fields that the proof is after.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.field)
    }

    /// The field as the kernel's source names it.
    #[must_use]
    pub fn path(self) -> &'static str {
        self.row().path
    }

    /// Size in bytes of what stands at the offset.
    #[must_use]
    pub fn size(self) -> u32 {
        self.row().size
    }

    /// The places at which kernels from 3.10 to 6.18 keep the field, which are the ones that are tried.
    #[must_use]
    pub fn candidates(self) -> &'static [u32] {
        self.row().candidates
    }

    pub(super) fn row(self) -> &'static Row {
        // The table has a row for each field; the fallback only avoids a panic that cannot happen.
        ROWS.iter().find(|row| row.field == self).unwrap_or(&ROWS[0])
    }

    /// What must stand at the offset.
    pub(in crate::probe::ipvs_proof) fn expected(self, known: &Known) -> Pattern {
        match self {
            Self::ClientPort => Pattern::port(known.client),
            Self::RealServerPort | Self::DestPort => Pattern::port(known.real_server),
            Self::ServicePort => Pattern::port(known.service),
            Self::Family => Pattern::family(known.client),
            Self::RealServerFamily | Self::DestFamily => Pattern::family(known.real_server),
            Self::ClientAddress => Pattern::address(known.client),
            Self::ServiceAddress => Pattern::address(known.service),
            Self::RealServerAddress | Self::DestAddress => Pattern::address(known.real_server),
            Self::ConnFlags => Pattern {
                mask: known.flags.known.into(),
                value: known.flags.set.into(),
            },
            Self::Protocol => Pattern::exactly(2, known.protocol.into()),
            Self::State => Pattern::exactly(2, known.state.into()),
            Self::DestWeight => Pattern::exactly(4, known.weight.cast_unsigned().into()),
            Self::DestFlags => Pattern::bit(OVERLOAD, known.overloaded),
            Self::DestAvailable => Pattern::bit(AVAILABLE, known.available),
            // Any word; `dest_holds` judges it by what is behind.
            Self::Dest => Pattern { mask: 0, value: 0 },
        }
    }
}

/// Bytes of memory as a little-endian number, of which some bits are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pattern {
    pub(super) mask: u128,
    pub(super) value: u128,
}

impl Pattern {
    fn exactly(size: u32, value: u128) -> Self {
        Self {
            mask: u128::MAX >> (128 - 8 * size),
            value,
        }
    }

    fn bit(bit: u128, set: bool) -> Self {
        Self {
            mask: bit,
            value: if set { bit } else { 0 },
        }
    }

    fn family(address: SocketAddr) -> Self {
        Self::exactly(2, if address.is_ipv6() { 10 } else { 2 })
    }

    fn port(address: SocketAddr) -> Self {
        Self::exactly(2, u16::from_le_bytes(address.port().to_be_bytes()).into())
    }

    fn address(address: SocketAddr) -> Self {
        match address.ip() {
            // The kernel leaves the rest of the union as it was.
            IpAddr::V4(ip) => Self::exactly(4, u32::from_le_bytes(ip.octets()).into()),
            IpAddr::V6(ip) => Self::exactly(16, u128::from_le_bytes(ip.octets())),
        }
    }

    pub(super) fn holds(self, memory: u128) -> bool {
        memory & self.mask == self.value & self.mask
    }
}

/// Whether an entry has this client where every kernel that the proof knows keeps it.
pub(super) fn shows_client(conn: &[u8], client: SocketAddr) -> bool {
    [
        (Field::ClientPort, Pattern::port(client)),
        (Field::ClientAddress, Pattern::address(client)),
    ]
    .iter()
    .all(|(field, pattern)| {
        let row = field.row();
        read(conn, row.candidates[0], row.size).is_some_and(|memory| pattern.holds(memory))
    })
}

/// The little-endian number that stands there.
pub(super) fn read(bytes: &[u8], offset: u32, size: u32) -> Option<u128> {
    let start = offset as usize;
    let field = bytes.get(start..start.checked_add(size as usize)?)?;
    Some(
        field
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u128::from(byte)),
    )
}
