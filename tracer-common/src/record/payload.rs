//! The payload table: what can follow the header of a record.
//!
//! Adding a payload takes a struct in [`super`], a row here, the place in the kernel half that writes it, and the note
//! that shows it on a path. [`Kind`] is generated here; the user half generates its `Payload` enum and the decoder from
//! the same rows.
//!
//! Recordings carry the numbers, so a number never changes its meaning. A payload whose layout changes gets a new
//! number, and the old one moves to `retired`.

/// Hands the table to `$callback!`.
///
/// The sections:
/// * `header_only`: the kind without a payload.
/// * `packet`: data that a hook read besides the packet. A row is `Name = number, form;`: the struct has the row's name,
///   and the user half keeps it `inline` or, if it is large and rare, `boxed`.
/// * `memory`: raw memory that belongs to no packet.
/// * `retired`: numbers that older tracers wrote, with the name of each payload. They must stay unused.
#[macro_export]
macro_rules! for_each_payload {
    ($callback:ident) => {
        $callback! {
            header_only {
                /// No payload, only the header.
                Packet = 0;
            }
            packet {
                /// An IPVS connection entry, or that there is none (`conn` is 0).
                IpvsConn = 1, inline;
                /// An IPVS service.
                IpvsService = 2, inline;
                /// A conntrack entry.
                Conntrack = 3, inline;
                /// The packet was dropped.
                Drop = 5, inline;
                /// An ICMP error about the packet.
                Icmp = 6, inline;
                /// A socket.
                Socket = 7, inline;
                /// The real servers of an IPVS service when the scheduler found none usable.
                IpvsDests = 10, boxed;
                /// The limits on new IPVS connections when one was refused.
                IpvsLimits = 11, inline;
                /// The conntrack entry that already uses the tuple of a new one.
                Clash = 12, boxed;
                /// The conntrack state of a packet that was dropped.
                PacketState = 13, inline;
                /// The packet exceeds the MTU of its path.
                TooBig = 14, inline;
                /// A base chain of nf_tables that dropped the packet.
                Chain = 16, inline;
                /// A table of iptables that dropped the packet.
                Table = 17, inline;
                /// A rule that rejects the packet.
                Reject = 18, inline;
                /// A listening socket that receives a SYN.
                Listener = 20, inline;
                /// A `TIME_WAIT` socket that receives a SYN.
                TimeWait = 21, inline;
                /// The virtual service that an answer is translated back to, where the client addressed another one.
                Vip = 22, inline;
                /// The next hop and queueing discipline of a packet that was dropped.
                Egress = 23, inline;
                /// The routing decision, or the settings with which routing refused the packet.
                Route = 25, inline;
                /// The neighbour entry that the packet is queued on.
                Neighbour = 26, inline;
                /// The TTL of a packet that arrived from a device.
                Arrival = 34, inline;
                /// The mark with which the kernel looked up a route.
                Mark = 35, inline;
                /// The TCP header of a packet that was dropped.
                TcpHeader = 36, boxed;
                /// A connection that the node itself opened: IPVS handles its SYN-ACK as a client's request.
                OwnConnection = 37, inline;
                /// The network namespace that the packet came into, told apart from others with its inode number.
                Netns = 38, inline;
                /// The call stack of a drop.
                Stack = 30, boxed;
                /// The kernel skipped probes on the packet's path.
                Skipped = 31, inline;
            }
            memory {
                /// The raw memory of an IPVS connection entry.
                RawConn = 8;
            }
            retired {
                4: "Chain without the rule";
            }
        }
    };
}

/// A record struct that has a kind: the payloads, and `()` for a record that is only a header.
pub trait OfKind {
    /// The number by which readers know it.
    const KIND: Kind;
}

macro_rules! kinds {
    (
        header_only { $(#[$header_doc:meta])* $header:ident = $header_number:literal; }
        packet { $($(#[$doc:meta])* $name:ident = $number:literal, $form:ident;)* }
        memory { $($(#[$memory_doc:meta])* $memory:ident = $memory_number:literal;)* }
        retired { $($old:literal: $was:literal;)* }
    ) => {
        /// The kind of payload that follows the header.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $(#[$header_doc])*
            $header = $header_number,
            $(
                $(#[$doc])*
                $name = $number,
            )*
            $(
                $(#[$memory_doc])*
                $memory = $memory_number,
            )*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[Self::$header, $(Self::$name,)* $(Self::$memory,)*];

            /// Numbers that older tracers wrote and that must stay unused, with the name of each payload.
            pub const RETIRED: &[(u8, &str)] = &[$(($old, $was)),*];

            /// The kind with this number; `None` for one that is retired or that a newer tracer wrote.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                Some(match number {
                    $header_number => Self::$header,
                    $($number => Self::$name,)*
                    $($memory_number => Self::$memory,)*
                    _ => return None,
                })
            }
        }

        impl OfKind for () {
            const KIND: Kind = Kind::$header;
        }
        $(
            impl OfKind for super::$name {
                const KIND: Kind = Kind::$name;
            }
        )*
        $(
            impl OfKind for super::$memory {
                const KIND: Kind = Kind::$memory;
            }
        )*

        // The enum itself refuses a number that two kinds share.
        $(const _: () = assert!(Kind::from_number($old).is_none(), "a retired number is used again");)*
    };
}
for_each_payload!(kinds);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_found_by_its_number() {
        for &kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind as u8), Some(kind));
        }
    }

    #[test]
    fn retired_numbers_are_unknown() {
        assert!(!Kind::RETIRED.is_empty());
        for &(number, was) in Kind::RETIRED {
            assert_eq!(Kind::from_number(number), None, "{was}");
        }
    }
}
