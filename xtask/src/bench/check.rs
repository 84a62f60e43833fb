//! The comparison with the committed figures.

use tracer_lab::protocol::Beside;

use super::results::Results;
use super::table::number;

/// How much worse a figure may be, as a factor.
const TOLERANCE: f64 = 1.05;

/// The programs whose cost is ours.
const OURS: [Beside; 5] = [
    Beside::LightKernel,
    Beside::Light,
    Beside::Kernel,
    Beside::Record,
    Beside::Live,
];

/// The outcome of a comparison.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// The number of figures that both runs have.
    pub(super) compared: usize,
    /// One sentence per regression.
    pub(super) regressions: Vec<String>,
}

/// Compares instruction counts beside tracer. Traffic is compared relative to the same traffic beside nothing, so that a
/// new kernel or QEMU is no regression of tracer's.
pub(super) fn compare(committed: &Results, now: &Results) -> Comparison {
    let mut comparison = Comparison::default();
    for row in &now.rows {
        let Some(before) = committed.row(&row.name) else {
            continue;
        };
        for beside in OURS {
            let relative = before.ratio(beside).zip(row.ratio(beside));
            let (was, is, unit) = match relative {
                Some((was, is)) => (was * 100.0, is * 100.0, " % of nothing"),
                None => match before.median(beside).zip(row.median(beside)) {
                    Some((was, is)) => (was, is, " instructions"),
                    None => continue,
                },
            };
            comparison.compared += 1;
            if is > was * TOLERANCE {
                comparison.regressions.push(format!(
                    "{}, beside {}: {}{unit}, committed {}{unit}",
                    row.name,
                    super::table::title(beside),
                    number(is),
                    number(was)
                ));
            }
        }
    }
    comparison
}

#[cfg(test)]
mod tests {
    use tracer_lab::protocol::Measurement;

    use super::*;

    fn results(nothing: f64, live: f64, ready: f64) -> Results {
        let mut results = Results::default();
        for (row, beside, value) in [
            ("trip", Beside::Nothing, nothing),
            ("trip", Beside::Live, live),
            ("ready", Beside::Live, ready),
        ] {
            results.add(Measurement {
                row: row.to_owned(),
                beside,
                samples: vec![value],
            });
        }
        results
    }

    #[test]
    fn only_what_became_worse_is_a_regression() {
        let committed = results(1000.0, 1500.0, 1e9);
        let regressions = |now: &Results| compare(&committed, now).regressions;
        assert!(regressions(&results(1000.0, 1570.0, 1.04e9)).is_empty());
        assert_eq!(compare(&committed, &committed).compared, 2);
        // Another kernel costs more by itself.
        assert!(regressions(&results(2000.0, 3000.0, 1e9)).is_empty());
        let worse = regressions(&results(1000.0, 1600.0, 1e9));
        assert_eq!(
            worse,
            ["trip, beside full: 160 % of nothing, committed 150 % of nothing"]
        );
        assert_eq!(regressions(&results(1000.0, 1500.0, 1.1e9)).len(), 1);
    }
}
