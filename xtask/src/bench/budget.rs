//! The budgets of the design, and whether they are met.

use tracer_lab::protocol::Beside;

use super::results::Results;

/// One budget.
#[derive(Debug)]
pub(super) struct Budget {
    /// Its name.
    pub(super) name: String,
    /// The limit.
    pub(super) must: String,
    /// The figure.
    pub(super) measured: String,
    /// Whether the figure is within the limit.
    pub(super) is_met: bool,
}

/// The least connection rate that must be kept, in percent.
const KEPT: [(&str, Beside, f64); 2] = [
    (
        "light: IPVS connection rate kept, reader on the same CPU",
        Beside::Light,
        80.0,
    ),
    (
        "light: IPVS connection rate kept, kernel part alone",
        Beside::LightKernel,
        92.0,
    ),
];

/// What traffic may cost more, in percent.
const ADDED: [(&str, f64); 6] = [
    ("IPVS: TCP round trip", 4.0),
    ("IPVS: KiB of bulk data", 4.0),
    ("pod to pod: TCP round trip", 3.0),
    ("pod to pod: UDP round trip", 3.0),
    ("node to pod: TCP round trip", 3.0),
    ("loopback: TCP round trip", 10.0),
];

/// The most that getting ready may take of pwru's time, in percent.
const READY: f64 = 20.0;

/// All budgets for which there are figures.
pub(super) fn all(results: &Results) -> Vec<Budget> {
    let mut budgets = Vec::new();
    for (name, beside, must) in KEPT {
        let row = results.row("IPVS: new connection");
        if let Some(ratio) = row.and_then(|row| row.ratio(beside)) {
            let kept = 100.0 / ratio;
            budgets.push(Budget {
                name: name.to_owned(),
                must: format!("{must:.0} %"),
                measured: format!("{kept:.0} %"),
                is_met: kept >= must,
            });
        }
    }
    for (name, must) in ADDED {
        let row = results.row(name);
        if let Some(ratio) = row.and_then(|row| row.ratio(Beside::Light)) {
            let added = (ratio - 1.0) * 100.0;
            budgets.push(Budget {
                name: format!("light: {name}"),
                must: format!("+{must:.0} %"),
                measured: format!("{added:+.1} %"),
                is_met: added <= must,
            });
        }
    }
    let ready = results.row("ready");
    if let Some((ours, pwru)) = ready.and_then(|row| row.median(Beside::Light).zip(row.median(Beside::Pwru)))
    {
        let percent = 100.0 * ours / pwru;
        budgets.push(Budget {
            name: "light: ready, of pwru's time".to_owned(),
            must: format!("{READY:.0} %"),
            measured: format!("{percent:.0} %"),
            is_met: percent <= READY,
        });
    }
    budgets
}

#[cfg(test)]
mod tests {
    use tracer_lab::protocol::Measurement;

    use super::*;

    #[test]
    fn budgets_are_met_or_missed() {
        let mut results = Results::default();
        for (row, beside, value) in [
            ("IPVS: new connection", Beside::Nothing, 100.0),
            ("IPVS: new connection", Beside::Light, 120.0),
            ("loopback: TCP round trip", Beside::Nothing, 100.0),
            ("loopback: TCP round trip", Beside::Light, 156.0),
        ] {
            results.add(Measurement {
                row: row.to_owned(),
                beside,
                samples: vec![value],
            });
        }
        let all = all(&results);
        let verdicts: Vec<_> = all
            .iter()
            .map(|budget| (budget.measured.as_str(), budget.is_met))
            .collect();
        assert_eq!(verdicts, [("83 %", true), ("+56.0 %", false)]);
    }
}
