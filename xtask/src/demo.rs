//! `cargo xtask demo`: the story of a registry behind a NodePort, told by a real kernel and by tracer.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Result, bail};
use tracer_lab::protocol::{Message, Outcome, Traffic};
use tracer_lab::scenario::{self, KernelName, Named, Scenario};
use tracer_lab::vm::qemu::Qemu;

use crate::lab::CPUS;
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
    let kernel = lab.kernel(&name)?;
    let qemu = Qemu::find(lab.cache(), &kernel)?;
    let programme = Programme {
        name,
        kernel,
        cpus: CPUS,
        scenarios,
    };
    let mut narrator = Narrator::default();
    let played = lab.play(&qemu, &programme, &mut narrator);
    let mut troubles: Vec<String> = played.iter().flat_map(|played| played.troubles.clone()).collect();
    for named in &programme.scenarios {
        troubles.extend(unsaid(&named.scenario, &narrator.said));
    }
    if !troubles.is_empty() {
        bail!(
            "the story did not go as it should:\n  - {}",
            troubles.join("\n  - ")
        );
    }
    for played in &played {
        print!("{}", summary(&played.traffic));
    }
    println!("\n(This took {:.0} s.)", began.elapsed().as_secs_f64());
    Ok(())
}

/// Tells what happens as it happens.
#[derive(Debug, Default)]
struct Narrator {
    /// tracer's own lines.
    said: Vec<String>,
}

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
            Message::Tracer { line } => {
                println!("  tracer| {line}");
                self.said.push(line.clone());
            }
            Message::Stderr { line } => println!("  tracer| {line}"),
            Message::Recording { .. }
            | Message::ScreenFailed { .. }
            | Message::Begin { .. }
            | Message::End { .. }
            | Message::Done => {}
        }
    }

    fn end(&mut self, _: &Played) {}
}

/// Causes that tracer should have named, and did not. A flow may be told twice, when its fate changes.
fn unsaid(scenario: &Scenario, said: &[String]) -> Vec<String> {
    let times = |cause: &str| {
        said.iter()
            .filter(|line| line.contains(&format!(" {cause}: ")))
            .count()
    };
    let causes = scenario.expect.totals.iter().flat_map(|totals| &totals.by_cause);
    let mut troubles: Vec<String> = causes
        .filter(|(cause, count)| times(cause.word()) < **count)
        .map(|(cause, count)| format!("tracer named {cause} {} times, not {count}", times(cause.word())))
        .collect();
    if times("unknown") > 0 {
        troubles.push(format!("tracer knew no cause {} times", times("unknown")));
    }
    troubles
}

/// What the clients lived through, counted, and what came of it in real life.
fn summary(traffic: &[Traffic]) -> String {
    let mut text = format!(
        "\nSummary\n-------\nThe clients made {} connections:\n",
        traffic.len()
    );
    for kind in KINDS {
        let count = traffic.iter().filter(|truth| self::kind(truth) == kind).count();
        if count > 0 {
            let _ = writeln!(text, "  {count:3} {kind}");
        }
    }
    text.push_str(LESSON);
    text
}

/// What can become of a connection, in the order of telling.
const KINDS: [&str; 5] = [
    "were quick",
    "lost a second or more, and then worked",
    "were refused",
    "were given up",
    "failed",
];

fn kind(truth: &Traffic) -> &'static str {
    let [quick, stalled, refused, given_up, failed] = KINDS;
    match truth.outcome {
        Outcome::Connected if was_quick(truth) => quick,
        Outcome::Connected => stalled,
        Outcome::Refused => refused,
        Outcome::Timeout => given_up,
        Outcome::Unreachable | Outcome::Aborted | Outcome::Silent | Outcome::Failed => failed,
    }
}

const LESSON: &str = "
tracer named the reason for each of them above, from what the kernel itself did with each SYN.

The second that is lost: a client that opens many connections uses a source port again while the node still
remembers the last connection from it. With net.ipv4.vs.conn_reuse_mode=1 and conntrack, IPVS before Linux 5.9
throws that SYN away; the client sends it again a second later. (Newer kernels do so only when the last connection
was reset, or its final ACK was lost.) conn_reuse_mode=0 ends the stalls, but then a reused port still goes to
the pod of its last connection: to one that drains or is gone, as the end of the story shows.

What this story's first tellers never learned: their CentOS 7 kernel, \"3.10\", did have conn_reuse_mode. Red Hat
had ported it back, set to 1, together with the code that drops the SYN. kube-proxy wanted to set it to 0, but
compares version numbers only: it saw 3.10, said \"can't set sysctl net/ipv4/vs/conn_reuse_mode, kernel version
must be at least 4.1\", and left it alone. That warning was the symptom, and one line would have ended the stalls.
expire_nodest_conn=1, which kube-proxy sets by itself, belongs to it: IPVS then lets go of pods that were removed,
and on kernels since 5.16, and many stable ones, of pods that drain:

    sysctl -w net.ipv4.vs.conn_reuse_mode=0 net.ipv4.vs.expire_nodest_conn=1
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_tracer_did_not_name_is_missed() {
        let catalogue = scenario::load(&workspace::scenarios()).unwrap();
        let named = catalogue.iter().find(|named| named.name == SCENARIO).unwrap();
        let causes = &named.scenario.expect.totals.as_ref().unwrap().by_cause;
        let mut said: Vec<String> = causes
            .iter()
            .flat_map(|(cause, count)| {
                vec![format!("12:00 stalled a -> b  1000 ms lost  {cause}: why"); *count]
            })
            .collect();
        assert_eq!(unsaid(&named.scenario, &said), [""; 0]);
        said.remove(0);
        assert_eq!(unsaid(&named.scenario, &said).len(), 1);
        said.push("12:00 stalled a -> b  unknown: nobody knows".into());
        assert_eq!(unsaid(&named.scenario, &said).len(), 2);
    }

    #[test]
    fn the_summary_counts_what_the_clients_saw() {
        let truth = |outcome, ms| Traffic {
            client: "client-a".into(),
            source_port: 40_000,
            to: ([10, 0, 0, 1], 30_080).into(),
            outcome,
            ms,
            answer_ms: None,
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
