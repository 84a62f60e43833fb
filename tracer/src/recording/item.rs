//! Items: what a recording tells, one thing after the other, in the order in which live tracing met it.

use bytes::{Buf as _, BufMut as _};
use serde::{Deserialize, Serialize};

use super::change::Change;
use crate::{
    finding::run::{End, Health, Hooks},
    flow::begun::Begun,
};

/// Kinds of items. Readers leave out those that they do not know.
pub mod kind {
    /// A record of the kernel's, as it came from the ring buffer.
    pub const RECORD: u8 = 1;
    /// Flows were asked for their fates.
    pub const TICK: u8 = 2;
    /// Facts of the node changed.
    pub const FACTS: u8 = 3;
    /// Loss counters.
    pub const HEALTH: u8 = 4;
    /// Hooks changed their state.
    pub const HOOKS: u8 = 5;
    /// Tracing ended.
    pub const END: u8 = 6;
    /// Flows that had begun before what follows.
    pub const BEGUN: u8 = 7;
}

/// Bytes in front of an item: its kind and its length.
pub const FRONT: usize = 5;

/// Longest item that is no record and no fact: a few numbers, or a line for each hook. A list can take many times the room
/// of its text, so none longer is read.
const MOST_SMALL: usize = 4 << 20;

/// One thing that a recording tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<'a> {
    /// A record of the kernel's, as it came from the ring buffer.
    Record(&'a [u8]),
    /// Flows were asked for their fates at this moment of the monotonic clock.
    Tick(u64),
    /// A fact of the node changed.
    Facts(Learned),
    /// Records were lost.
    Health(Health),
    /// Hooks changed their state.
    Hooks(Hooks),
    /// Tracing ended.
    End(End),
    /// Flows that had begun before what follows.
    Begun(Begun),
}

/// A change of the facts, and when it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// Within the tick before it: how many flows had been told of. What a flow made live look for was known when the
    /// flow was told of, and not yet when those before it were. `None`: between ticks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<u32>,
    /// What changed.
    pub change: Change,
}

impl Item<'_> {
    fn kind(&self) -> u8 {
        match self {
            Self::Record(_) => kind::RECORD,
            Self::Tick(_) => kind::TICK,
            Self::Facts(_) => kind::FACTS,
            Self::Health(_) => kind::HEALTH,
            Self::Hooks(_) => kind::HOOKS,
            Self::End(_) => kind::END,
            Self::Begun(_) => kind::BEGUN,
        }
    }

    /// Adds it to a payload; `false` if it is too long to be one.
    pub fn write(&self, out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        out.put_u8(self.kind());
        out.put_u32_le(0);
        let written = match self {
            Self::Record(bytes) => {
                out.put_slice(bytes);
                Ok(())
            }
            Self::Tick(now_ns) => {
                out.put_u64_le(*now_ns);
                Ok(())
            }
            Self::Facts(learned) => serde_json::to_writer(&mut *out, learned),
            Self::Health(health) => serde_json::to_writer(&mut *out, health),
            Self::Hooks(hooks) => serde_json::to_writer(&mut *out, hooks),
            Self::End(end) => serde_json::to_writer(&mut *out, end),
            Self::Begun(begun) => {
                begun.newest().for_each(|flow| out.put_u64_le(flow));
                Ok(())
            }
        };
        let length = out.len() - begin - FRONT;
        match u32::try_from(length) {
            Ok(length) if written.is_ok() && length < super::chunk::MOST - 1024 => {
                out[begin + 1..begin + FRONT].copy_from_slice(&length.to_le_bytes());
                true
            }
            _ => {
                out.truncate(begin);
                false
            }
        }
    }
}

/// What was found in place of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// An item of a kind that this version does not know, or one of a known kind that it does not understand.
    Unknown,
    /// Nothing that could be one: what follows cannot be read either.
    Broken,
}

/// Goes through the items of a payload.
#[derive(Clone, Debug)]
pub struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    /// Of this payload.
    #[must_use]
    pub fn of(payload: &'a [u8]) -> Self {
        Self(payload)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Odd>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut rest = self.0;
        let split = (|| {
            let kind = rest.try_get_u8().ok()?;
            let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
            let (body, rest) = rest.split_at_checked(length)?;
            Some((kind, body, rest))
        })();
        let Some((kind, body, rest)) = split else {
            self.0 = &[];
            return Some(Err(Odd::Broken));
        };
        self.0 = rest;
        Some(parse(kind, body).ok_or(Odd::Unknown))
    }
}

fn parse(kind: u8, mut body: &[u8]) -> Option<Item<'_>> {
    if !matches!(kind, kind::RECORD | kind::FACTS) && body.len() > MOST_SMALL {
        return None;
    }
    Some(match kind {
        kind::RECORD => Item::Record(body),
        kind::TICK => Item::Tick(body.try_get_u64_le().ok()?),
        kind::FACTS => Item::Facts(serde_json::from_slice(body).ok()?),
        kind::HEALTH => Item::Health(serde_json::from_slice(body).ok()?),
        kind::HOOKS => Item::Hooks(serde_json::from_slice(body).ok()?),
        kind::END => Item::End(serde_json::from_slice(body).ok()?),
        kind::BEGUN => {
            let mut begun = Begun::default();
            while !body.is_empty() {
                begun.add(body.try_get_u64_le().ok()?);
            }
            Item::Begun(begun)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Item<'static>> {
        vec![
            Item::Record(b"a record"),
            Item::Tick(7),
            Item::Facts(Learned {
                told: Some(2),
                change: Change::Lost { at_ns: Some(9) },
            }),
            Item::Health(Health {
                events: 5,
                lost_by_hook: vec![("kfree_skb".to_owned(), 3)],
                ..Health::default()
            }),
            Item::Hooks(Hooks {
                why: "a module came".to_owned(),
                ..Hooks::default()
            }),
            Item::End(End {
                now_ns: 8,
                events: 5,
                lost: 3,
            }),
            Item::Begun({
                let mut begun = Begun::default();
                begun.extend([7, (1 << 48) | 9]);
                begun
            }),
        ]
    }

    fn payload() -> Vec<u8> {
        let mut out = Vec::new();
        assert!(items().iter().all(|item| item.write(&mut out)));
        out
    }

    #[test]
    fn items_come_back_in_order() {
        let payload = payload();
        let read: Vec<_> = Items::of(&payload).collect();
        assert_eq!(read, items().into_iter().map(Ok).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_unknown_is_left_out_and_what_is_broken_ends_it() {
        let mut bytes = vec![200, 3, 0, 0, 0, 1, 2, 3];
        bytes.extend([kind::END, 1, 0, 0, 0, b'x']);
        bytes.extend([kind::TICK, 7, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]);
        bytes.extend(payload());
        let read: Vec<_> = Items::of(&bytes).collect();
        assert_eq!(read[..3], [const { Err(Odd::Unknown) }; 3]);
        assert_eq!(read.len(), 3 + items().len());
        for wrong in [&[kind::RECORD][..], &[kind::RECORD, 255, 255, 255, 255, 1]] {
            assert_eq!(Items::of(wrong).collect::<Vec<_>>(), [Err(Odd::Broken)]);
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_not_read() {
        let mut body = br#"{"hooks":["#.to_vec();
        body.resize(MOST_SMALL + 1, b' ');
        assert!(parse(kind::HOOKS, b"{\"hooks\":[]}").is_some());
        body.splice(body.len() - 2.., *b"]}");
        assert_eq!(parse(kind::HOOKS, &body), None);
        assert!(parse(kind::HOOKS, &body[..MOST_SMALL]).is_none());
        assert!(parse(kind::RECORD, &body).is_some());
    }

    #[test]
    fn a_cut_anywhere_is_no_panic() {
        let payload = payload();
        for end in 0..payload.len() {
            let read: Vec<_> = Items::of(&payload[..end]).collect();
            assert!(read.len() <= items().len());
        }
    }
}
