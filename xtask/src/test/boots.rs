//! How what is to be played is cut into boots, so that all guests are busy to the end.
//!
//! As many guests run as there are processors, so one processor each is what they can really have; where they are
//! emulated, a second one costs nearly half of the speed, because each waits for the other while neither runs. What may
//! happen on two processors at once is seen where IPVS' decisions are played, and where there are thousands of clients.

use std::time::Duration;

use tracer_lab::scenario::{KernelName, Named};

use crate::lab::{CPUS, Wanted, guests};

/// What is played on a kernel.
type Share<'a> = (KernelName, Vec<&'a Named>);

/// Cuts what is played on a kernel into several boots where it is more than half of what one guest has to do, and puts
/// the longest first: the short ones then fill the gaps at the end.
pub(super) fn cut<'a>(kernels: impl IntoIterator<Item = Share<'a>>) -> Vec<Wanted<'a>> {
    let kernels: Vec<Share<'a>> = kernels.into_iter().collect();
    let total: Duration = kernels.iter().map(|(_, scenarios)| takes(scenarios)).sum();
    let most = total / u32::try_from(2 * guests()).unwrap_or(u32::MAX);
    let mut boots: Vec<Wanted<'a>> = Vec::new();
    for (kernel, scenarios) in kernels {
        let (wide, narrow): (Vec<&Named>, Vec<&Named>) = scenarios
            .into_iter()
            .partition(|named| named.scenario.core || named.scenario.long);
        for (cpus, scenarios) in [(CPUS, wide), (1, narrow)] {
            boots.extend(pieces(&scenarios, most).into_iter().map(|scenarios| Wanted {
                kernel: kernel.clone(),
                cpus,
                scenarios,
            }));
        }
    }
    boots.sort_by_key(|boot| std::cmp::Reverse(takes(&boot.scenarios)));
    boots
}

/// Cuts scenarios into pieces that take about `most`.
fn pieces<'a>(scenarios: &[&'a Named], most: Duration) -> Vec<Vec<&'a Named>> {
    let parts = takes(scenarios).as_secs_f64() / most.as_secs_f64().max(1.0);
    // Rounded, for a boot costs something too: only what is clearly too long is cut.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number"
    )]
    let parts = (parts.round() as usize).clamp(1, scenarios.len().max(1));
    let each = scenarios.len().div_ceil(parts).max(1);
    scenarios.chunks(each).map(<[&Named]>::to_vec).collect()
}

fn takes(scenarios: &[&Named]) -> Duration {
    scenarios.iter().map(|named| named.scenario.estimate()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_lab::scenario;

    use crate::workspace;

    #[test]
    fn one_kernel_keeps_all_guests_busy_and_nothing_is_lost() {
        let catalogue = scenario::load(&workspace::scenarios()).unwrap();
        let kernel: KernelName = "6.12".parse().unwrap();
        let all: Vec<&Named> = catalogue.iter().collect();
        let boots = cut([(kernel.clone(), all.clone())]);
        assert!(boots.len() >= guests(), "{}", boots.len());
        let mut names: Vec<&str> = boots
            .iter()
            .flat_map(|boot| &boot.scenarios)
            .map(|named| &*named.name)
            .collect();
        names.sort_unstable();
        assert_eq!(names, all.iter().map(|named| &*named.name).collect::<Vec<_>>());
    }

    #[test]
    fn the_longest_comes_first_and_what_two_processors_do_is_played_on_two() {
        let catalogue = scenario::load(&workspace::scenarios()).unwrap();
        let all: Vec<&Named> = catalogue.iter().collect();
        let few = all[..all.len() - 2].to_vec();
        let kernels = [
            ("5.10", few),
            ("6.1", all.clone()),
            ("6.12", all.clone()),
            ("7", all),
        ];
        let boots = cut(kernels.map(|(name, scenarios)| (name.parse().unwrap(), scenarios)));
        let lengths: Vec<Duration> = boots.iter().map(|boot| takes(&boot.scenarios)).collect();
        assert!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
        for boot in boots {
            for named in boot.scenarios {
                let is_wide = named.scenario.core || named.scenario.long;
                assert_eq!(boot.cpus, if is_wide { 2 } else { 1 }, "{}", named.name);
            }
        }
    }
}
