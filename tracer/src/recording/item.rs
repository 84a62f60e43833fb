//! Items, the contents of log chunks, in the order in which live tracing met them.

use std::io::BufReader;

use bytes::{Buf as _, BufMut as _};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    change::FactChange,
    memory::{self, Guarded},
};
use crate::{
    finding::run::{End, Health, Hooks},
    flow::begun::Begun,
};

/// Kinds of items. Readers skip unknown ones.
pub mod kind {
    /// An unmodified record from the ring buffer.
    pub const RECORD: u8 = 1;
    /// Flows were polled for their fates.
    pub const TICK: u8 = 2;
    /// Facts of the node changed.
    pub const FACTS: u8 = 3;
    /// Loss counters.
    pub const HEALTH: u8 = 4;
    /// Hooks changed their state.
    pub const HOOKS: u8 = 5;
    /// Tracing ended.
    pub const END: u8 = 6;
    /// The flows that began before the items that follow.
    pub const BEGUN: u8 = 7;
}

/// Length in bytes of an item's header: its kind (one byte) and the length of its body (four bytes, little-endian).
pub const ITEM_HEADER_LEN: usize = 5;

/// Upper limit in bytes of an item that is neither a record nor a fact: a few numbers, or a line for each hook. A parsed
/// list can take many times the memory of its text, so no longer one is read.
const MAX_SMALL_ITEM: usize = 4 << 20;

/// One item of a recording.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<'a> {
    /// An unmodified record from the ring buffer.
    Record(&'a [u8]),
    /// Flows were polled for their fates at this time, monotonic nanoseconds.
    Tick(u64),
    /// A fact of the node changed.
    Facts(FactUpdate),
    /// Records were lost.
    Health(Health),
    /// Hooks changed their state.
    Hooks(Hooks),
    /// Tracing ended.
    End(End),
    /// The flows that began before the items that follow.
    Begun(Begun),
}

/// A change of the facts, and when it became known. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FactUpdate {
    /// How many flows had been reported at the tick before it. Facts that were read for a flow were known when that flow
    /// was reported, but not yet when the flows before it were. `None`: between ticks.
    #[serde(rename = "told", default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<u32>,
    /// The change.
    pub change: FactChange,
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

    /// Appends the item to a payload. Returns `false`, and leaves the payload as it was, if the item is too long.
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
            Self::Facts(update) => serde_json::to_writer(&mut *out, update),
            Self::Health(health) => serde_json::to_writer(&mut *out, health),
            Self::Hooks(hooks) => serde_json::to_writer(&mut *out, hooks),
            Self::End(end) => serde_json::to_writer(&mut *out, end),
            Self::Begun(begun) => {
                begun.newest().for_each(|flow| out.put_u64_le(flow));
                Ok(())
            }
        };
        let length = out.len() - begin - ITEM_HEADER_LEN;
        match u32::try_from(length) {
            Ok(length) if written.is_ok() && length < super::chunk::MAX_PAYLOAD - 1024 => {
                out[begin + 1..begin + ITEM_HEADER_LEN].copy_from_slice(&length.to_le_bytes());
                true
            }
            _ => {
                out.truncate(begin);
                false
            }
        }
    }
}

/// Why an item cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemError {
    /// It is of an unknown kind, or of a known kind with an unknown body. The next item can be read.
    Unknown,
    /// Its header is damaged, so the rest of the payload cannot be read.
    Damaged,
    /// What it describes takes too much memory.
    TooLarge,
}

/// Iterates over the items of a payload.
#[derive(Clone, Debug)]
pub struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    /// The items of this payload.
    #[must_use]
    pub fn of(payload: &'a [u8]) -> Self {
        Self(payload)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, ItemError>;

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
            return Some(Err(ItemError::Damaged));
        };
        self.0 = rest;
        Some(parse(kind, body))
    }
}

fn json<T: DeserializeOwned>(text: &[u8]) -> Result<T, ItemError> {
    if text.len() <= memory::SMALL_TEXT {
        return serde_json::from_slice(text).map_err(|_| ItemError::Unknown);
    }
    let text = BufReader::with_capacity(memory::SMALL_TEXT, Guarded::new(text));
    serde_json::from_reader(text).map_err(|error| {
        if error.is_io() {
            ItemError::TooLarge
        } else {
            ItemError::Unknown
        }
    })
}

fn parse(kind: u8, mut body: &[u8]) -> Result<Item<'_>, ItemError> {
    if !matches!(kind, kind::RECORD | kind::FACTS) && body.len() > MAX_SMALL_ITEM {
        return Err(ItemError::Unknown);
    }
    Ok(match kind {
        kind::RECORD => Item::Record(body),
        kind::TICK => Item::Tick(body.try_get_u64_le().map_err(|_| ItemError::Unknown)?),
        kind::FACTS => Item::Facts(json(body)?),
        kind::HEALTH => Item::Health(json(body)?),
        kind::HOOKS => Item::Hooks(json(body)?),
        kind::END => Item::End(json(body)?),
        kind::BEGUN => {
            let mut begun = Begun::default();
            while !body.is_empty() {
                begun.add(body.try_get_u64_le().map_err(|_| ItemError::Unknown)?);
            }
            Item::Begun(begun)
        }
        _ => return Err(ItemError::Unknown),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::rank::Evicted;

    fn items() -> Vec<Item<'static>> {
        vec![
            Item::Record(b"a record"),
            Item::Tick(7),
            Item::Facts(FactUpdate {
                reported: Some(2),
                change: FactChange::Lost { at_ns: Some(9) },
            }),
            Item::Health(Health {
                events: 5,
                lost_by_hook: vec![("kfree_skb".to_owned(), 3)],
                ..Health::default()
            }),
            Item::Hooks(Hooks {
                why: "module ip_vs was loaded".to_owned(),
                ..Hooks::default()
            }),
            Item::End(End {
                evicted: Evicted::default(),
                now_ns: 8,
                events: 5,
                lost: 3,
                received: Some(4),
                lost_by_hook: vec![("kfree_skb".to_owned(), 3)],
                missed: None,
                refused: vec![("flow".to_owned(), 1)],
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
    fn the_names_in_a_recording_stay() {
        let update = FactUpdate {
            reported: Some(2),
            change: FactChange::Lost { at_ns: Some(9) },
        };
        assert_eq!(
            serde_json::to_string(&update).expect("JSON"),
            r#"{"told":2,"change":{"of":"lost","at_ns":9}}"#
        );
    }

    #[test]
    fn items_are_read_in_the_order_in_which_they_were_written() {
        let payload = payload();
        let read: Vec<_> = Items::of(&payload).collect();
        assert_eq!(read, items().into_iter().map(Ok).collect::<Vec<_>>());
    }

    #[test]
    fn an_unknown_item_is_skipped_and_a_damaged_one_ends_the_payload() {
        let mut bytes = vec![200, 3, 0, 0, 0, 1, 2, 3];
        bytes.extend([kind::END, 1, 0, 0, 0, b'x']);
        bytes.extend([kind::TICK, 7, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]);
        bytes.extend(payload());
        let read: Vec<_> = Items::of(&bytes).collect();
        assert_eq!(read[..3], [const { Err(ItemError::Unknown) }; 3]);
        assert_eq!(read.len(), 3 + items().len());
        for wrong in [&[kind::RECORD][..], &[kind::RECORD, 255, 255, 255, 255, 1]] {
            assert_eq!(Items::of(wrong).collect::<Vec<_>>(), [Err(ItemError::Damaged)]);
        }
    }

    #[test]
    fn an_item_above_the_size_limit_is_not_read() {
        let mut body = br#"{"hooks":["#.to_vec();
        body.resize(MAX_SMALL_ITEM + 1, b' ');
        assert!(parse(kind::HOOKS, b"{\"hooks\":[]}").is_ok());
        body.splice(body.len() - 2.., *b"]}");
        assert_eq!(parse(kind::HOOKS, &body), Err(ItemError::Unknown));
        assert!(parse(kind::HOOKS, &body[..MAX_SMALL_ITEM]).is_err());
        assert!(parse(kind::RECORD, &body).is_ok());
    }

    #[test]
    fn a_truncated_payload_does_not_panic() {
        let payload = payload();
        for end in 0..payload.len() {
            let read: Vec<_> = Items::of(&payload[..end]).collect();
            assert!(read.len() <= items().len());
        }
    }
}
