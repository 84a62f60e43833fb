//! Selects which scenarios run on which kernels.
//!
//! All pairs take hours, so by default each scenario runs once, on one kernel. Core scenarios (the decisions of IPVS) are
//! spread evenly over the kernels first; every other one goes to the kernel with the least to do so far, so that each kernel
//! gets its share. Of the variants of a scenario (IPv4 and IPv6 addresses, nft and legacy iptables) one runs, and they
//! alternate from scenario to scenario. The rest, scenarios marked `long`, and those that need a real control plane run only
//! with `--full`. The selection depends on the scenario files alone; a new file may move others to another kernel.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tracer_lab::scenario::{KernelName, Named};

/// The default kernels.
const KERNELS: [&str; 6] = ["5.10", "6.1", "6.12", "6.18", "7", "5.10/pre-5.9"];

/// The end of a file's name if its rules are loaded with legacy iptables.
const LEGACY: &str = "-legacy";

/// The scenarios and kernels that a run is limited to.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Selection {
    /// Run every scenario and variant on all its kernels
    #[arg(long)]
    full: bool,
    /// Run all scenarios on these kernels, for example 5.10/pre-5.9
    #[arg(long = "kernel", value_name = "KERNEL", value_delimiter = ',')]
    kernels: Vec<KernelName>,
    /// Run these scenarios on all their kernels
    #[arg(long = "scenario", value_name = "NAME", value_delimiter = ',')]
    scenarios: Vec<String>,
}

/// The scenarios of one kernel.
#[derive(Debug)]
pub(super) struct KernelShare<'a> {
    pub(super) kernel: KernelName,
    pub(super) scenarios: Vec<&'a Named>,
}

impl KernelShare<'_> {
    /// How long its scenarios take in one guest, estimated.
    pub(super) fn estimate(&self) -> Duration {
        self.scenarios.iter().map(|named| named.scenario.estimate()).sum()
    }

    fn core_scenarios(&self) -> usize {
        self.scenarios.iter().filter(|named| named.scenario.core).count()
    }
}

impl Selection {
    /// Whether every pair of scenario and kernel runs.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Whether the run is not limited to some kernels or scenarios, so that [`super::timing`]'s budgets apply.
    pub(super) fn is_default(&self) -> bool {
        !self.runs_all_pairs()
    }

    /// Whether all pairs of the selected kernels and scenarios run.
    fn runs_all_pairs(&self) -> bool {
        self.full || !self.kernels.is_empty() || !self.scenarios.is_empty()
    }

    /// Distributes the scenarios over the kernels. Kernels without a scenario are left out.
    pub(super) fn shares<'a>(&self, catalogue: &'a [Named]) -> Result<Vec<KernelShare<'a>>> {
        let known: BTreeSet<&str> = catalogue.iter().map(|named| named.name.as_str()).collect();
        let unknown = self.scenarios.iter().find(|name| !known.contains(name.as_str()));
        if let Some(unknown) = unknown {
            bail!("no scenario {unknown}; `cargo xtask lab --list` shows all");
        }
        let kernels: Vec<KernelName> = if self.kernels.is_empty() {
            KERNELS.iter().map(|name| name.parse()).collect::<Result<_>>()?
        } else {
            self.kernels.clone()
        };
        let scenarios: Vec<&Named> = catalogue.iter().filter(|named| self.includes(named)).collect();
        let mut shares = if self.runs_all_pairs() {
            all_pairs(&kernels, &scenarios)
        } else {
            each_once(&kernels, &scenarios)
        };
        shares.retain(|share| !share.scenarios.is_empty());
        ensure!(
            !shares.is_empty(),
            "none of these scenarios supports any of these kernels; `cargo xtask lab --list` shows the kernels of each"
        );
        Ok(shares)
    }
}

impl Selection {
    /// Whether a scenario may run. A control plane is built only on request.
    fn includes(&self, named: &Named) -> bool {
        if self.scenarios.is_empty() {
            self.full || named.scenario.kubernetes.is_none()
        } else {
            self.scenarios.contains(&named.name)
        }
    }
}

/// Every scenario on every kernel that supports it.
fn all_pairs<'a>(kernels: &[KernelName], scenarios: &[&'a Named]) -> Vec<KernelShare<'a>> {
    let share = |kernel: &KernelName| KernelShare {
        kernel: kernel.clone(),
        scenarios: scenarios
            .iter()
            .copied()
            .filter(|named| named.scenario.runs_on(kernel))
            .collect(),
    };
    kernels.iter().map(share).collect()
}

/// Every scenario once, on one kernel.
fn each_once<'a>(kernels: &[KernelName], scenarios: &[&'a Named]) -> Vec<KernelShare<'a>> {
    let mut shares = all_pairs(kernels, &[]);
    let mut once = one_variant_each(
        scenarios
            .iter()
            .copied()
            .filter(|named| !named.scenario.is_on_request()),
    );
    // Core scenarios first, then those with the fewest kernels.
    once.sort_by_key(|named| {
        let possible = kernels.iter().filter(|kernel| named.scenario.runs_on(kernel));
        (Reverse(named.scenario.core), possible.count(), &named.name)
    });
    for named in once {
        let least_busy = shares
            .iter_mut()
            .filter(|share| named.scenario.runs_on(&share.kernel))
            .min_by_key(|share| {
                let core = if named.scenario.core {
                    share.core_scenarios()
                } else {
                    0
                };
                (core, share.estimate())
            });
        if let Some(share) = least_busy {
            share.scenarios.push(named);
        }
    }
    for share in &mut shares {
        share.scenarios.sort_by(|a, b| a.name.cmp(&b.name));
    }
    shares
}

/// One variant of each scenario. Files take turns for the rules' loader, and families take turns independently of that.
fn one_variant_each<'a>(scenarios: impl Iterator<Item = &'a Named>) -> Vec<&'a Named> {
    let mut groups: BTreeMap<&str, BTreeMap<&str, Vec<&Named>>> = BTreeMap::new();
    for named in scenarios {
        let file = named.base();
        let group = file.strip_suffix(LEGACY).unwrap_or(file);
        groups
            .entry(group)
            .or_default()
            .entry(file)
            .or_default()
            .push(named);
    }
    let (mut loader, mut family) = (Turn::default(), Turn::default());
    let mut chosen = Vec::new();
    for (_, files) in groups {
        let mut files: Vec<Vec<&Named>> = files.into_values().collect();
        let mut twins = files.swap_remove(loader.take(files.len()));
        chosen.push(twins.swap_remove(family.take(twins.len())));
    }
    chosen
}

/// The next in turn.
#[derive(Debug, Default)]
struct Turn(usize);

impl Turn {
    /// The index of the next of `count` variants. Where there is only one, the turn stays with the others.
    fn take(&mut self, count: usize) -> usize {
        if count < 2 {
            return 0;
        }
        let index = self.0 % count;
        self.0 += 1;
        index
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use clap::Parser;
    use tracer_lab::scenario::Scenario;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        selection: Selection,
    }

    fn selection(arguments: &[&str]) -> Selection {
        let arguments = ["test"].iter().chain(arguments);
        Line::parse_from(arguments).selection
    }

    fn catalogue() -> Vec<Named> {
        super::super::catalogue().unwrap()
    }

    fn named(name: &str, kernels: &str, core: bool) -> Named {
        let text = format!(
            r#"
            title = "One connection"
            story = "For these tests."
            kernels = {kernels}
            core = {core}
            [topology]
            clients = [{{ name = "client-a", address = "10.0.0.2" }}]
            services = [{{ name = "web", node_port = 30080 }}]
            [[steps]]
            connect = {{ client = "client-a", source_port = 41000 }}
            [expect]
            default = {{ fate = "refused" }}
            "#
        );
        Named {
            name: name.to_owned(),
            file: PathBuf::new(),
            scenario: Scenario::from_toml(&text).unwrap(),
        }
    }

    /// The name that a scenario and its variants have in common.
    fn group(named: &Named) -> &str {
        named.base().trim_end_matches(LEGACY)
    }

    fn names(share: &KernelShare<'_>) -> Vec<String> {
        share.scenarios.iter().map(|named| named.name.clone()).collect()
    }

    #[test]
    fn every_scenario_runs_once_in_one_variant() {
        let catalogue = catalogue();
        let shares = selection(&[]).shares(&catalogue).unwrap();
        let mut runs: BTreeMap<&str, usize> = BTreeMap::new();
        for share in &shares {
            for named in &share.scenarios {
                assert!(named.scenario.runs_on(&share.kernel), "{}", named.name);
                *runs.entry(group(named)).or_default() += 1;
            }
        }
        for named in &catalogue {
            let times = runs.get(group(named)).copied().unwrap_or_default();
            assert_eq!(
                times,
                usize::from(!named.scenario.is_on_request()),
                "{}",
                named.name
            );
        }
    }

    #[test]
    fn every_kernel_gets_core_scenarios_and_both_families_and_the_load_is_even() {
        let catalogue = catalogue();
        let shares = selection(&[]).shares(&catalogue).unwrap();
        assert_eq!(shares.len(), KERNELS.len());
        for share in &shares {
            let kernel = &share.kernel;
            assert!(share.core_scenarios() > 0, "{kernel}");
            let (four, six): (Vec<&Named>, Vec<&Named>) = share
                .scenarios
                .iter()
                .partition(|named| !named.name.ends_with("@ipv6"));
            assert!(!four.is_empty() && !six.is_empty(), "{kernel}");
        }
        // What only old IPVS does, and the demo.
        let pre59 = names(shares.last().unwrap());
        for needed in ["demo-registry", "reuse-time-wait-pre-5.9"] {
            assert!(pre59.iter().any(|name| name.starts_with(needed)), "{pre59:?}");
        }
        let estimates = || shares.iter().map(KernelShare::estimate);
        let (least, most) = (estimates().min().unwrap(), estimates().max().unwrap());
        assert!(most < least * 2, "{least:?} to {most:?}");
    }

    #[test]
    fn families_and_iptables_alternate() {
        let all: Vec<Named> = [
            "a", "a@ipv6", "b", "c", "c@ipv6", "d", "d@ipv6", "e", "e-legacy", "f", "f-legacy",
        ]
        .map(|name| named(name, r#"["6.12"]"#, false))
        .into();
        let kernels = ["6.12".parse().unwrap()];
        let shares = each_once(&kernels, &all.iter().collect::<Vec<_>>());
        assert_eq!(names(&shares[0]), ["a", "b", "c@ipv6", "d", "e", "f-legacy"]);
    }

    #[test]
    fn core_scenarios_are_spread_over_the_kernels() {
        let kernels = r#"["6.1", "6.12"]"#;
        let all = [
            named("a", kernels, true),
            named("b", kernels, true),
            named("c", kernels, true),
            named("d", kernels, true),
        ];
        let shares = selection(&[]).shares(&all).unwrap();
        assert_eq!(
            shares.iter().map(KernelShare::core_scenarios).collect::<Vec<_>>(),
            [2, 2]
        );
    }

    #[test]
    fn full_runs_every_pair() {
        let catalogue = catalogue();
        let shares = selection(&["--full"]).shares(&catalogue).unwrap();
        let pairs: usize = shares.iter().map(|share| share.scenarios.len()).sum();
        let all: usize = catalogue.iter().map(|named| named.scenario.kernels.len()).sum();
        assert_eq!(pairs, all);
    }

    #[test]
    fn scenarios_with_few_kernels_come_first_and_the_others_fill_up() {
        let all = [
            named("a", r#"["6.1", "6.12"]"#, false),
            named("b", r#"["6.1", "6.12"]"#, false),
            named("c", r#"["6.12"]"#, false),
            named("d", r#"["6.1", "6.12"]"#, false),
        ];
        let shares = selection(&[]).shares(&all).unwrap();
        let by_kernel: Vec<_> = shares
            .iter()
            .map(|share| (share.kernel.to_string(), names(share)))
            .collect();
        let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            by_kernel,
            [
                ("6.1".to_owned(), strings(&["a", "b"])),
                ("6.12".to_owned(), strings(&["c", "d"])),
            ]
        );
    }

    #[test]
    fn a_named_kernel_or_scenario_runs_all_its_pairs() {
        let catalogue = catalogue();
        let shares = selection(&["--kernel", "6.12"]).shares(&catalogue).unwrap();
        let on = catalogue
            .iter()
            .filter(|named| named.scenario.runs_on(&shares[0].kernel) && named.scenario.kubernetes.is_none());
        assert_eq!((shares.len(), shares[0].scenarios.len()), (1, on.count()));

        let shares = selection(&["--scenario", "rule-dropped"])
            .shares(&catalogue)
            .unwrap();
        let rule_dropped = catalogue
            .iter()
            .find(|named| named.name == "rule-dropped")
            .unwrap();
        assert_eq!(shares.len(), rule_dropped.scenario.kernels.len());

        selection(&["--scenario", "no-such-thing"])
            .shares(&catalogue)
            .unwrap_err();
        selection(&["--kernel", "4.19"]).shares(&catalogue).unwrap_err();
    }
}
