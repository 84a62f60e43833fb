//! Runs and cost of each BPF program, as the kernel counts them with `kernel.bpf_stats_enabled`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::workload::Workloads;
use crate::guest::port::Port;
use crate::guest::{sysctl, tool};
use crate::protocol::{Message, ProgramCost};

const STATS: &str = "kernel.bpf_stats_enabled";

/// Runs and nanoseconds.
type Counts = (f64, f64);

/// Measures one batch of each workload and sends the cost of each program that ran.
pub(super) fn measure(workloads: &mut Workloads, port: &Port) -> Result<()> {
    sysctl::write(STATS, 1)?;
    let measured = measure_all(workloads, port);
    sysctl::write(STATS, 0)?;
    measured
}

fn measure_all(workloads: &mut Workloads, port: &Port) -> Result<()> {
    for nth in 0..workloads.all.len() {
        let workload = &workloads.all[nth];
        let (operations, warm_up) = (workload.operations(false), workload.warm_up());
        let row = workload.row.clone();
        let mut client = workloads.client(nth, operations + warm_up)?;
        client.generate(warm_up)?;
        let before = counts()?;
        client.generate(operations)?;
        for (program, (runs, time)) in counts()? {
            let (runs_before, time_before) = before.get(&program).copied().unwrap_or_default();
            let (runs, time) = (runs - runs_before, time - time_before);
            if runs > 0.0 {
                port.send(&Message::ProgramCost(ProgramCost {
                    row: row.clone(),
                    program,
                    runs: runs / f64::from(operations),
                    cost: time / runs,
                }));
            }
        }
    }
    Ok(())
}

/// The counts of all programs by name.
fn counts() -> Result<BTreeMap<String, Counts>> {
    let printed = tool::run("bpftool --json prog show")?;
    let programs: Vec<Value> = serde_json::from_str(&printed).context("cannot parse bpftool's output")?;
    let mut all: BTreeMap<String, Counts> = BTreeMap::new();
    for program in programs {
        let name = program["name"].as_str().unwrap_or("unnamed").to_owned();
        let counts = all.entry(name).or_default();
        counts.0 += program["run_cnt"].as_f64().unwrap_or_default();
        counts.1 += program["run_time_ns"].as_f64().unwrap_or_default();
    }
    Ok(all)
}
