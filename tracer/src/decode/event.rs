//! A decoded record: one thing that the kernel did.

use std::net::Ipv4Addr;

use tracer_common::{
    hook::Hook,
    record::{Header, Phase},
    tcp::Part,
    tunnel,
    tuple::Tuple,
};

pub use super::payload::Payload;

/// A decoded record. Numbers are in host byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The kernel half's number for the flow.
    pub flow: u64,
    /// The hook that saw it, by its role ([`Hook::role`]): an IPv6 twin appears as its IPv4 twin. For the function's own
    /// name, see [`Event::function`].
    pub hook: Hook,
    /// Whether this is the function's entry or its return.
    pub phase: Phase,
    /// Address of the packet's `sk_buff`.
    pub skb: u64,
    /// Pairs entry and return of one call; 0 where a hook has no return.
    pub call: u64,
    /// Source and destination of the packet at that moment.
    pub tuple: Tuple,
    /// The packet's part in the handshake.
    pub part: Part,
    /// Sequence number in its TCP header.
    pub seq: u32,
    /// Acknowledgement number in its TCP header.
    pub ack: u32,
    /// Flags in its TCP header: those of [`tracer_common::tcp`], the others are not recorded.
    pub flags: u8,
    /// Initial sequence number of the flow's SYN.
    pub isn: u32,
    /// Inode number of the network namespace; 0 if unknown.
    pub netns: u32,
    /// Index of the device; 0 if unknown.
    pub ifindex: u32,
    /// Name of the device; empty if unknown.
    pub dev: DeviceName,
    /// The CPU that ran the hook.
    pub cpu: u16,
    /// The function's return value, at [`Phase::Return`].
    pub verdict: i32,
    /// The outer header, where the packet was seen inside a tunnel: all else is about the packet in it.
    pub outer: Option<Outer>,
    /// The data that the hook read besides the packet.
    pub payload: Payload,
}

/// The outer header of a packet inside a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Its IP protocol ([`tracer_common::tunnel`]).
    pub protocol: u8,
    /// Where it goes.
    pub destination: Ipv4Addr,
}

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", tunnel::name(self.protocol), self.destination)
    }
}

/// A device name as the kernel keeps it (`IFNAMSIZ` bytes).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceName([u8; 16]);

impl DeviceName {
    /// The name, if one is known. Bytes that are not UTF-8 become replacement characters.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        Some(text(&self.0)).filter(|name| !name.is_empty())
    }
}

impl std::fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", text(&self.0))
    }
}

/// The text before the first NUL.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl Event {
    /// Joins a record's front with its payload; `None` if the hook or the phase is unknown: a newer tracer wrote it.
    #[must_use]
    pub fn new(header: &Header, payload: Payload) -> Option<Self> {
        Some(Self {
            time_ns: header.time_ns,
            flow: header.flow,
            hook: Hook::from_number(header.hook)?.role(),
            phase: match header.phase {
                0 => Phase::Entry,
                1 => Phase::Return,
                _ => return None,
            },
            skb: header.skb,
            call: header.call,
            tuple: header.tuple,
            part: Part::of(header.tcp_flags),
            seq: header.seq,
            ack: header.ack,
            flags: header.tcp_flags,
            isn: header.isn,
            netns: header.netns,
            ifindex: header.ifindex,
            dev: DeviceName(header.dev),
            cpu: header.cpu,
            verdict: header.verdict,
            outer: (header.encapsulation != 0).then(|| Outer {
                protocol: header.encapsulation,
                destination: Ipv4Addr::from(header.outer_daddr.to_ne_bytes()),
            }),
            payload,
        })
    }

    /// The kernel function or tracepoint that was hooked.
    #[must_use]
    pub fn function(&self) -> &'static str {
        if self.tuple.is_v6() {
            self.hook.for_ipv6().name()
        } else {
            self.hook.name()
        }
    }
}
