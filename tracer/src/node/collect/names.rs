//! When the names of services are read again.

use std::time::{Duration, Instant};

use crate::node::max_age::MAX_AGE;

/// Names older than this are read again. For a flow whose service has no name, [`MAX_AGE`] applies.
const NAMES_MAX_AGE: Duration = Duration::from_secs(10);
/// Reading names takes at most this part of the time: 1/100. Where rules translate but none was found, they are new: 1/10.
const NAMES_SHARE: u32 = 100;
const NEW_NAMES_SHARE: u32 = 10;

/// When the names of services were read.
#[derive(Debug)]
pub(super) struct NameReading {
    at: Instant,
    /// How long reading took.
    cost: Duration,
    /// Whether there were any.
    found_any: bool,
}

impl NameReading {
    /// A reading that began at this time and has just ended.
    pub(super) fn new(begun: Instant, found_any: bool) -> Self {
        Self {
            at: Instant::now(),
            cost: begun.elapsed(),
            found_any,
        }
    }

    /// Whether names must be read again for a flow, and a rule translated it (`by_rule`).
    pub(super) fn is_due(&self, has_name: bool, by_rule: bool) -> bool {
        let (wait, share) = match (has_name, self.found_any, by_rule) {
            (false, false, true) => (MAX_AGE, NEW_NAMES_SHARE),
            (false, true, _) => (MAX_AGE, NAMES_SHARE),
            _ => (NAMES_MAX_AGE, NAMES_SHARE),
        };
        self.at.elapsed() > wait.max(self.cost * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_at_once_after_a_switch_to_a_mode_with_rules() {
        let reading = |found_any, seconds| NameReading {
            at: Instant::now()
                .checked_sub(Duration::from_secs(seconds))
                .expect("the machine has been up longer"),
            cost: Duration::from_millis(10),
            found_any,
        };
        assert!(!reading(false, 5).is_due(false, false), "IPVS has no names");
        assert!(reading(false, 2).is_due(false, true), "a rule translated");
        assert!(reading(true, 2).is_due(false, true), "a new service");
        assert!(!reading(true, 5).is_due(true, true), "known");
    }
}
