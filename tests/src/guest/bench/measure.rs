//! The order of the measurements on one topology.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::program_costs;
use super::watcher::{RECORDING, Watcher};
use super::workload::Workloads;
use crate::guest::port::Port;
use crate::guest::recording;
use crate::protocol::{Bench, Beside, Measurement, Message};

/// Measures all workloads beside all programs.
pub(super) struct Measure<'a> {
    bench: Bench,
    port: &'a Port,
    workloads: Workloads,
}

impl<'a> Measure<'a> {
    pub(super) const fn new(bench: Bench, port: &'a Port, workloads: Workloads) -> Self {
        Self {
            bench,
            port,
            workloads,
        }
    }

    /// Measures beside nothing before, between and after the programs.
    pub(super) fn run(&mut self) -> Result<()> {
        let mut programs = vec![Beside::Light, Beside::Live];
        if !self.bench.quick {
            programs.push(Beside::Record);
        }
        if self.bench.pwru {
            programs.push(Beside::Pwru);
        }
        self.visit(Beside::Nothing, None)?;
        for program in programs {
            match self
                .beside(program)
                .with_context(|| format!("beside {program:?}"))
            {
                // Whether pwru runs on this kernel is pwru's affair.
                Err(error) if program == Beside::Pwru => self.port.note(format!("not measured {error:#}")),
                outcome => outcome?,
            }
            self.visit(Beside::Nothing, None)?;
        }
        Ok(())
    }

    fn beside(&mut self, program: Beside) -> Result<()> {
        self.port.note(format!("{program:?}"));
        let watcher = Watcher::start(program)?;
        self.send("ready", program, vec![watcher.ready]);
        self.send("idle, per second", program, vec![watcher.idle * 1e9]);
        self.visit(program, Some(&watcher))?;
        if let Some(kernel) = program.kernel_part() {
            self.visit(kernel, Some(&watcher))?;
            if program == Beside::Live {
                watcher.pause()?;
                program_costs::measure(&mut self.workloads, self.port)?;
                watcher.resume()?;
                watcher.catch_up()?;
            }
            self.visit(kernel, Some(&watcher))?;
        }
        if program != Beside::Pwru {
            self.visit(program, Some(&watcher))?;
        }
        let stopped = watcher.stop()?;
        self.send("stop", program, vec![stopped]);
        if program == Beside::Pwru {
            return Ok(());
        }
        let last = Watcher::last_line(program);
        self.port.note(last.clone());
        check_loss(program, &last)?;
        if program == Beside::Record && self.workloads.all.len() > 1 {
            // The host measures with it.
            recording::send(RECORDING, self.port)?;
        }
        Ok(())
    }

    /// Measures each workload beside a program that runs, or beside its part in the kernel.
    fn visit(&mut self, beside: Beside, watcher: Option<&Watcher>) -> Result<()> {
        let batches = if self.bench.quick || beside == Beside::Pwru {
            3
        } else {
            5
        };
        for nth in 0..self.workloads.all.len() {
            let workload = &self.workloads.all[nth];
            let row = workload.row.clone();
            let operations = workload.operations(beside == Beside::Pwru);
            let warm_up = workload.warm_up();
            let mut client = self.workloads.client(nth, warm_up + batches * operations)?;
            client.generate(warm_up)?;
            if let Some(watcher) = watcher {
                watcher.catch_up()?;
            }
            let mut samples = Vec::new();
            if let Some(watcher) = watcher.filter(|_| beside.is_kernel_part()) {
                // The ring buffer has room for the records of all batches.
                watcher.pause()?;
            }
            for _ in 0..batches {
                let mut took = client.generate(operations)?;
                if let Some(watcher) = watcher.filter(|_| !beside.is_kernel_part()) {
                    took += watcher.catch_up()?;
                }
                samples.push(took / f64::from(operations));
            }
            if let Some(watcher) = watcher.filter(|_| beside.is_kernel_part()) {
                watcher.resume()?;
                watcher.catch_up()?;
            }
            self.send(&row, beside, samples);
        }
        Ok(())
    }

    fn send(&self, row: &str, beside: Beside, samples: Vec<f64>) {
        self.port.send(&Message::Measurement(Measurement {
            row: row.to_owned(),
            beside,
            samples,
        }));
    }
}

/// Checks that no record was lost: what is lost costs less.
fn check_loss(program: Beside, last_line: &str) -> Result<()> {
    let lost = match program {
        Beside::Light | Beside::Live => {
            let end: Value = serde_json::from_str(last_line).context("cannot parse its last line")?;
            end["lost"] != 0
        }
        Beside::Record => last_line.contains(" lost"),
        _ => false,
    };
    ensure!(!lost, "records were lost: {last_line}");
    Ok(())
}
