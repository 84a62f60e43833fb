//! Measures what tracer costs: the same traffic beside nothing, beside tracer and beside pwru.
//!
//! The guest's clock counts instructions, and it has one CPU, so the time that a batch of operations takes is
//! the number of instructions that kernel, client, server and tracer executed for it. What tracer still has to
//! do after a batch is added to it. The order is balanced, in the manner of A B B A.

mod client;
mod measure;
mod program_costs;
mod programs;
mod server;
mod watcher;
mod workload;

use anyhow::Result;

use super::cancel::Cancel;
use super::leftovers::Inventory;
use super::port::Port;
use super::supervise;
use super::topology::Node;
use crate::protocol::{Bench, Job, Message};
use crate::scenario::Behaviour;
pub(super) use client::{NAME as CLIENT, run as generate};
use measure::Measure;
pub(super) use server::{NAME as SERVER, run as serve};
use workload::Workloads;

/// Measures on the topology of each scenario of the job. After a failure the rest is still measured.
pub(super) fn run(bench: Bench, job: &Job, port: &Port) {
    for name in &job.scenarios {
        port.send(&Message::Begin {
            scenario: name.clone(),
        });
        let outcome = on(name, bench, port);
        port.send(&Message::End {
            scenario: name.clone(),
            ok: outcome.is_ok(),
            why: outcome.err().map(|error| format!("{error:#}")),
        });
    }
}

fn on(name: &str, bench: Bench, port: &Port) -> Result<()> {
    let scenario = supervise::load(name)?;
    let before = Inventory::take()?;
    let cancel = Cancel::default();
    let mut node = Node::default();
    let measured = node.build(&scenario, &cancel).and_then(|()| {
        // The servers of the benchmarks take their place.
        for pod in &scenario.topology.pods {
            node.behave(&pod.name, Behaviour::NoListener)?;
        }
        let workloads = Workloads::new(&scenario, &node, bench.quick)?;
        Measure::new(bench, port, workloads).run()
    });
    let cleared = node.tear_down(&before, &cancel).into_iter().next();
    measured.and(cleared.map_or(Ok(()), Err))
}
