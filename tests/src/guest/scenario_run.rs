//! Runs one scenario, from an empty node to an empty node.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::cancel::Cancel;
use super::client::Client;
use super::leftovers::Inventory;
use super::port::Port;
use super::process::ProcessChecks;
use super::topology::{self, Node};
use super::tracer::Tracer;
use super::usage::Measurements;
use super::{node_state, tool};
use crate::protocol::Job;
use crate::scenario::{Connect, KubeProxy, RunIn, Scenario, Step, Talk};

/// tracer's own patience: after this time without progress it reports a flow's fate so far.
const PATIENCE: Duration = Duration::from_secs(3);

/// A client with a longer timeout sends a SYN more than tracer's patience after the previous one (at 7 s,
/// after 3 s): tracer has reported its fate by then, and reports it again.
const REPEATED_FATE_MS: u32 = 7000;

/// How long tracer may take to report a fate that is due.
const REPORT_DELAY: Duration = Duration::from_millis(1500);

/// The extra time of an emulated machine that shares its CPUs with other guests.
const MARGIN: Duration = Duration::from_secs(7);

/// How long viewers of a demo wait for its last line.
const LAST_LINE: Duration = Duration::from_secs(1);

/// Settings of a scenario's run.
#[derive(Debug)]
pub(super) struct ScenarioRun {
    pub(super) job: Job,
    pub(super) port: Port,
    pub(super) cancel: Cancel,
    /// The state of the node before the first scenario.
    pub(super) before: Arc<Inventory>,
}

impl ScenarioRun {
    /// Runs it; fails if the scenario could not run, or left something behind.
    pub(super) fn run(&self, scenario: &Scenario) -> Result<()> {
        let mut node = Node::default();
        let ran = self.run_on(&mut node, scenario);
        if self.job.verbose {
            self.print_node_state();
            if let Some(log) = node.kube_proxy_log() {
                self.port.note(format!("kube-proxy's log\n{log}"));
            }
        }
        let mut errors: Vec<_> = ran.err().into_iter().collect();
        errors.extend(node.tear_down(&self.before, &self.cancel));
        let _ = self.cancel.begin("checking for leftovers");
        match self.before.differences(scenario.runs_other_programs()) {
            Ok(differences) if differences.is_empty() => {}
            Ok(differences) => errors.push(anyhow!("left behind: {}", differences.join(", "))),
            Err(error) => errors.push(error),
        }
        if self.job.verbose {
            self.port.note(self.cancel.timing());
        }
        let texts: Vec<_> = errors.iter().map(|error| format!("{error:#}")).collect();
        match texts.as_slice() {
            [] => Ok(()),
            texts => Err(anyhow!(texts.join("; and then: "))),
        }
    }

    fn run_on(&self, node: &mut Node, scenario: &Scenario) -> Result<()> {
        node.build(scenario, &self.cancel)?;
        let tracer = if self.job.without_tracer {
            None
        } else {
            self.check(node, scenario)?;
            if let Some(line) = &scenario.tracer.before {
                node.run(RunIn::NODE, line)
                    .context("cannot run `tracer.before`")?;
            }
            Some(Tracer::start(scenario, &self.job, &self.port, &self.cancel)?)
        };
        let mut steps = Steps {
            run: self,
            node,
            scenario,
            tracer: tracer.as_ref(),
            background: Vec::new(),
            repeated_fates_due: Instant::now(),
            round_began: None,
            measurements: Measurements::default(),
        };
        let result = steps.run_all();
        let repeated_fates_due = steps.repeated_fates_due;
        if let Some(tracer) = tracer {
            let flows = scenario.reported();
            let waited = result.and_then(|()| self.wait_for_fates(&tracer, flows, repeated_fates_due));
            let arrivals = scenario.tracer.arrivals.as_deref();
            let arrived = arrivals.map(|line| node.run(RunIn::NODE, line)).transpose();
            let stopped = match arrived {
                Ok(arrived) => tracer.stop(arrived.as_deref(), &self.cancel),
                Err(error) => tracer.stop(None, &self.cancel).and(Err(error)),
            };
            let checked = match &stopped {
                Ok(()) => Tracer::check_recording(scenario, &self.job, &self.port, &self.cancel),
                Err(_) => Ok(()),
            };
            waited.and(stopped).and(checked)
        } else {
            result
        }
    }

    /// Runs the scenario's checks of tracer as a process.
    fn check(&self, node: &Node, scenario: &Scenario) -> Result<()> {
        let checks = &scenario.tracer.checks;
        let Some(first) = scenario.topology.clients.first().filter(|_| !checks.is_empty()) else {
            return Ok(());
        };
        let process_checks = ProcessChecks {
            client: node.client(&first.name)?,
            to: topology::address(&scenario.topology, None, None)?,
            port: &self.port,
            cancel: &self.cancel,
        };
        checks.iter().try_for_each(|check| process_checks.check(*check))
    }

    /// Waits until tracer has reported the fates of this many flows, and the fates that it reports twice.
    fn wait_for_fates(&self, tracer: &Tracer, flows: usize, repeated_fates_due: Instant) -> Result<()> {
        self.cancel
            .begin(format!("waiting for the fates of {flows} flows"))?;
        if self.job.demo {
            // Plain lines are not counted; viewers of a demo can wait.
            self.cancel.sleep(PATIENCE + LAST_LINE)
        } else {
            self.cancel
                .sleep(repeated_fates_due.saturating_duration_since(Instant::now()))?;
            tracer.wait_for_fates(flows, PATIENCE + MARGIN, &self.cancel)
        }
    }

    /// Prints the state of the node, for a closer look.
    fn print_node_state(&self) {
        for command in [
            "ipvsadm -Ln --stats",
            "conntrack -L",
            "nft list ruleset",
            "ip -br addr",
        ] {
            let text = tool::run(command).unwrap_or_else(|error| format!("{error:#}"));
            self.port.note(format!("{command}\n{}", text.trim_end()));
        }
        let connections = node_state::ipvs_connections().join("\n");
        self.port.note(format!("/proc/net/ip_vs_conn\n{connections}"));
    }
}

/// The steps of a scenario in progress.
struct Steps<'a> {
    run: &'a ScenarioRun,
    node: &'a mut Node,
    scenario: &'a Scenario,
    tracer: Option<&'a Tracer>,
    background: Vec<JoinHandle<Result<()>>>,
    /// When tracer will have reported again what it reports twice.
    repeated_fates_due: Instant,
    round_began: Option<Instant>,
    measurements: Measurements,
}

impl Steps<'_> {
    fn run_all(&mut self) -> Result<()> {
        for (number, step) in (1..).zip(&self.scenario.steps) {
            let what = describe(step);
            self.run.cancel.begin(format!("step {number}: {what}"))?;
            if self.run.job.verbose || matches!(step, Step::Say(_)) {
                self.run.port.note(what);
            }
            self.step(step).with_context(|| format!("step {number}"))?;
        }
        self.run
            .cancel
            .begin("waiting for connections in the background")?;
        self.background.drain(..).try_for_each(join)?;
        let background = self.scenario.connects().filter(|connect| connect.background);
        for connect in background {
            self.note_timeout(connect);
        }
        Ok(())
    }

    /// Notes that a client is done. If it gave up after a long time, tracer may not have reported its last
    /// SYN yet.
    fn note_timeout(&mut self, connect: &Connect) {
        if connect.timeout_ms > REPEATED_FATE_MS && self.scenario.expects_timeout(connect) {
            self.repeated_fates_due = Instant::now() + PATIENCE + REPORT_DELAY;
        }
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Connect(connect) => {
                let (connecting, first_syn) = self.connect(connect)?;
                if !connect.background {
                    join(connecting)?;
                    self.note_timeout(connect);
                    return Ok(());
                }
                // The next step follows the first SYN, or the failure to send one.
                let _ = first_syn.recv();
                self.background.push(connecting);
                Ok(())
            }
            Step::Parallel(connects) => {
                let connecting: Result<Vec<_>> =
                    connects.iter().map(|connect| self.connect(connect)).collect();
                connecting?
                    .into_iter()
                    .try_for_each(|(connecting, _)| join(connecting))?;
                for connect in connects {
                    self.note_timeout(connect);
                }
                Ok(())
            }
            Step::Talk(Talk { client }) => self.node.client(client)?.send_on_held(),
            Step::Strays(strays) => {
                let to = topology::address(&self.scenario.topology, strays.to.as_deref(), None)?;
                self.node
                    .client(&strays.client)?
                    .send_strays(strays.source_port, to)
            }
            Step::SetWeight(change) | Step::AddRealServer(change) => {
                self.node.add_real_server(change, &self.run.cancel)
            }
            Step::RemoveRealServer(removal) => self.node.remove_real_server(removal, &self.run.cancel),
            Step::KubeProxy(what) => self.node.kube_proxy(*what, &self.run.cancel),
            Step::Pod(change) => self.node.behave(&change.name, change.behaviour),
            Step::Sysctl(values) => values
                .iter()
                .try_for_each(|(name, value)| self.node.sysctl(name, value)),
            Step::Nft(rules) => self.node.nft(rules),
            Step::Run(line) => self.run_command(RunIn::NODE, line),
            Step::RunIn(RunIn { place, line }) => self.run_command(place, line),
            Step::WaitForOutput(text) => match self.tracer {
                Some(tracer) => tracer.wait_for_output(text, &self.run.cancel),
                None => Ok(()),
            },
            Step::WaitForFates(flows) => match self.tracer {
                Some(tracer) => self.run.wait_for_fates(tracer, *flows, self.repeated_fates_due),
                None => Ok(()),
            },
            Step::SleepMs(time) => self.run.cancel.sleep(Duration::from_millis((*time).into())),
            Step::Say(_) => Ok(()),
            Step::NextRound(period_s) => {
                let period = Duration::from_secs((*period_s).into());
                let due = self.round_began.map_or_else(Instant::now, |began| began + period);
                self.run
                    .cancel
                    .sleep(due.saturating_duration_since(Instant::now()))?;
                self.round_began = Some(Instant::now());
                Ok(())
            }
            Step::Measure(moment) => match self.tracer {
                Some(tracer) => tracer.measure(&mut self.measurements, *moment),
                None => Ok(()),
            },
        }
    }

    fn run_command(&self, place: &str, line: &str) -> Result<()> {
        let printed = self.node.run(place, line)?;
        if self.run.job.verbose && !printed.is_empty() {
            self.run.port.note(printed);
        }
        Ok(())
    }

    /// Starts a client's connect step. The receiver is notified of its first SYN.
    fn connect(&self, connect: &Connect) -> Result<(JoinHandle<Result<()>>, Receiver<()>)> {
        let client: Client = self.node.client(&connect.client)?.clone();
        let mut to = topology::address(&self.scenario.topology, connect.to.as_deref(), connect.to_address)?;
        if let Some(port) = connect.from_node_port {
            to.set_port(port);
        }
        let (connect, port, cancel) = (connect.clone(), self.run.port.clone(), self.run.cancel.clone());
        let (first_syn, first_syn_sent) = mpsc::channel();
        let connecting = thread::spawn(move || client.connect(&connect, to, &first_syn, &port, &cancel));
        Ok((connecting, first_syn_sent))
    }
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread
        .join()
        .unwrap_or_else(|_| Err(anyhow!("a client panicked")))
}

fn describe(step: &Step) -> String {
    match step {
        Step::Connect(connect) => describe_connect(connect),
        Step::Parallel(connects) => {
            let all: Vec<_> = connects.iter().map(describe_connect).collect();
            format!("at once: {}", all.join("; "))
        }
        Step::Talk(Talk { client }) => format!("{client} sends data on its held connections"),
        Step::Strays(strays) => format!("{} sends packets that look like SYNs", strays.client),
        Step::SetWeight(change) => format!("{} gets weight {}", change.pod, change.weight),
        Step::AddRealServer(change) => {
            format!("{} becomes a real server of weight {}", change.pod, change.weight)
        }
        Step::RemoveRealServer(removal) => format!("{} is removed from the service", removal.pod),
        Step::KubeProxy(KubeProxy::Stop) => "kube-proxy stops".to_owned(),
        Step::KubeProxy(KubeProxy::Cleanup) => "kube-proxy --cleanup".to_owned(),
        Step::KubeProxy(KubeProxy::StartIpvs) => "kube-proxy starts in IPVS mode".to_owned(),
        Step::KubeProxy(KubeProxy::StartIptables) => "kube-proxy starts in iptables mode".to_owned(),
        Step::Pod(change) => format!("{} changes its behaviour to {:?}", change.name, change.behaviour),
        Step::Sysctl(values) => {
            let all: Vec<_> = values
                .iter()
                .map(|(name, value)| format!("{name} = {value}"))
                .collect();
            format!("sysctl {}", all.join(", "))
        }
        Step::Nft(rules) => format!("nft: {}", rules.trim()),
        Step::Run(line) => format!("node: {}", line.trim()),
        Step::RunIn(RunIn { place, line }) => format!("{place}: {}", line.trim()),
        Step::WaitForOutput(text) => format!("waiting for tracer to print: {text}"),
        Step::WaitForFates(flows) => format!("waiting for the fates of {flows} flows"),
        Step::SleepMs(time) => format!("waiting {time} ms"),
        Step::Say(text) => text.trim().to_owned(),
        Step::NextRound(_) => "next round".to_owned(),
        Step::Measure(moment) => format!("measuring tracer: {moment:?}"),
    }
}

fn describe_connect(connect: &Connect) -> String {
    let Connect {
        client,
        source_port,
        count,
        times,
        at_once,
        ..
    } = connect;
    let ports = match count {
        1 => format!("port {source_port}"),
        _ => format!("{count} ports from {source_port}"),
    };
    let times = match times {
        1 => String::new(),
        _ => format!(", {times} times from each"),
    };
    let at_once = match at_once {
        1 => String::new(),
        _ => format!(", {at_once} at once"),
    };
    if let Some(port) = connect.from_node_port {
        return format!("the node connects from port {port} to {client}:{source_port}{times}");
    }
    format!("{client} connects from {ports}{times}{at_once}")
}
