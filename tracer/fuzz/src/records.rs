//! Kernel records that appear to be about a few packets of a few flows.

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use tracer_common::{
    hook::{ALL, Hook},
    record::Kind,
    tcp::{ACK, RST, SYN},
};

/// A record, in a form that the fuzzer generates.
#[derive(Clone, Debug, Arbitrary)]
pub struct Record {
    hook: u8,
    kind: u8,
    is_return: bool,
    flags: u8,
    flow: u8,
    skb: u8,
    call: u8,
    tuple: u8,
    netns: u8,
    ifindex: u8,
    verdict: i8,
    encapsulation: u8,
    /// Microseconds since the previous record.
    later: u32,
    /// The time, if it does not follow from `later`.
    at: Option<u64>,
    /// The first bytes that the hook read. The rest is `fill`.
    body: [u8; 48],
    fill: u8,
    /// Flows are polled for their fates before this record.
    pub asks: bool,
}

/// More bytes than any payload has.
const BODY: usize = 1024;

impl Record {
    /// A packet of the first flow at a hook, with the bytes that the hook read.
    pub fn seen(hook: u8, kind: u8, is_return: bool, read: &[u8]) -> Self {
        let mut body = [0; 48];
        let length = read.len().min(body.len());
        body[..length].copy_from_slice(&read[..length]);
        Self {
            hook,
            kind,
            is_return,
            flags: 0,
            flow: 0,
            skb: 0,
            call: 0,
            tuple: 0,
            netns: 0,
            ifindex: 1,
            verdict: 0,
            encapsulation: 0,
            later: 1,
            at: None,
            body,
            fill: 0,
            asks: false,
        }
    }

    /// The record as it comes from the ring buffer. `now_ns` is the time of the previous record, and becomes that of this
    /// one.
    pub fn to_bytes(&self, now_ns: &mut u64) -> Vec<u8> {
        *now_ns = self
            .at
            .unwrap_or_else(|| now_ns.saturating_add(u64::from(self.later) * 1000));
        let mut out = Vec::new();
        for word in [
            *now_ns,
            u64::from(self.flow % 4),
            u64::from(self.skb % 4),
            u64::from(self.call % 4),
        ] {
            out.extend(word.to_le_bytes());
        }
        let client = [10, 0, 0, 2 + (self.tuple & 1)];
        let pod = [10, 244, 1, 2];
        let (there, port) = if self.tuple & 2 == 0 {
            ([10, 0, 0, 1], 30_080_u16)
        } else {
            (pod, 8080)
        };
        let (mut ends, mut ports) = ([client, there], [40_000, port]);
        if self.tuple & 4 != 0 {
            ends.reverse();
            ports.reverse();
        }
        for end in ends {
            if self.tuple & 8 == 0 {
                out.extend([0; 10]);
                out.extend([0xff, 0xff]);
            } else {
                out.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            out.extend(end);
        }
        for port in ports {
            out.extend(port.to_le_bytes());
        }
        for word in [1, 0, 1, u32::from(self.netns % 3), u32::from(self.ifindex % 3)] {
            out.extend(word.to_le_bytes());
        }
        out.extend(i32::from(self.verdict).to_le_bytes());
        out.extend(*b"eth0\0\0\0\0\0\0\0\0\0\0\0\0");
        let hook = &ALL[usize::from(self.hook) % ALL.len()];
        out.extend((hook.hook as u16).to_le_bytes());
        out.extend(1_u16.to_le_bytes());
        let kinds = Kind::ALL;
        let flags = [SYN, SYN | ACK, ACK, RST, RST | ACK, self.flags];
        let flags = flags[usize::from(self.flags) % flags.len()];
        out.extend([
            // Sometimes a kind that this version does not know.
            kinds
                .get(usize::from(self.kind) % (kinds.len() + 2))
                .map_or(u8::MAX, |&kind| kind as u8),
            u8::from(self.is_return),
            flags,
            self.encapsulation % 6,
        ]);
        out.extend([10, 0, 0, 9]);
        out.extend(self.body);
        out.resize(out.len() + BODY, self.fill);
        out
    }
}

/// The number of a hook in these records: its row in the table.
pub fn number(hook: Hook) -> u8 {
    let row = ALL.iter().position(|info| info.hook == hook);
    row.and_then(|row| row.try_into().ok()).expect("a hook")
}
