//! What was measured, and on what.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tracer_lab::packages::Tree;
use tracer_lab::protocol::{Beside, Measurement, ProgramCost};
use tracer_lab::vm::qemu::Qemu;

use crate::workspace;

/// The file with the committed figures.
const FILE: &str = "bench.json";

/// The figures of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Results {
    /// The command line.
    pub(super) command: String,
    /// The date in UTC.
    pub(super) date: String,
    /// The machine.
    pub(super) facts: Facts,
    /// The guest's rows, in the order of their first measurement.
    pub(super) rows: Vec<Row>,
    /// Runs and cost of each BPF program.
    pub(super) programs: Vec<ProgramCost>,
    /// The recording that the host read.
    #[serde(default)]
    pub(super) host_source: String,
    /// The host's rows.
    pub(super) host: Vec<HostRow>,
    /// What could not be measured, and why.
    pub(super) misses: Vec<String>,
}

/// The machine and the versions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Facts {
    /// The commit that was measured, with a mark if files had changed since.
    #[serde(default)]
    pub(super) commit: String,
    /// The guest's kernel.
    pub(super) kernel: String,
    /// The QEMU that runs it.
    pub(super) qemu: String,
    /// pwru's version; empty if it was not measured.
    pub(super) pwru: String,
    /// The host's processor and their number.
    pub(super) processor: String,
    /// The host's kernel.
    pub(super) host_kernel: String,
}

/// One row of the guest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    /// Its name.
    pub(super) name: String,
    /// Its samples: instructions per operation.
    pub(super) beside: BTreeMap<Beside, Vec<f64>>,
}

/// One row of the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HostRow {
    /// Its name.
    pub(super) name: String,
    /// Its value.
    pub(super) value: f64,
    /// The unit.
    pub(super) unit: String,
}

impl Facts {
    /// Reads the facts of this machine.
    pub(super) fn of_machine(qemu: &Qemu, kernel: &str, pwru: Option<&Tree>) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.unwrap_or_default().trim_start_matches([' ', '\t', ':']);
        let count = cpuinfo
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count();
        let host_kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let pwru = pwru.and_then(|tree| tree.version_of("pwru"));
        let commit = Command::new("git")
            .args(["describe", "--always", "--dirty", "--exclude=*"])
            .current_dir(workspace::root())
            .output();
        let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Self {
            commit: commit.unwrap_or_default(),
            kernel: kernel.to_owned(),
            qemu: qemu.version().unwrap_or_else(|error| format!("{error:#}")),
            pwru: pwru.map(ToString::to_string).unwrap_or_default(),
            processor: format!("{count} x {model}"),
            host_kernel: host_kernel.trim().to_owned(),
        }
    }
}

impl Results {
    /// The committed figures.
    pub(super) fn committed() -> Result<Self> {
        let path = workspace::root().join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))
    }

    /// Writes them to be committed.
    pub(super) fn save(&self) -> Result<()> {
        let path = workspace::root().join(FILE);
        let text = serde_json::to_string_pretty(self).context("cannot serialize the figures")?;
        fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    /// Adds samples.
    pub(super) fn add(&mut self, measurement: Measurement) {
        let Measurement { row, beside, samples } = measurement;
        let nth = self.rows.iter().position(|known| known.name == row);
        let nth = nth.unwrap_or_else(|| {
            self.rows.push(Row {
                name: row,
                beside: BTreeMap::new(),
            });
            self.rows.len() - 1
        });
        // An instruction more or less says nothing, and the file is read by people too.
        let samples = samples.into_iter().map(f64::round);
        self.rows[nth].beside.entry(beside).or_default().extend(samples);
    }

    /// Notes what could not be measured.
    pub(super) fn miss(&mut self, what: String) {
        eprintln!("  Missed  {what}");
        self.misses.push(what);
    }

    /// The row of this name.
    pub(super) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }
}

impl Row {
    /// The median beside this program.
    pub(super) fn median(&self, beside: Beside) -> Option<f64> {
        self.beside.get(&beside).and_then(|samples| median(samples))
    }

    /// The median beside this program, relative to nothing.
    pub(super) fn ratio(&self, beside: Beside) -> Option<f64> {
        Some(self.median(beside)? / self.median(Beside::Nothing)?)
    }
}

/// The date in UTC.
pub(super) fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// The median; `None` without samples.
pub(super) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn samples_of_both_visits_are_joined() {
        let mut results = Results::default();
        for (beside, value) in [
            (Beside::Nothing, 10.0),
            (Beside::Live, 20.0),
            (Beside::Nothing, 12.0),
        ] {
            results.add(Measurement {
                row: "row".to_owned(),
                beside,
                samples: vec![value],
            });
        }
        let row = results.row("row").unwrap();
        assert_eq!(row.median(Beside::Nothing), Some(11.0));
        assert_eq!(row.ratio(Beside::Live), Some(20.0 / 11.0));
        assert_eq!(row.ratio(Beside::Pwru), None);
    }
}
