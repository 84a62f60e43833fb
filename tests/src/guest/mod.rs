//! PID 1 of the guest: mounts, loads modules, plays the scenarios of its job, powers off.
//!
//! The guest's first netns is the node. kube-proxy's part is played by [`kube`], which writes the sysctls, IP sets,
//! rules and virtual servers that kube-proxy writes in IPVS mode; clients and pods are netns of their own, joined
//! to the node by veths. All of it is built with the same tools that an administrator would use, and the traffic
//! is TCP by the kernel's own stack. Each scenario begins with an empty node and must leave one behind.

mod abridge;
mod boot;
mod cancel;
mod client;
mod extension;
mod kube;
mod leftovers;
mod modules;
mod neighbour;
mod netns;
mod nodes;
mod play;
mod pod;
mod port;
mod process;
mod process_table;
mod recording;
mod restore;
mod screen;
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

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result, anyhow};

use crate::protocol::{JOB_PATH, Job, Message};
use port::Port;

/// Runs the guest from first to last. It never returns: PID 1 must not.
pub fn main() -> ! {
    let mut arguments = std::env::args();
    if arguments
        .next()
        .is_some_and(|name| name.rsplit('/').next() == Some("modprobe"))
    {
        std::process::exit(modules::modprobe(arguments));
    }
    if std::process::id() != 1 {
        eprintln!(
            "lab-guest is the first process of the lab's guest and mounts, kills and powers off at will."
        );
        std::process::exit(2);
    }
    // A panic of PID 1 would be one of the kernel, with its trace in place of ours.
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(anyhow!("lab-guest panicked")));
    if let Err(error) = outcome {
        eprintln!("lab-guest: {error:#}");
    }
    boot::power_off()
}

fn run() -> Result<()> {
    boot::mount_all()?;
    let port = Port::open()?;
    let job = std::fs::read(JOB_PATH).with_context(|| format!("cannot read {JOB_PATH}"))?;
    let job: Job = serde_json::from_slice(&job).with_context(|| format!("cannot understand {JOB_PATH}"))?;
    modules::load(&job.modules)?;
    boot::prepare_node()?;
    port.send(&Message::Ready {
        release: sysctl::read("kernel.osrelease")?,
    });
    if let Some(terminal) = &job.screen {
        screen::show(&job, terminal, &port)?;
    } else {
        supervise::play_all(&job, &port);
    }
    port.send(&Message::Done);
    port.drain();
    Ok(())
}
