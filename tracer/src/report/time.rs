//! Times and durations in words.

/// The unit of all durations in a table or a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
}

impl TimeUnit {
    /// The unit that fits the longest of these durations, in milliseconds.
    #[must_use]
    pub fn of(durations_ms: impl IntoIterator<Item = f64>) -> Self {
        match durations_ms.into_iter().fold(0.0, f64::max) {
            ..1_000.0 => Self::Milliseconds,
            ..600_000.0 => Self::Seconds,
            _ => Self::Minutes,
        }
    }

    /// A duration in milliseconds, in this unit.
    #[must_use]
    pub fn format(self, ms: f64) -> String {
        let (value, name) = match self {
            Self::Milliseconds => return format!("{ms:.0} ms"),
            Self::Seconds => (ms / 1_000.0, "s"),
            Self::Minutes => (ms / 60_000.0, "min"),
        };
        match value {
            ..=0.0 => format!("0 {name}"),
            ..0.05 => format!("<0.1 {name}"),
            _ => format!("{value:.1} {name}"),
        }
    }
}

/// An RFC 3339 time without its fraction of a second.
#[must_use]
pub fn moment(rfc3339: &str) -> String {
    match rfc3339.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => rfc3339.to_owned(),
    }
}

/// The time of day of an RFC 3339 time.
#[must_use]
pub fn clock(rfc3339: &str) -> &str {
    rfc3339.get(11..19).unwrap_or(rfc3339)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_a_table_share_the_unit_of_the_longest() {
        let format = |durations: &[f64]| -> Vec<String> {
            let unit = TimeUnit::of(durations.iter().copied());
            durations.iter().map(|&ms| unit.format(ms)).collect()
        };
        assert_eq!(format(&[999.0, 0.0]), ["999 ms", "0 ms"]);
        assert_eq!(format(&[20_200.0, 4.0, 0.0]), ["20.2 s", "<0.1 s", "0 s"]);
        assert_eq!(format(&[660_000.0, 5_100.0]), ["11.0 min", "0.1 min"]);
        assert_eq!(TimeUnit::of([]), TimeUnit::Milliseconds);
    }
}
