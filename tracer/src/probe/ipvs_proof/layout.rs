//! The fields whose offsets are to be proven: the candidate offsets, and the value expected there.

use std::net::{IpAddr, SocketAddr};

/// `IP_VS_DEST_F_OVERLOAD` and `IP_VS_DEST_F_AVAILABLE`, the same on all kernels.
const OVERLOAD: u128 = 2;
const AVAILABLE: u128 = 1;

/// The facts about a connection that are known without reading its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Protocol number, for example 6 for TCP.
    pub protocol: u8,
    /// The client.
    pub client: SocketAddr,
    /// The virtual service.
    pub service: SocketAddr,
    /// The real server.
    pub real_server: SocketAddr,
    /// Number of the state that the kernel prints.
    pub state: u16,
    /// The connection's flags, as far as they are known.
    pub flags: Flags,
    /// Weight of the real server.
    pub weight: i32,
    /// Whether the real server still belongs to its service.
    pub available: bool,
    /// Whether the real server has reached its upper threshold.
    pub overloaded: bool,
}

/// Partly known flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// The known bits.
    pub known: u32,
    /// The known bits that are set.
    pub set: u32,
}

/// The memory to which a pointer in a connection leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointee {
    /// Offset of the pointer in the connection.
    pub pointer_at: u32,
    /// The memory.
    pub bytes: Vec<u8>,
}

/// The memory of a connection at the moment when the kernel printed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The connection (`struct ip_vs_conn`), from its start.
    pub conn: Vec<u8>,
    /// The targets of the words that may be the pointer to the real server.
    pub pointees: Vec<Pointee>,
    /// The known facts about the connection.
    pub known: Known,
}

/// A field whose offset is to be proven.
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
    /// `ip_vs_dest.flags`, by its bit for an overloaded real server
    DestFlags,
    /// The word whose bit 0 is set while the real server is available: `ip_vs_dest.cflags` where the kernel has it, else
    /// `ip_vs_dest.flags`
    DestAvailable,
}

/// The struct that a field belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Struct {
    Conn,
    Dest,
}

/// How much the samples have to differ: a constant would prove nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Variety {
    /// At least this many different values.
    Distinct(usize),
    /// Every known bit both set and clear.
    EveryBit,
}

pub(super) struct Row {
    pub(super) field: Field,
    pub(super) path: &'static str,
    pub(super) owner: Struct,
    pub(super) size: u32,
    /// The offsets in kernels from 3.10 to 6.18. What follows the timer moved with the timer's size.
    pub(super) candidates: &'static [u32],
    pub(super) variety: Variety,
}

const fn row(
    field: Field,
    path: &'static str,
    owner: Struct,
    size: u32,
    candidates: &'static [u32],
    variety: Variety,
) -> Row {
    Row {
        field,
        path,
        owner,
        size,
        candidates,
        variety,
    }
}

/// The pointer to the real server comes before the members of the real server.
pub(super) const ROWS: [Row; 18] = [
    row(
        Field::ClientPort,
        "ip_vs_conn.cport",
        Struct::Conn,
        2,
        &[16],
        Variety::Distinct(3),
    ),
    row(
        Field::RealServerPort,
        "ip_vs_conn.dport",
        Struct::Conn,
        2,
        &[18],
        Variety::Distinct(3),
    ),
    row(
        Field::ServicePort,
        "ip_vs_conn.vport",
        Struct::Conn,
        2,
        &[20],
        Variety::Distinct(3),
    ),
    row(
        Field::Family,
        "ip_vs_conn.af",
        Struct::Conn,
        2,
        &[22],
        Variety::Distinct(2),
    ),
    row(
        Field::RealServerFamily,
        "ip_vs_conn.daf",
        Struct::Conn,
        2,
        &[78],
        Variety::Distinct(2),
    ),
    row(
        Field::ClientAddress,
        "ip_vs_conn.caddr",
        Struct::Conn,
        16,
        &[24],
        Variety::Distinct(2),
    ),
    row(
        Field::ServiceAddress,
        "ip_vs_conn.vaddr",
        Struct::Conn,
        16,
        &[40],
        Variety::Distinct(3),
    ),
    row(
        Field::RealServerAddress,
        "ip_vs_conn.daddr",
        Struct::Conn,
        16,
        &[56],
        Variety::Distinct(3),
    ),
    row(
        Field::ConnFlags,
        "ip_vs_conn.flags",
        Struct::Conn,
        4,
        &[72],
        Variety::EveryBit,
    ),
    row(
        Field::Protocol,
        "ip_vs_conn.protocol",
        Struct::Conn,
        2,
        &[76],
        Variety::Distinct(2),
    ),
    row(
        Field::State,
        "ip_vs_conn.state",
        Struct::Conn,
        2,
        &[148, 180, 188],
        Variety::Distinct(4),
    ),
    row(
        Field::Dest,
        "ip_vs_conn.dest",
        Struct::Conn,
        8,
        &[184, 216, 224],
        Variety::Distinct(3),
    ),
    row(
        Field::DestFamily,
        "ip_vs_dest.af",
        Struct::Dest,
        2,
        &[32],
        Variety::Distinct(2),
    ),
    row(
        Field::DestPort,
        "ip_vs_dest.port",
        Struct::Dest,
        2,
        &[34],
        Variety::Distinct(3),
    ),
    row(
        Field::DestAddress,
        "ip_vs_dest.addr",
        Struct::Dest,
        16,
        &[36],
        Variety::Distinct(3),
    ),
    row(
        Field::DestWeight,
        "ip_vs_dest.weight",
        Struct::Dest,
        4,
        &[60],
        Variety::Distinct(4),
    ),
    row(
        Field::DestFlags,
        "ip_vs_dest.flags",
        Struct::Dest,
        4,
        &[52],
        Variety::EveryBit,
    ),
    row(
        Field::DestAvailable,
        "ip_vs_dest available",
        Struct::Dest,
        4,
        &[52, 64],
        Variety::EveryBit,
    ),
];

impl Field {
    /// All fields.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.field)
    }

    /// The name of the field in the kernel's source.
    #[must_use]
    pub fn path(self) -> &'static str {
        self.row().path
    }

    /// Size of the field in bytes.
    #[must_use]
    pub fn size(self) -> u32 {
        self.row().size
    }

    /// The candidate offsets: those in kernels from 3.10 to 6.18.
    #[must_use]
    pub fn candidates(self) -> &'static [u32] {
        self.row().candidates
    }

    pub(super) fn row(self) -> &'static Row {
        // Each field has a row; the default only avoids a panic that cannot happen.
        ROWS.iter().find(|row| row.field == self).unwrap_or(&ROWS[0])
    }

    /// The value that must be at the offset.
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
            // Any word: `check_dest_offset` looks at its target.
            Self::Dest => Pattern { mask: 0, value: 0 },
        }
    }
}

/// A partly known little-endian number.
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
            // The kernel does not initialise the rest of the union.
            IpAddr::V4(ip) => Self::exactly(4, u32::from_le_bytes(ip.octets()).into()),
            IpAddr::V6(ip) => Self::exactly(16, u128::from_le_bytes(ip.octets())),
        }
    }

    pub(super) fn matches(self, memory: u128) -> bool {
        memory & self.mask == self.value & self.mask
    }
}

/// Whether a connection has this client at the offsets common to all known kernels.
pub(super) fn has_client(conn: &[u8], client: SocketAddr) -> bool {
    [
        (Field::ClientPort, Pattern::port(client)),
        (Field::ClientAddress, Pattern::address(client)),
    ]
    .iter()
    .all(|(field, pattern)| {
        let row = field.row();
        read_le(conn, row.candidates[0], row.size).is_some_and(|memory| pattern.matches(memory))
    })
}

/// Reads a little-endian number.
pub(super) fn read_le(bytes: &[u8], offset: u32, size: u32) -> Option<u128> {
    let start = offset as usize;
    let field = bytes.get(start..start.checked_add(size as usize)?)?;
    Some(
        field
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u128::from(byte)),
    )
}
