//! The settings of IPVS that decide about old entries, as their files gave them over time.
//!
//! Where the kernel's own memory tells them (BTF for modules, 5.11 and later), a record has them as they were when the SYN
//! came, and nothing here is needed. Elsewhere their files are read soon after, with each such SYN, and now and then from the
//! first one on: a setting that has changed between the reading before the SYN and the one after it is not known.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A reading tells of a moment before it only if no more than this has passed since: nanoseconds.
const SOON_NS: u64 = 1_000_000_000;
/// So many changes are remembered.
const MOST: usize = 64;

/// What the files said; `None` where one could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    /// `net.ipv4.vs.conn_reuse_mode`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conn_reuse_mode: Option<i64>,
    /// `net.ipv4.vs.expire_nodest_conn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_nodest_conn: Option<i64>,
}

impl Values {
    /// What both say.
    fn common(self, other: Self) -> Self {
        let same = |one: Option<i64>, other| one.filter(|_| one == other);
        Self {
            conn_reuse_mode: same(self.conn_reuse_mode, other.conn_reuse_mode),
            expire_nodest_conn: same(self.expire_nodest_conn, other.expire_nodest_conn),
        }
    }
}

/// Readings with the same result, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Period {
    /// The first of them, monotonic nanoseconds.
    first_ns: u64,
    /// The last of them.
    last_ns: u64,
    values: Values,
}

/// See the module. The oldest reading comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IpvsSettings {
    periods: VecDeque<Period>,
}

impl IpvsSettings {
    /// Takes note of what the files said at `at_ns`, monotonic nanoseconds. Was it something else than before?
    pub fn add(&mut self, at_ns: u64, values: Values) -> bool {
        if let Some(last) = self.periods.back_mut().filter(|last| last.values == values) {
            last.last_ns = last.last_ns.max(at_ns);
            return false;
        }
        self.periods.push_back(Period {
            first_ns: at_ns,
            last_ns: at_ns,
            values,
        });
        if self.periods.len() > MOST {
            self.periods.pop_front();
        }
        true
    }

    /// What they were at `at_ns`: what the next reading said, as far as the one before it said the same.
    #[must_use]
    pub fn at(&self, at_ns: u64) -> Values {
        let mut before = None;
        for period in &self.periods {
            if period.last_ns >= at_ns {
                return match before {
                    _ if period.first_ns <= at_ns => period.values,
                    _ if period.first_ns - at_ns > SOON_NS => Values::default(),
                    Some(before) => period.values.common(before),
                    None => period.values,
                };
            }
            before = Some(period.values);
        }
        Values::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn values(conn_reuse_mode: i64, expire_nodest_conn: i64) -> Values {
        Values {
            conn_reuse_mode: Some(conn_reuse_mode),
            expire_nodest_conn: Some(expire_nodest_conn),
        }
    }

    #[test]
    fn a_reading_tells_of_the_moment_before_it() {
        let mut settings = IpvsSettings::default();
        assert_eq!(settings.at(5), Values::default());
        settings.add(2_000 * MS, values(1, 1));
        assert_eq!(settings.at(1_900 * MS), values(1, 1));
        assert_eq!(settings.at(900 * MS), Values::default());
        // Nobody has looked since.
        assert_eq!(settings.at(2_001 * MS), Values::default());
    }

    #[test]
    fn what_has_changed_in_between_is_not_known() {
        let mut settings = IpvsSettings::default();
        for (at, value) in [(1_000, 1), (1_100, 1), (1_500, 0), (1_600, 0)] {
            settings.add(at * MS, values(1, value));
        }
        assert_eq!(settings.at(1_050 * MS), values(1, 1));
        assert_eq!(settings.at(1_550 * MS), values(1, 0));
        let between = settings.at(1_450 * MS);
        assert_eq!(
            (between.conn_reuse_mode, between.expire_nodest_conn),
            (Some(1), None)
        );
    }

    #[test]
    fn few_changes_are_remembered() {
        let mut settings = IpvsSettings::default();
        for at in 0..1_000 {
            settings.add(at, values(0, i64::try_from(at % 2).expect("a bit")));
        }
        assert_eq!(settings.periods.len(), MOST);
        assert_eq!(settings.at(999), values(0, 1));
    }
}
