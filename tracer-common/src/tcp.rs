//! TCP header flags (RFC 9293, byte 13 of the header). Only these four are used and recorded.

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset the connection.
pub const RST: u8 = 0x04;
/// The acknowledgement number is valid.
pub const ACK: u8 = 0x10;

/// The part of a handshake that a packet is, by its flags alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The first packet: SYN without ACK.
    Syn,
    /// The listener's answer.
    SynAck,
    /// A refusal, or the end of a connection.
    Rst,
    /// An ACK that may complete a handshake.
    Ack,
    /// Not part of a handshake.
    Other,
}

impl Part {
    /// Classifies the flags byte of a TCP header.
    #[inline(always)]
    #[must_use]
    pub const fn of(flags: u8) -> Self {
        match flags & (SYN | RST | ACK | FIN) {
            SYN => Self::Syn,
            bits if bits & (SYN | ACK) == SYN | ACK => Self::SynAck,
            bits if bits & RST != 0 => Self::Rst,
            ACK => Self::Ack,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_identify_the_part() {
        assert_eq!(Part::of(SYN), Part::Syn);
        assert_eq!(Part::of(SYN | ACK), Part::SynAck);
        assert_eq!(Part::of(RST), Part::Rst);
        assert_eq!(Part::of(RST | ACK), Part::Rst);
        assert_eq!(Part::of(ACK | 0x08), Part::Ack);
        assert_eq!(Part::of(FIN | ACK), Part::Other);
        assert_eq!(Part::of(0), Part::Other);
    }
}
