//! PID 1 of the guest: mounts file systems, loads modules, runs the scenarios of its job, powers off.
//!
//! The guest's first netns is the node. [`kube`] stands in for kube-proxy: it writes the sysctls, IP sets,
//! rules and virtual services that kube-proxy writes. Clients and pods are separate netns, connected to the
//! node by veths. Everything is built with an administrator's usual tools, and the traffic is TCP of the
//! kernel's own stack. Each scenario starts with an empty node and must leave an empty node behind.

mod abridge;
mod bench;
mod boot;
mod cancel;
mod client;
mod cluster;
mod extension;
mod flood;
mod hold;
mod kube;
mod leftovers;
mod modules;
mod neighbour;
mod netns;
mod node_state;
mod nodes;
mod pod;
mod port;
mod process;
mod process_table;
mod recording;
mod restore;
mod scenario_run;
mod screen;
mod screen_session;
mod segment;
mod sequence;
mod server;
mod shell;
mod strays;
mod supervise;
mod sysctl;
mod tool;
mod topology;
mod tracer;
mod usage;

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result, anyhow};

use crate::protocol::{JOB_PATH, Job, Message};
use port::Port;

/// Runs the guest. It never returns: PID 1 must not exit.
pub fn main() -> ! {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    match name.rsplit('/').next() {
        Some("modprobe") => std::process::exit(modules::modprobe(arguments)),
        Some("kube-proxy") => {
            if let Err(error) = hold::ports(arguments) {
                eprintln!("kube-proxy: {error:#}");
            }
            std::process::exit(1);
        }
        Some(name @ bench::SERVER) => end(name, bench::serve(arguments)),
        Some(name @ bench::CLIENT) => end(name, bench::generate(arguments)),
        Some(name @ "syn-flood") => end(name, flood::syns(arguments)),
        Some(name @ "screen-session") => end(name, screen_session::run(arguments)),
        Some(name @ "netns") => end(name, netns::command(arguments)),
        Some(name @ "ipvs-entries") => end(name, flood::ipvs_entries(arguments)),
        _ => {}
    }
    if std::process::id() != 1 {
        eprintln!("lab-guest runs only as PID 1 of the lab's guest: it mounts, kills and powers off.");
        std::process::exit(2);
    }
    // If PID 1 panicked, the kernel would panic and hide our backtrace.
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(anyhow!("lab-guest panicked")));
    if let Err(error) = outcome {
        eprintln!("lab-guest: {error:#}");
    }
    boot::power_off()
}

/// Ends a program of the guest.
fn end(name: &str, result: Result<()>) -> ! {
    match result {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("{name}: {error:#}");
            std::process::exit(1)
        }
    }
}

fn run() -> Result<()> {
    boot::mount_all()?;
    let port = Port::open()?;
    let job = std::fs::read(JOB_PATH).with_context(|| format!("cannot read {JOB_PATH}"))?;
    let job: Job = serde_json::from_slice(&job).with_context(|| format!("cannot parse {JOB_PATH}"))?;
    modules::load(&job.modules)?;
    boot::prepare_node()?;
    port.send(&Message::Ready {
        release: sysctl::read("kernel.osrelease")?,
    });
    if let Some(bench) = job.bench {
        bench::run(bench, &job, &port);
    } else if let Some(terminal) = &job.screen {
        screen::show(&job, terminal, &port)?;
    } else {
        supervise::run_all(&job, &port);
    }
    port.send(&Message::Done);
    port.drain();
    Ok(())
}
