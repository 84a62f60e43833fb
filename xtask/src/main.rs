//! The project's own commands.

mod build_ebpf;
mod demo;
mod dist;
mod fuzz;
mod lab;
mod static_build;
mod system;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the kernel half, tracer/bpf/tracer.bpf.o
    BuildEbpf(build_ebpf::Arguments),
    /// Play scenarios on real kernels in QEMU, and hold tracer's words against what they expect
    Lab(lab::Arguments),
    /// Show what tracer is for: a registry behind a NodePort, and connections that stall for a second
    Demo(demo::Arguments),
    /// Build the one static file that runs on any x86-64 Linux, target/dist/tracer
    Dist,
    /// Give hostile recordings, records and facts to what reads them
    Fuzz(fuzz::Arguments),
    /// Run everything that must pass: lints, unit tests, the report in a browser, licences, the kernel half's bytes, all
    /// scenarios
    Test(test::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Command::BuildEbpf(arguments) => build_ebpf::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Lab(arguments) => lab::run(&arguments),
        Command::Dist => dist::run().map(|()| ExitCode::SUCCESS),
        Command::Demo(arguments) => demo::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
    }
}
