//! `cargo xtask demo`: the story of a registry behind a NodePort, told by a real kernel and by tracer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Result, bail};
use tracer_lab::protocol::{Message, Outcome, Traffic};
use tracer_lab::scenario::{self, KernelName, Named};

use crate::lab::fetch;
use crate::lab::play::{Audience, Lab, Manner, Played, Programme};
use crate::lab::tell::{lived, was_quick};
use crate::workspace;

const SCENARIO: &str = "demo-registry";

/// The kernel of the story: it drops the SYN of every reused port, as each one before 5.9 does.
const KERNEL: &str = "5.10/pre-5.9";

/// What `cargo xtask demo` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Plays the story.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    let began = Instant::now();
    let catalogue = scenario::load(&workspace::scenarios())?;
    let name: KernelName = KERNEL.parse()?;
    let scenarios = scenario::select(&catalogue, &[SCENARIO.to_owned()], &name)?;
    let lab = Lab::prepare(Manner {
        demo: true,
        ..Manner::default()
    })?;
    let kernel = fetch(lab.cache(), &name)?;
    let programme = Programme {
        name,
        kernel,
        scenarios,
    };
    let played = lab.play(&programme, &mut Narrator)?;
    let troubles: Vec<&String> = played.iter().flat_map(|played| &played.troubles).collect();
    if !troubles.is_empty() {
        for trouble in troubles {
            eprintln!("  - {trouble}");
        }
        bail!("the story did not go as it should");
    }
    for played in &played {
        print!("{}", summary(&played.traffic));
    }
    println!("\n(This took {:.0} s.)", began.elapsed().as_secs_f64());
    Ok(())
}

/// Tells what happens as it happens.
#[derive(Debug)]
struct Narrator;

impl Audience for Narrator {
    fn begin(&mut self, named: &Named) {
        let scenario = &named.scenario;
        println!(
            "\n{}\n{}\n",
            scenario.title,
            "=".repeat(scenario.title.chars().count())
        );
        println!("{}\n", scenario.story.trim());
    }

    fn message(&mut self, message: &Message) {
        match message {
            Message::Ready { release } => {
                println!("A node boots Linux {release}, with the IPVS of kernels before 5.9.");
            }
            Message::Note { text } => println!("\n# {text}"),
            Message::Traffic(truth) => println!("  client: {}", lived(truth)),
            Message::Tracer { line } if line.trim().is_empty() => {}
            Message::Tracer { line } | Message::Stderr { line } => println!("  tracer| {line}"),
            Message::Begin { .. } | Message::End { .. } | Message::Done => {}
        }
    }

    fn end(&mut self, _: &Played) {}
}

/// What the clients lived through, counted, and what came of it in real life.
fn summary(traffic: &[Traffic]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for truth in traffic {
        *counts.entry(kind(truth)).or_default() += 1;
    }
    let mut text = format!(
        "\nSummary\n-------\nThe clients made {} connections:\n",
        traffic.len()
    );
    for (kind, count) in counts {
        let _ = writeln!(text, "  {count:3} {kind}");
    }
    text.push_str(LESSON);
    text
}

fn kind(truth: &Traffic) -> &'static str {
    match truth.outcome {
        Outcome::Connected if was_quick(truth) => "were quick",
        Outcome::Connected => "lost a second or more, and then worked",
        Outcome::Refused => "were refused",
        Outcome::Timeout => "were given up",
        Outcome::Unreachable | Outcome::Failed => "failed",
    }
}

const LESSON: &str = "
tracer named the reason for each of them above, from what the kernel itself did with each SYN.

The second that is lost: a client that opens many connections uses a source port again while the node still
remembers the last connection from it. With net.ipv4.vs.conn_reuse_mode=1 and conntrack, IPVS before Linux 5.9
throws that SYN away; the client sends it again a second later. The way out is conn_reuse_mode=0 - which in turn
sends reused ports to pods that are gone, as the end of the story shows - or a newer kernel.

What this story's first tellers never learned: their CentOS 7 kernel, \"3.10\", did have conn_reuse_mode. Red Hat
had ported it back, set to 1, together with the code that drops the SYN. kube-proxy wanted to set it to 0, but
compares version numbers only: it saw 3.10, said \"can't set sysctl net/ipv4/vs/conn_reuse_mode, kernel version
must be at least 4.1\", and left it alone. That warning was the symptom, and one line would have been the cure:

    sysctl -w net.ipv4.vs.conn_reuse_mode=0
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_the_clients_saw() {
        let truth = |outcome, ms| Traffic {
            client: "client-a".into(),
            source_port: 40_000,
            outcome,
            ms,
            backend: None,
        };
        let text = summary(&[
            truth(Outcome::Connected, 3.0),
            truth(Outcome::Connected, 1020.0),
            truth(Outcome::Connected, 4.0),
            truth(Outcome::Timeout, 2500.0),
        ]);
        assert!(text.contains("made 4 connections"), "{text}");
        assert!(text.contains("  2 were quick"), "{text}");
        assert!(text.contains("  1 lost a second or more"), "{text}");
        assert!(text.contains("  1 were given up"), "{text}");
    }
}
