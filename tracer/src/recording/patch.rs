//! What has changed in a list: lists of rules are long, and little of them changes.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Patch<T> {
    /// These elements, by index, are others now.
    At(Vec<(usize, T)>),
    /// So many in front and at the back stay, and what is between them is this now.
    Between {
        /// Elements in front that stay.
        front: usize,
        /// Elements at the back that stay.
        back: usize,
        /// What is between them.
        new: Vec<T>,
    },
}

impl<T: Clone + PartialEq> Patch<T> {
    /// What makes `new` of `old`; `None` if they are the same.
    #[must_use]
    pub fn between(old: &[T], new: &[T]) -> Option<Self> {
        if old == new {
            return None;
        }
        let pairs = || old.iter().zip(new);
        if old.len() == new.len() {
            let changed = pairs().zip(0..).filter(|((old, new), _)| old != new);
            return Some(Self::At(
                changed.map(|((_, new), index)| (index, new.clone())).collect(),
            ));
        }
        let front = pairs().take_while(|(old, new)| old == new).count();
        let rest = old.len().min(new.len()) - front;
        let from_behind = old.iter().rev().zip(new.iter().rev()).take(rest);
        let back = from_behind.take_while(|(old, new)| old == new).count();
        Some(Self::Between {
            front,
            back,
            new: new[front..new.len() - back].to_vec(),
        })
    }

    /// Makes the new list of the old one; `false` if it cannot be of this one, which then stays as it is.
    pub fn apply(self, list: &mut Vec<T>) -> bool {
        match self {
            Self::At(changed) => {
                if changed.iter().any(|(index, _)| *index >= list.len()) {
                    return false;
                }
                for (index, new) in changed {
                    list[index] = new;
                }
            }
            Self::Between { front, back, new } => {
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
        fn a_patch_makes_the_new_list_of_the_old(old in vec(0..4_u8, 0..12), new in vec(0..4_u8, 0..12)) {
            let patch = Patch::between(&old, &new);
            prop_assert_eq!(patch.is_none(), old == new);
            let mut list = old;
            if let Some(patch) = patch {
                prop_assert!(patch.apply(&mut list));
            }
            prop_assert_eq!(list, new);
        }

        #[test]
        fn a_patch_for_another_list_does_nothing(list in vec(0..4_u8, 0..4), index in 4..9_usize, front in 0..9_usize) {
            let mut same = list.clone();
            prop_assert!(!Patch::At(vec![(index, 1)]).apply(&mut same));
            let back = (list.len() + 1).saturating_sub(front);
            for back in [back, usize::MAX] {
                let fits = Patch::Between { front, back, new: vec![1] }.apply(&mut same);
                prop_assert!(!fits);
            }
            prop_assert_eq!(same, list);
        }
    }

    #[test]
    fn little_is_written_of_a_small_change() {
        let old: Vec<u32> = (0..1000).collect();
        let mut new = old.clone();
        new.remove(500);
        let Some(Patch::Between { front, back, new }) = Patch::between(&old, &new) else {
            panic!("another length")
        };
        assert_eq!((front, back, new), (500, 499, vec![]));
    }
}
