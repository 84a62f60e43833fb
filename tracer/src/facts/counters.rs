//! Counters of the kernel by name, and how they moved between two readings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Values of counters by name, for example `TcpExt.ListenOverflows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Values(BTreeMap<String, u64>);

/// Two readings of the same counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// The first reading.
    pub before: Values,
    /// The second one.
    pub after: Values,
}

impl Counters {
    /// The value at the second reading.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.after.0.get(name).copied()
    }

    /// By how much it grew between the readings; `None` if this kernel lacks it.
    #[must_use]
    pub fn growth(&self, name: &str) -> Option<u64> {
        let before = self.before.0.get(name)?;
        Some(self.get(name)?.saturating_sub(*before))
    }
}

impl Values {
    /// Adds to the value of a counter.
    pub fn add(&mut self, name: String, value: u64) {
        let sum = self.0.entry(name).or_default();
        *sum = sum.wrapping_add(value);
    }

    /// Adds the counters in the form of `/proc/net/netstat`: for each group a line with names and one with values, both
    /// starting with the group's name (`net/ipv4/proc.c`).
    pub fn add_groups(&mut self, text: &str) {
        let mut lines = text.lines();
        while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            let Some((group, names)) = names.split_once(':') else {
                return;
            };
            let values = values.split_once(':').map_or("", |(_, values)| values);
            for (name, value) in names
                .split_ascii_whitespace()
                .zip(values.split_ascii_whitespace())
            {
                // Some are signed settings, which are no counters.
                if let Ok(value) = value.parse() {
                    self.add(format!("{group}.{name}"), value);
                }
            }
        }
    }

    /// Adds the counters in the form of `/proc/net/stat/nf_conntrack`: a line of names, and a line of hexadecimal values for each
    /// CPU. The number of entries is the same on each line.
    pub fn add_per_cpu(&mut self, group: &str, text: &str) {
        let mut lines = text.lines();
        let names: Vec<&str> = lines
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .collect();
        for (cpu, line) in lines.enumerate() {
            for (name, value) in names.iter().zip(line.split_ascii_whitespace()) {
                let Ok(value) = u64::from_str_radix(value, 16) else {
                    continue;
                };
                if *name != "entries" || cpu == 0 {
                    self.add(format!("{group}.{name}"), value);
                }
            }
        }
    }

    /// Adds the counters of `/proc/net/softnet_stat`: a line for each CPU, without names (`softnet_seq_show`).
    pub fn add_softnet(&mut self, text: &str) {
        for line in text.lines() {
            for (name, value) in ["processed", "dropped", "time_squeeze"]
                .iter()
                .zip(line.split_ascii_whitespace())
            {
                if let Ok(value) = u64::from_str_radix(value, 16) {
                    self.add(format!("softnet.{name}"), value);
                }
            }
        }
    }

    /// Keeps only these counters.
    pub fn keep(&mut self, wanted: &[&str]) {
        self.0.retain(|name, _| wanted.contains(&name.as_str()));
    }
}

impl FromIterator<(String, u64)> for Values {
    fn from_iter<T: IntoIterator<Item = (String, u64)>>(counters: T) -> Self {
        Self(counters.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_names_and_values() {
        let mut values = Values::default();
        values.add_groups("TcpExt: A B\nTcpExt: 1 2\nIpExt: C\nIpExt: 3\nTcp: MaxConn\nTcp: -1\n");
        let counters = Counters {
            before: Values::default(),
            after: values,
        };
        assert_eq!(counters.get("TcpExt.B"), Some(2));
        assert_eq!(counters.get("IpExt.C"), Some(3));
        assert_eq!(counters.get("Tcp.MaxConn"), None);
        assert_eq!(counters.growth("TcpExt.B"), None);
    }

    #[test]
    fn values_per_cpu_are_summed_except_entries() {
        let text = "entries  searched drop\n00000010 00000001 00000002\n00000010 00000000 0000000f\n";
        let mut values = Values::default();
        values.add_per_cpu("conntrack", text);
        let counters = Counters {
            before: Values::from_iter([("conntrack.drop".to_owned(), 16)]),
            after: values,
        };
        assert_eq!(counters.get("conntrack.entries"), Some(16));
        assert_eq!(counters.growth("conntrack.drop"), Some(1));
    }

    #[test]
    fn softnet_has_no_names() {
        let mut values = Values::default();
        values.add_softnet("00000010 00000001 00000002 0\n00000010 00000001 00000002 0\n");
        values.keep(&["softnet.dropped"]);
        assert_eq!(values, Values::from_iter([("softnet.dropped".to_owned(), 2)]));
    }
}
