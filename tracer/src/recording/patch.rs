//! The change of a list. Lists of rules are long, and little of them changes at once.

use serde::{Deserialize, Serialize};

/// A change that turns one list into another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Patch<T> {
    /// The elements at these indices get new values.
    #[serde(rename = "at")]
    Replace(Vec<(usize, T)>),
    /// Everything but the ends is replaced.
    #[serde(rename = "between")]
    Splice {
        /// Number of unchanged elements at the start.
        front: usize,
        /// Number of unchanged elements at the end.
        back: usize,
        /// The new elements between them.
        new: Vec<T>,
    },
}

impl<T: Clone + PartialEq> Patch<T> {
    /// Returns the change from `old` to `new`; `None` if they are equal.
    #[must_use]
    pub fn diff(old: &[T], new: &[T]) -> Option<Self> {
        if old == new {
            return None;
        }
        let pairs = || old.iter().zip(new);
        if old.len() == new.len() {
            let changed = pairs().zip(0..).filter(|((old, new), _)| old != new);
            return Some(Self::Replace(
                changed.map(|((_, new), index)| (index, new.clone())).collect(),
            ));
        }
        let front = pairs().take_while(|(old, new)| old == new).count();
        let rest = old.len().min(new.len()) - front;
        let from_end = old.iter().rev().zip(new.iter().rev()).take(rest);
        let back = from_end.take_while(|(old, new)| old == new).count();
        Some(Self::Splice {
            front,
            back,
            new: new[front..new.len() - back].to_vec(),
        })
    }

    /// Applies the change. Returns `false`, and leaves the list as it is, if the change does not fit it.
    pub fn apply(self, list: &mut Vec<T>) -> bool {
        match self {
            Self::Replace(changed) => {
                if changed.iter().any(|(index, _)| *index >= list.len()) {
                    return false;
                }
                for (index, new) in changed {
                    list[index] = new;
                }
            }
            Self::Splice { front, back, new } => {
                let Some(end) = list.len().checked_sub(back).filter(|end| front <= *end) else {
                    return false;
                };
                list.splice(front..end, new);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn a_patch_turns_the_old_list_into_the_new_one(old in vec(0..4_u8, 0..12), new in vec(0..4_u8, 0..12)) {
            let patch = Patch::diff(&old, &new);
            prop_assert_eq!(patch.is_none(), old == new);
            let mut list = old;
            if let Some(patch) = patch {
                prop_assert!(patch.apply(&mut list));
            }
            prop_assert_eq!(list, new);
        }

        #[test]
        fn a_patch_that_does_not_fit_does_nothing(list in vec(0..4_u8, 0..4), index in 4..9_usize, front in 0..9_usize) {
            let mut same = list.clone();
            prop_assert!(!Patch::Replace(vec![(index, 1)]).apply(&mut same));
            let back = (list.len() + 1).saturating_sub(front);
            for back in [back, usize::MAX] {
                let fits = Patch::Splice { front, back, new: vec![1] }.apply(&mut same);
                prop_assert!(!fits);
            }
            prop_assert_eq!(same, list);
        }
    }

    #[test]
    fn the_names_in_a_recording_stay() {
        let json = |patch: &Patch<u8>| serde_json::to_string(patch).expect("JSON");
        assert_eq!(json(&Patch::Replace(vec![(1, 2)])), r#"{"at":[[1,2]]}"#);
        let splice = Patch::Splice {
            front: 1,
            back: 2,
            new: vec![3],
        };
        assert_eq!(json(&splice), r#"{"between":{"front":1,"back":2,"new":[3]}}"#);
    }

    #[test]
    fn a_small_change_is_a_small_patch() {
        let old: Vec<u32> = (0..1000).collect();
        let mut new = old.clone();
        new.remove(500);
        let Some(Patch::Splice { front, back, new }) = Patch::diff(&old, &new) else {
            panic!("the lengths differ")
        };
        assert_eq!((front, back, new), (500, 499, vec![]));
    }
}
