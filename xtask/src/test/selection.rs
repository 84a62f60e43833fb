//! Which scenarios are played on which kernels.
//!
//! Every pair of the two would take hours. What the files call core, which is IPVS' decisions, is played on each
//! kernel that its file names. Every other scenario is played on one of its kernels: the one that has the least to do
//! so far, so that all kernels get their share of them. Of those that are there for IPv4 and for IPv6 one of the two is
//! played, by turns; of the core ones too, so that one kernel plays it for the one and the next kernel for the other.
//! What the files call long is left to those who ask for it. The choice depends on the scenario files alone; a new file
//! may move others to another kernel, which does no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tracer_lab::scenario::{KernelName, Named};

/// The kernels on which scenarios are played unless others are named.
const KERNELS: [&str; 6] = ["5.10", "6.1", "6.12", "6.18", "7", "5.10/pre-5.9"];

/// What can be chosen.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Choice {
    /// Play every scenario on every kernel that it names, not only the core ones
    #[arg(long)]
    full: bool,
    /// Play scenarios on these kernels only, such as 6.12 or 5.10/pre-5.9: all that name them
    #[arg(long = "kernel", value_name = "KERNEL", value_delimiter = ',')]
    kernels: Vec<KernelName>,
    /// Play these scenarios only, on every kernel that they name
    #[arg(long = "scenario", value_name = "NAME", value_delimiter = ',')]
    scenarios: Vec<String>,
}

/// What is played on one kernel, and what is left out.
#[derive(Debug)]
pub(super) struct Share<'a> {
    pub(super) kernel: KernelName,
    pub(super) played: Vec<&'a Named>,
    left: Vec<&'a Named>,
}

impl Share<'_> {
    fn takes(&self) -> Duration {
        self.played.iter().map(|named| named.scenario.estimate()).sum()
    }
}

impl Choice {
    /// Is everything wanted?
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Shares the scenarios out.
    pub(super) fn shares<'a>(&self, catalogue: &'a [Named]) -> Result<Vec<Share<'a>>> {
        let known: BTreeSet<&str> = catalogue.iter().map(|named| named.name.as_str()).collect();
        let unknown = self.scenarios.iter().find(|name| !known.contains(name.as_str()));
        if let Some(unknown) = unknown {
            bail!("there is no scenario {unknown}; `cargo xtask lab --list` names all");
        }
        let kernels: Vec<KernelName> = if self.kernels.is_empty() {
            KERNELS.iter().map(|name| name.parse()).collect::<Result<_>>()?
        } else {
            self.kernels.clone()
        };
        let wanted: Vec<&Named> = catalogue
            .iter()
            .filter(|named| self.scenarios.is_empty() || self.scenarios.contains(&named.name))
            .collect();
        // Who names a kernel or a scenario means it.
        let all = self.full || !self.kernels.is_empty() || !self.scenarios.is_empty();
        let mut shares = share(&kernels, &wanted, all);
        shares.retain(|share| !share.played.is_empty());
        ensure!(
            !shares.is_empty(),
            "none of these scenarios runs on any of these kernels"
        );
        Ok(shares)
    }
}

/// Shares scenarios out to kernels: all of them to each kernel that they name, or by the rule above.
fn share<'a>(kernels: &[KernelName], wanted: &[&'a Named], all: bool) -> Vec<Share<'a>> {
    let mut shares: Vec<Share<'a>> = kernels
        .iter()
        .map(|kernel| Share {
            kernel: kernel.clone(),
            played: Vec::new(),
            left: Vec::new(),
        })
        .collect();
    let (wanted, long): (Vec<&Named>, Vec<&Named>) =
        wanted.iter().partition(|named| all || !named.scenario.long);
    let (everywhere, once): (Vec<&Named>, Vec<&Named>) =
        wanted.iter().partition(|named| all || named.scenario.core);
    for (turn, share) in shares.iter_mut().enumerate() {
        let theirs = everywhere.iter().copied();
        let theirs: Vec<&Named> = theirs
            .filter(|named| named.scenario.runs_on(&share.kernel))
            .collect();
        (share.played, share.left) = if all {
            (theirs, Vec::new())
        } else {
            by_turns(theirs, turn)
        };
    }
    let (mut once, left) = by_turns(once, 0);
    for named in long.into_iter().chain(left) {
        let theirs = shares
            .iter_mut()
            .filter(|share| named.scenario.runs_on(&share.kernel));
        theirs.for_each(|share| share.left.push(named));
    }
    // Those that have little choice choose first.
    once.sort_by_key(|named| {
        let possible = kernels.iter().filter(|kernel| named.scenario.runs_on(kernel));
        (possible.count(), &named.name)
    });
    for named in once {
        let mut theirs: Vec<&mut Share<'a>> = shares
            .iter_mut()
            .filter(|share| named.scenario.runs_on(&share.kernel))
            .collect();
        let least = theirs.iter().map(|share| share.takes()).min();
        let chosen = theirs.iter().position(|share| Some(share.takes()) == least);
        for (index, share) in theirs.iter_mut().enumerate() {
            if Some(index) == chosen {
                share.played.push(named);
            } else {
                share.left.push(named);
            }
        }
    }
    for share in &mut shares {
        share.played.sort_by(|a, b| a.name.cmp(&b.name));
    }
    shares
}

/// Those that are played, and those that are left: of a scenario for both families one, now of this family, now of that.
/// With `first` goes which of them comes first.
fn by_turns(scenarios: Vec<&Named>, first: usize) -> (Vec<&Named>, Vec<&Named>) {
    let mut of_base: BTreeMap<&str, Vec<&Named>> = BTreeMap::new();
    for named in scenarios {
        of_base.entry(named.base()).or_default().push(named);
    }
    let (mut played, mut left) = (Vec::new(), Vec::new());
    let mut turn = first;
    for (_, mut twins) in of_base {
        let chosen = twins.remove(turn % twins.len());
        turn += usize::from(!twins.is_empty());
        played.push(chosen);
        left.extend(twins);
    }
    (played, left)
}

/// How much is left to `--full`, kernel by kernel; empty if nothing is.
pub(super) fn left(shares: &[Share<'_>]) -> String {
    let count = |which: fn(&Share<'_>) -> usize| shares.iter().map(which).sum::<usize>();
    let left = count(|share| share.left.len());
    if left == 0 {
        return String::new();
    }
    let played = count(|share| share.played.len());
    format!(
        "Of {} pairs of scenario and kernel {left} are left to --full; `cargo xtask lab --list` names them\n",
        played + left
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use clap::Parser;
    use tracer_lab::scenario::{self, Scenario};

    use crate::workspace;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        choice: Choice,
    }

    fn choice(arguments: &[&str]) -> Choice {
        let arguments = ["test"].iter().chain(arguments);
        Line::parse_from(arguments).choice
    }

    fn catalogue() -> Vec<Named> {
        scenario::load(&workspace::scenarios()).unwrap()
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

    fn names(share: &Share<'_>) -> Vec<String> {
        share.played.iter().map(|named| named.name.clone()).collect()
    }

    #[test]
    fn every_scenario_is_played_somewhere_and_the_core_everywhere() {
        let catalogue = catalogue();
        let shares = choice(&[]).shares(&catalogue).unwrap();
        for Named { name, scenario, .. } in &catalogue {
            let on = |is_played: &dyn Fn(&Named) -> bool| -> BTreeSet<&KernelName> {
                let theirs = shares
                    .iter()
                    .filter(|share| share.played.iter().any(|named| is_played(named)));
                theirs.map(|share| &share.kernel).collect()
            };
            let base = name.split('@').next().unwrap();
            if scenario.core {
                let either = on(&|named| named.base() == base);
                assert_eq!(either, scenario.kernels.iter().collect(), "{name}");
            }
            let exactly = on(&|named| named.name == *name);
            assert!(exactly.iter().all(|kernel| scenario.runs_on(kernel)), "{name}");
            let is_alone = catalogue.iter().filter(|named| named.base() == base).count() == 1;
            let is_due = scenario.core && (is_alone || scenario.kernels.len() > 1);
            assert!(!is_due || !exactly.is_empty(), "{name}");
        }
        let mut of_base: BTreeMap<&str, usize> = BTreeMap::new();
        for named in shares.iter().flat_map(|share| &share.played) {
            *of_base.entry(named.base()).or_default() += 1;
        }
        for Named { name, scenario, .. } in catalogue.iter().filter(|named| !named.scenario.core) {
            let base = name.split('@').next().unwrap();
            let times = usize::from(!scenario.long);
            assert_eq!(of_base.get(base).copied().unwrap_or_default(), times, "{name}");
        }
    }

    #[test]
    fn the_families_take_turns() {
        let all: Vec<Named> = ["a", "a@ipv6", "b", "c", "c@ipv6", "d", "d@ipv6"]
            .map(|name| named(name, r#"["6.12"]"#, false))
            .into();
        let kernels = ["6.12".parse().unwrap()];
        let shares = share(&kernels, &all.iter().collect::<Vec<_>>(), false);
        assert_eq!(names(&shares[0]), ["a", "b", "c@ipv6", "d"]);
        assert_eq!(shares[0].left.len(), 3);
    }

    #[test]
    fn the_families_of_the_core_take_turns_from_kernel_to_kernel() {
        let kernels = r#"["6.1", "6.12"]"#;
        let all: Vec<Named> = ["a", "a@ipv6", "b", "b@ipv6"]
            .map(|name| named(name, kernels, true))
            .into();
        let wanted: Vec<&Named> = all.iter().collect();
        let kernels = ["6.1", "6.12"].map(|name| name.parse().unwrap());
        let shares = share(&kernels, &wanted, false);
        assert_eq!(names(&shares[0]), ["a", "b@ipv6"]);
        assert_eq!(names(&shares[1]), ["a@ipv6", "b"]);
    }

    #[test]
    fn what_is_left_and_what_is_played_is_everything() {
        let catalogue = catalogue();
        let pairs = |arguments: &[&str]| -> usize {
            let shares = choice(arguments).shares(&catalogue).unwrap();
            shares.iter().map(|share| share.played.len()).sum()
        };
        let all: usize = catalogue.iter().map(|named| named.scenario.kernels.len()).sum();
        assert_eq!(pairs(&["--full"]), all);
        let shares = choice(&[]).shares(&catalogue).unwrap();
        let left: usize = shares.iter().map(|share| share.left.len()).sum();
        assert_eq!(pairs(&[]) + left, all);
        assert!(super::left(&choice(&["--full"]).shares(&catalogue).unwrap()).is_empty());
        assert!(super::left(&shares).starts_with(&format!("Of {all} pairs of scenario and kernel {left} ")));
    }

    #[test]
    fn those_with_little_choice_choose_first_and_the_others_fill_up() {
        let all = [
            named("a", r#"["6.1", "6.12"]"#, false),
            named("b", r#"["6.1", "6.12"]"#, false),
            named("c", r#"["6.12"]"#, false),
            named("d", r#"["6.1", "6.12"]"#, true),
            named("e", r#"["6.1", "6.12"]"#, false),
        ];
        let shares = choice(&[]).shares(&all).unwrap();
        let by_kernel: Vec<_> = shares
            .iter()
            .map(|share| (share.kernel.to_string(), names(share)))
            .collect();
        let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            by_kernel,
            [
                ("6.1".to_owned(), strings(&["a", "b", "d"])),
                ("6.12".to_owned(), strings(&["c", "d", "e"])),
            ]
        );
    }

    #[test]
    fn who_names_a_kernel_or_a_scenario_means_it() {
        let catalogue = catalogue();
        let shares = choice(&["--kernel", "6.12"]).shares(&catalogue).unwrap();
        let on = catalogue
            .iter()
            .filter(|named| named.scenario.runs_on(&shares[0].kernel));
        assert_eq!((shares.len(), shares[0].played.len()), (1, on.count()));

        let shares = choice(&["--scenario", "rule-dropped"])
            .shares(&catalogue)
            .unwrap();
        let rule_dropped = catalogue
            .iter()
            .find(|named| named.name == "rule-dropped")
            .unwrap();
        assert_eq!(shares.len(), rule_dropped.scenario.kernels.len());

        choice(&["--scenario", "no-such-thing"])
            .shares(&catalogue)
            .unwrap_err();
        choice(&["--kernel", "4.19"]).shares(&catalogue).unwrap_err();
    }
}
