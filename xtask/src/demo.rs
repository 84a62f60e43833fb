//! `cargo xtask demo`: a registry behind a NodePort loses a second per connection, and tracer shows why.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Result, bail};
use tracer_lab::protocol::{Message, Outcome, Traffic};
use tracer_lab::scenario::{self, KernelName, Named, Scenario};
use tracer_lab::vm::qemu::Qemu;

use crate::lab::observer::Observer;
use crate::lab::options::Options;
use crate::lab::plan::{GUEST_CPUS, GuestPlan};
use crate::lab::printer::{describe, was_quick};
use crate::lab::result::ScenarioResult;
use crate::lab::runner::{Guest, Lab};
use crate::priority::Priority;
use crate::workspace;

const SCENARIO: &str = "demo-registry";

/// A kernel that drops the SYN on every port reuse, as all kernels before 5.9 do.
const KERNEL: &str = "5.10/pre-5.9";

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Runs the demo and fails if tracer misses a cause.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    let began = Instant::now();
    let catalogue = scenario::load(&workspace::scenarios())?;
    let name: KernelName = KERNEL.parse()?;
    let scenarios = scenario::select(&catalogue, &[SCENARIO.to_owned()], &name)?;
    let lab = Lab::prepare(Priority::Normal)?;
    let options = Options {
        demo: true,
        ..Options::default()
    };
    let kernel = lab.kernel(&name, options.build)?;
    let qemu = Qemu::find(lab.cache(), &kernel)?;
    let plan = GuestPlan {
        kernel: name,
        cpus: GUEST_CPUS,
        scenarios,
    };
    let guest = Guest {
        qemu: &qemu,
        kernel: &kernel,
        plan: &plan,
    };
    let mut narrator = Narrator::default();
    let results = lab.run(guest, &options, &mut narrator);
    let mut failures: Vec<String> = results
        .iter()
        .flat_map(|result| result.failures.clone())
        .collect();
    for named in &plan.scenarios {
        failures.extend(missing_causes(&named.scenario, &narrator.lines));
    }
    if !failures.is_empty() {
        bail!("the demo failed:\n  - {}", failures.join("\n  - "));
    }
    for result in &results {
        print!("{}", summary(&result.traffic));
    }
    println!("\n(The demo took {:.0} s.)", began.elapsed().as_secs_f64());
    Ok(())
}

/// Prints the story as it happens.
#[derive(Debug, Default)]
struct Narrator {
    /// tracer's lines.
    lines: Vec<String>,
}

impl Observer for Narrator {
    fn started(&mut self, named: &Named) {
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
            Message::Traffic(truth) => println!("  client: {}", describe(truth)),
            Message::Tracer { line } if line.trim().is_empty() => {}
            Message::Tracer { line } => {
                println!("  tracer| {line}");
                self.lines.push(line.clone());
            }
            Message::Stderr { line } => println!("  tracer| {line}"),
            Message::Recording { .. }
            | Message::ScreenFailed { .. }
            | Message::Begin { .. }
            | Message::End { .. }
            | Message::Measurement(_)
            | Message::ProgramCost(_)
            | Message::Done => {}
        }
    }

    fn finished(&mut self, _: &ScenarioResult) {}
}

/// Causes that tracer did not report often enough. A flow whose fate changes is reported twice.
fn missing_causes(scenario: &Scenario, lines: &[String]) -> Vec<String> {
    let times = |cause: &str| {
        lines
            .iter()
            .filter(|line| line.contains(&format!(" {cause}: ")))
            .count()
    };
    let causes = scenario.expect.totals.iter().flat_map(|totals| &totals.by_cause);
    let mut missing: Vec<String> = causes
        .filter(|(cause, count)| times(cause.word()) < **count)
        .map(|(cause, count)| {
            format!(
                "tracer reported {cause} {} times, expected {count}",
                times(cause.word())
            )
        })
        .collect();
    if times("unknown") > 0 {
        missing.push(format!("tracer reported no cause for {} flows", times("unknown")));
    }
    missing
}

/// Counts the connections by outcome and explains the story behind them.
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

/// Outcomes of a connection, in print order.
const KINDS: [&str; 5] = [
    "connected at once",
    "connected after a second or more",
    "were refused",
    "timed out",
    "failed",
];

fn kind(truth: &Traffic) -> &'static str {
    let [quick, stalled, refused, timed_out, failed] = KINDS;
    match truth.outcome {
        Outcome::Connected if was_quick(truth) => quick,
        Outcome::Connected => stalled,
        Outcome::Refused => refused,
        Outcome::Timeout => timed_out,
        Outcome::Unreachable | Outcome::Aborted | Outcome::Silent | Outcome::Failed => failed,
    }
}

const LESSON: &str = "
tracer reported the cause of each failure above, from what the kernel did with each SYN.

Why a second is lost: a client that opens many connections reuses a source port while the node still holds the
last connection from it. With net.ipv4.vs.conn_reuse_mode=1 and conntrack, IPVS before Linux 5.9 drops that SYN;
the client retransmits it a second later. (Newer kernels drop it only if the last connection was reset, or its
final ACK was lost.) conn_reuse_mode=0 ends the stalls, but then a reused port still goes to the pod of its last
connection, even if that pod is draining or gone, as the end of the demo shows.

Where this happened: CentOS 7, whose kernel \"3.10\" does have conn_reuse_mode. Red Hat backported it, set to 1,
together with the code that drops the SYN. kube-proxy tries to set it to 0, but compares version numbers only: it
saw 3.10, logged \"can't set sysctl net/ipv4/vs/conn_reuse_mode, kernel version must be at least 4.1\", and left it
alone. That warning was the symptom, and one command would have ended the stalls. expire_nodest_conn=1, which
kube-proxy sets by itself, goes with it: IPVS then forgets connections to pods that were removed, and on kernels
since 5.16, and many stable ones, to pods that drain:

    sysctl -w net.ipv4.vs.conn_reuse_mode=0 net.ipv4.vs.expire_nodest_conn=1
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_tracer_did_not_report_is_missing() {
        let catalogue = scenario::load(&workspace::scenarios()).unwrap();
        let named = catalogue.iter().find(|named| named.name == SCENARIO).unwrap();
        let causes = &named.scenario.expect.totals.as_ref().unwrap().by_cause;
        let mut lines: Vec<String> = causes
            .iter()
            .flat_map(|(cause, count)| {
                vec![format!("12:00 stalled a -> b  1000 ms lost  {cause}: why"); *count]
            })
            .collect();
        assert_eq!(missing_causes(&named.scenario, &lines), [""; 0]);
        lines.remove(0);
        assert_eq!(missing_causes(&named.scenario, &lines).len(), 1);
        lines.push("12:00 stalled a -> b  unknown: no cause".into());
        assert_eq!(missing_causes(&named.scenario, &lines).len(), 2);
    }

    #[test]
    fn the_summary_counts_connections_by_outcome() {
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
        assert!(text.contains("  2 connected at once"), "{text}");
        assert!(text.contains("  1 connected after a second or more"), "{text}");
        assert!(text.contains("  1 timed out"), "{text}");
    }
}
