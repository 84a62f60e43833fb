//! The contents of a scenario file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{
    Attempt, Connect, Expect, Expected, Family, Fate, KernelName, Kubernetes, Process, Rounds, Step,
    SysctlValue, Topology,
};

/// One scenario file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The fate of the SYN, in one line.
    pub title: String,
    /// A few sentences for the catalogue: how a user meets this, and why it happens.
    pub story: String,
    /// The kernels on which the expectations hold.
    pub kernels: Vec<KernelName>,
    /// The address families it runs with; the file itself contains IPv4 addresses.
    #[serde(default = "Scenario::default_families")]
    pub families: Vec<Family>,
    /// Whether it shows a decision of IPVS: `cargo xtask test` spreads these over all kernels and gives them two CPUs.
    #[serde(default)]
    pub core: bool,
    /// Whether it runs only on request: it takes minutes, or adds too little to the default run for its time. Its guest has
    /// two CPUs.
    #[serde(default)]
    pub long: bool,
    /// Whether it changes the kernel until its next boot, and therefore runs in a guest of its own.
    #[serde(default)]
    pub own_boot: bool,
    /// The time limit in seconds; an emulated kernel needs time to attach a tracer.
    #[serde(default = "Scenario::default_limit_s")]
    pub limit_s: u32,
    /// The control plane; without one, the lab writes kube-proxy's rules itself.
    pub kubernetes: Option<Kubernetes>,
    /// Sysctls of the node beyond kube-proxy's own (see [`crate::guest`]), set before the topology is built.
    #[serde(default)]
    pub facts: BTreeMap<String, SysctlValue>,
    /// The node, clients, pods and services.
    pub topology: Topology,
    /// How tracer runs, where that differs from the default.
    #[serde(default)]
    pub tracer: Process,
    /// The steps, in order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Steps that are repeated after these. `None` once the scenario is parsed: they are among the steps then.
    pub(super) rounds: Option<Rounds>,
    /// The expected report of tracer.
    pub expect: Expect,
    /// A rough estimate of its duration, made when it is parsed.
    #[serde(skip)]
    pub(super) estimate: Duration,
}

impl Scenario {
    fn default_families() -> Vec<Family> {
        vec![Family::Ipv4]
    }

    const fn default_limit_s() -> u32 {
        120
    }

    /// Its time limit.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        Duration::from_secs(self.limit_s as u64)
    }

    /// Whether its expectations hold on this kernel.
    #[must_use]
    pub fn runs_on(&self, kernel: &KernelName) -> bool {
        self.kernels.contains(kernel)
    }

    /// The NodePort of each of its services.
    #[must_use]
    pub fn node_ports(&self) -> Vec<u16> {
        self.topology
            .services
            .iter()
            .map(|service| service.node_port)
            .collect()
    }

    /// Whether it runs shell commands or kube-proxy, which may change anything on the node.
    #[must_use]
    pub fn runs_other_programs(&self) -> bool {
        let runs = |step: &Step| matches!(step, Step::Run(_) | Step::RunIn(_));
        self.tracer.before.is_some() || self.kubernetes.is_some() || self.steps.iter().any(runs)
    }

    /// Whether it runs only on request, because it is `long` or needs a real control plane.
    #[must_use]
    pub const fn is_on_request(&self) -> bool {
        self.long || self.kubernetes.is_some()
    }

    /// All of its connects in the order of the file, including those of parallel steps.
    pub fn connects(&self) -> impl Iterator<Item = &Connect> {
        self.steps.iter().flat_map(|step| match step {
            Step::Connect(connect) => std::slice::from_ref(connect),
            Step::Parallel(connects) => connects.as_slice(),
            _ => &[],
        })
    }

    pub(super) fn connects_mut(&mut self) -> impl Iterator<Item = &mut Connect> {
        self.steps.iter_mut().flat_map(|step| match step {
            Step::Connect(connect) => std::slice::from_mut(connect),
            Step::Parallel(connects) => connects.as_mut_slice(),
            _ => &mut [],
        })
    }

    /// All of its connection attempts; each of them is one flow for tracer.
    #[must_use]
    pub fn attempts(&self) -> Vec<(Attempt, &Connect)> {
        let mut seen: BTreeMap<(&str, u16), u16> = BTreeMap::new();
        let mut attempts = Vec::new();
        for connect in self.connects() {
            for source_port in connect.source_ports() {
                let occurrence = seen.entry((&connect.client, source_port)).or_default();
                *occurrence += 1;
                let attempt = Attempt {
                    client: connect.client.clone(),
                    source_port,
                    occurrence: *occurrence,
                };
                attempts.push((attempt, connect));
            }
        }
        attempts
    }

    /// Whether tracer must report this attempt: a connection that the node itself opens is not a request to a
    /// NodePort, unless IPVS handles its answer as one.
    #[must_use]
    pub fn is_reported(&self, attempt: &Attempt, connect: &Connect) -> bool {
        let connects = |expected: &Expected| expected.fate == Fate::Established;
        connect.from_node_port.is_none() || !self.expected(attempt).is_some_and(connects)
    }

    /// The number of flows that tracer must report.
    #[must_use]
    pub fn reported(&self) -> usize {
        let attempts = self.attempts();
        let reported = |(attempt, connect): &&(Attempt, &Connect)| self.is_reported(attempt, connect);
        attempts.iter().filter(reported).count()
    }

    /// Whether any connection of this connect step is expected to time out.
    #[must_use]
    pub fn expects_timeout(&self, connect: &Connect) -> bool {
        let attempts = self.attempts();
        let mut own = attempts.iter().filter(|(_, of)| std::ptr::eq(*of, connect));
        own.any(|(attempt, _)| {
            let fate = self.expected(attempt).map(|expected| expected.fate);
            matches!(fate, Some(Fate::Dropped | Fate::Unanswered))
        })
    }

    /// Whether the path of any flow is checked.
    #[must_use]
    pub fn expects_paths(&self) -> bool {
        let of_flows = self.expect.flows.iter().map(|flow| &flow.expected);
        self.expect
            .default
            .iter()
            .chain(of_flows)
            .any(|expected| !expected.path.is_empty())
    }

    /// The expectation of an attempt.
    #[must_use]
    pub fn expected(&self, attempt: &Attempt) -> Option<&Expected> {
        let own = self.expect.flows.iter().find(|flow| flow.covers(attempt));
        own.map(|flow| &flow.expected).or(self.expect.default.as_ref())
    }
}
