//! How long each part of a run takes, and the budget for all of it.

use std::fmt;
use std::time::Duration;

/// A run without `--full` stays below this on two idle cores, from an empty `target`. A slower machine may take longer: the
/// table then shows a warning, and nothing fails.
pub(super) const RUN_BUDGET: Duration = Duration::from_mins(30);

/// The part of [`RUN_BUDGET`] for scenarios, estimated, with two guests in parallel. A unit test of the selection enforces
/// it, so a scenario that does not fit fails without being run. Little of it is left: a new scenario takes about seven
/// seconds, so another must become shorter or `long`.
pub(super) const SCENARIO_BUDGET: Duration = Duration::from_mins(20);

/// How a part ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// Alone: its time is part of the total.
    Alone,
    /// In parallel with the scenarios, at idle priority.
    Parallel,
    /// One of the guests that ran in parallel.
    Guest,
}

/// The time of one part.
#[derive(Debug)]
struct Part {
    name: String,
    took: Duration,
    share: Share,
}

/// The times of all parts, in the order of the run.
#[derive(Debug, Default)]
pub(super) struct Timing {
    parts: Vec<Part>,
}

impl Timing {
    /// Adds a part.
    pub(super) fn add(&mut self, name: &str, took: Duration, share: Share) {
        self.parts.push(Part {
            name: name.to_owned(),
            took,
            share,
        });
    }

    /// Adds all parts of another timing.
    pub(super) fn extend(&mut self, other: Self) {
        self.parts.extend(other.parts);
    }

    /// The table, with the total and its budget, if there is one.
    pub(super) fn table(&self, total: Duration, budget: Option<Duration>) -> Table<'_> {
        Table {
            parts: &self.parts,
            total,
            budget,
        }
    }
}

/// Minutes by part, for printing.
#[derive(Debug)]
pub(super) struct Table<'a> {
    parts: &'a [Part],
    total: Duration,
    budget: Option<Duration>,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .parts
            .iter()
            .map(|part| part.name.chars().count() + indent(part.share).len())
            .max()
            .unwrap_or_default()
            .max(TOTAL.len());
        writeln!(f, "{:<width$}  minutes", "Part")?;
        for Part { name, took, share } in self.parts {
            let name = format!("{}{name}", indent(*share));
            let note = match share {
                Share::Alone => "",
                Share::Parallel => "  in parallel with the scenarios",
                Share::Guest => "  guest time",
            };
            writeln!(f, "{name:<width$}  {:7.1}{note}", minutes(*took))?;
        }
        writeln!(f, "{TOTAL:<width$}  {:7.1}", minutes(self.total))?;
        if let Some(budget) = self.budget.filter(|budget| self.total > *budget) {
            writeln!(
                f,
                "warning: over the budget of {:.0} minutes on two idle cores",
                minutes(budget)
            )?;
        }
        Ok(())
    }
}

const TOTAL: &str = "total";

fn indent(share: Share) -> &'static str {
    match share {
        Share::Alone | Share::Parallel => "",
        Share::Guest => "  ",
    }
}

/// A duration in minutes.
pub(super) fn minutes(time: Duration) -> f64 {
    time.as_secs_f64() / 60.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> Timing {
        let mut timing = Timing::default();
        timing.add("unit tests", Duration::from_secs(90), Share::Alone);
        timing.add("scenarios", Duration::from_mins(12), Share::Alone);
        timing.add("6.12, 20 scenarios", Duration::from_mins(4), Share::Guest);
        timing.add("lints", Duration::from_secs(63), Share::Parallel);
        timing
    }

    #[test]
    fn the_table_has_a_line_per_part_and_a_total() {
        let text = timing()
            .table(Duration::from_mins(14), Some(RUN_BUDGET))
            .to_string();
        assert_eq!(
            text,
            "Part                  minutes\n\
             unit tests                1.5\n\
             scenarios                12.0\n\
             \x20 6.12, 20 scenarios      4.0  guest time\n\
             lints                     1.1  in parallel with the scenarios\n\
             total                    14.0\n"
        );
    }

    #[test]
    fn a_run_over_budget_is_a_warning() {
        let timing = timing();
        let over = RUN_BUDGET + Duration::from_secs(1);
        let text = timing.table(over, Some(RUN_BUDGET)).to_string();
        assert!(
            text.ends_with("warning: over the budget of 30 minutes on two idle cores\n"),
            "{text}"
        );
        assert!(!timing.table(over, None).to_string().contains("warning"));
    }
}
