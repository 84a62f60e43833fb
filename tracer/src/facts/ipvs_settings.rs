//! Readings over time of the IPVS settings that decide about old connections.
//!
//! With BTF for modules (5.11 and later) a record has the settings as of the SYN, and these readings are not needed.
//! Otherwise the sysctls are read shortly after each SYN that meets an old connection, and from then on at intervals. A
//! setting that differs between the readings before and after a SYN is unknown.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How long before a reading its values are assumed to apply, nanoseconds.
const MAX_LAG_NS: u64 = 1_000_000_000;
/// How many changes are remembered.
const MAX_PERIODS: usize = 64;

/// The settings; `None` if one is unknown.
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
    /// The settings with the same value in both.
    fn common(self, other: Self) -> Self {
        let same = |one: Option<i64>, other| one.filter(|_| one == other);
        Self {
            conn_reuse_mode: same(self.conn_reuse_mode, other.conn_reuse_mode),
            expire_nodest_conn: same(self.expire_nodest_conn, other.expire_nodest_conn),
        }
    }
}

/// Consecutive readings with the same result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Period {
    /// Time of the first one, monotonic nanoseconds.
    first_ns: u64,
    /// Time of the last one.
    last_ns: u64,
    values: Values,
}

/// Readings of the settings, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IpvsSettings {
    periods: VecDeque<Period>,
}

impl IpvsSettings {
    /// Adds a reading at `at_ns`, monotonic nanoseconds. Returns whether it differs from the one before.
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
        if self.periods.len() > MAX_PERIODS {
            self.periods.pop_front();
        }
        true
    }

    /// The settings at `at_ns`, monotonic nanoseconds: those of the next reading, if the one before it had the same.
    #[must_use]
    pub fn at(&self, at_ns: u64) -> Values {
        let mut before = None;
        for period in &self.periods {
            if period.last_ns >= at_ns {
                return match before {
                    _ if period.first_ns <= at_ns => period.values,
                    _ if period.first_ns - at_ns > MAX_LAG_NS => Values::default(),
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
    fn a_reading_applies_shortly_before_it() {
        let mut settings = IpvsSettings::default();
        assert_eq!(settings.at(5), Values::default());
        settings.add(2_000 * MS, values(1, 1));
        assert_eq!(settings.at(1_900 * MS), values(1, 1));
        assert_eq!(settings.at(900 * MS), Values::default());
        // There is no later reading.
        assert_eq!(settings.at(2_001 * MS), Values::default());
    }

    #[test]
    fn a_setting_that_changed_between_two_readings_is_unknown() {
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
        assert_eq!(settings.periods.len(), MAX_PERIODS);
        assert_eq!(settings.at(999), values(0, 1));
    }
}
