//! The project's development commands.

mod bench;
mod build_ebpf;
mod demo;
mod dist;
mod fuzz;
mod lab;
mod priority;
mod soak;
mod static_build;
mod system;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's development commands
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
    /// Run scenarios on real kernels in QEMU and check tracer's output
    Lab(lab::Arguments),
    /// Show why connections to a registry behind a NodePort stall for a second
    Demo(demo::Arguments),
    /// Build target/dist/tracer, one static file for any x86-64 Linux
    Dist,
    /// Measure what tracer costs: instructions per connection, speed and memory
    Bench(bench::Arguments),
    /// Fuzz the readers of recordings, records and node facts
    Fuzz(fuzz::Arguments),
    /// Run tracer for minutes and check that its resource use does not grow
    Soak(soak::Arguments),
    /// Run all checks: lints, unit tests, scenarios, fuzz targets and more
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
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Dist => dist::run().map(|()| ExitCode::SUCCESS),
        Command::Demo(arguments) => demo::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn help_texts() {
        let mut command = Arguments::command().term_width(100);
        command.build();
        let names: Vec<String> = command
            .get_subcommands()
            .map(|command| command.get_name().to_owned())
            .filter(|name| name != "help")
            .collect();
        insta::assert_snapshot!("xtask", command.render_help());
        for name in names {
            let command = command.find_subcommand_mut(&name).unwrap();
            insta::assert_snapshot!(name, command.render_help());
        }
    }
}
