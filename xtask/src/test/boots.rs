//! Splits scenarios into guests, so that all cores are busy to the end.
//!
//! About one guest runs per core, so each can use one core; where QEMU emulates, a second CPU in a guest costs nearly half
//! of the speed, because the CPUs wait for each other. Effects of two CPUs at once are covered by the core scenarios and
//! the `long` ones, such as those with thousands of clients: these get two. Scenarios with a control plane need two as
//! well, and guests of their own, because those have more memory.

use std::cmp::Reverse;
use std::time::Duration;

use tracer_lab::scenario::{KernelName, Named};

use crate::lab::plan::{GUEST_CPUS, GuestPlan, parallel_guests};

/// How long a guest takes to boot and to shut down, emulated.
const BOOT: Duration = Duration::from_secs(20);

/// Splits the scenarios of each kernel into several guests if they take more than half of one guest's share of the time.
/// The longest guest comes first: the short ones then fill the gaps at the end.
pub(super) fn split<'a>(
    shares: impl IntoIterator<Item = (KernelName, Vec<&'a Named>)>,
) -> Vec<GuestPlan<'a>> {
    let shares: Vec<(KernelName, Vec<&'a Named>)> = shares.into_iter().collect();
    let total: Duration = shares.iter().map(|(_, scenarios)| estimate(scenarios)).sum();
    let limit = total / u32::try_from(2 * parallel_guests()).unwrap_or(u32::MAX);
    let mut plans: Vec<GuestPlan<'a>> = Vec::new();
    for (kernel, scenarios) in shares {
        let (large, others): (Vec<&Named>, Vec<&Named>) = scenarios
            .into_iter()
            .partition(|named| named.scenario.kubernetes.is_some());
        let (wide, narrow): (Vec<&Named>, Vec<&Named>) = others
            .into_iter()
            .partition(|named| named.scenario.core || named.scenario.long);
        for (cpus, scenarios) in [(GUEST_CPUS, large), (GUEST_CPUS, wide), (1, narrow)] {
            plans.extend(pieces(&scenarios, limit).into_iter().map(|scenarios| GuestPlan {
                kernel: kernel.clone(),
                cpus,
                scenarios,
            }));
        }
    }
    plans.sort_by_key(|plan| Reverse(estimate(&plan.scenarios)));
    plans
}

/// How long the guests take, estimated, with `parallel` of them at a time.
pub(super) fn wall_clock(plans: &[GuestPlan<'_>], parallel: usize) -> Duration {
    let guests = plans.iter().map(|plan| BOOT + estimate(&plan.scenarios));
    let total: Duration = guests.sum();
    total / u32::try_from(parallel.max(1)).unwrap_or(u32::MAX)
}

/// Splits scenarios into pieces that take about `limit`.
fn pieces<'a>(scenarios: &[&'a Named], limit: Duration) -> Vec<Vec<&'a Named>> {
    let parts = estimate(scenarios).as_secs_f64() / limit.as_secs_f64().max(1.0);
    // Rounded, because a boot takes time too: only lists that are clearly too long are split.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number"
    )]
    let parts = (parts.round() as usize).clamp(1, scenarios.len().max(1));
    let each = scenarios.len().div_ceil(parts).max(1);
    scenarios.chunks(each).map(<[&Named]>::to_vec).collect()
}

fn estimate(scenarios: &[&Named]) -> Duration {
    scenarios.iter().map(|named| named.scenario.estimate()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kernel_is_split_into_enough_guests_and_nothing_is_lost() {
        let catalogue = super::super::catalogue().unwrap();
        let kernel: KernelName = "6.12".parse().unwrap();
        let all: Vec<&Named> = catalogue.iter().collect();
        let plans = split([(kernel.clone(), all.clone())]);
        assert!(plans.len() >= parallel_guests(), "{}", plans.len());
        let mut names: Vec<&str> = plans
            .iter()
            .flat_map(|plan| &plan.scenarios)
            .map(|named| &*named.name)
            .collect();
        names.sort_unstable();
        assert_eq!(names, all.iter().map(|named| &*named.name).collect::<Vec<_>>());
    }

    #[test]
    fn the_longest_comes_first_and_core_scenarios_get_two_cpus() {
        let catalogue = super::super::catalogue().unwrap();
        let all: Vec<&Named> = catalogue.iter().collect();
        let few = all[..all.len() - 2].to_vec();
        let kernels = [
            ("5.10", few),
            ("6.1", all.clone()),
            ("6.12", all.clone()),
            ("7", all),
        ];
        let plans = split(kernels.map(|(name, scenarios)| (name.parse().unwrap(), scenarios)));
        let lengths: Vec<Duration> = plans.iter().map(|plan| estimate(&plan.scenarios)).collect();
        assert!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
        for plan in plans {
            for named in plan.scenarios {
                let is_wide = named.scenario.core || named.scenario.is_on_request();
                assert_eq!(plan.cpus, if is_wide { 2 } else { 1 }, "{}", named.name);
            }
        }
    }
}
