//! How what is to be played is cut into boots, so that all guests are busy to the end.

use std::time::Duration;

use tracer_lab::scenario::{KernelName, Named};

use crate::lab::guests;

/// One boot: a kernel, and what is played on it.
pub(super) type Boot<'a> = (KernelName, Vec<&'a Named>);

/// Cuts what is played on a kernel into several boots where it is more than half of what one guest has to do, and puts
/// the longest first: the short ones then fill the gaps at the end.
pub(super) fn cut<'a>(kernels: impl IntoIterator<Item = Boot<'a>>) -> Vec<Boot<'a>> {
    let kernels: Vec<Boot<'a>> = kernels.into_iter().collect();
    let total: Duration = kernels.iter().map(|(_, scenarios)| takes(scenarios)).sum();
    let most = total / u32::try_from(2 * guests()).unwrap_or(u32::MAX);
    let mut boots: Vec<Boot<'a>> = Vec::new();
    for (kernel, scenarios) in kernels {
        let parts = takes(&scenarios).as_secs_f64() / most.as_secs_f64().max(1.0);
        // Rounded, for a boot costs something too: only what is clearly too long is cut.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let parts = (parts.round() as usize).clamp(1, scenarios.len().max(1));
        let each = scenarios.len().div_ceil(parts).max(1);
        boots.extend(
            scenarios
                .chunks(each)
                .map(|chunk| (kernel.clone(), chunk.to_vec())),
        );
    }
    boots.sort_by_key(|(_, scenarios)| std::cmp::Reverse(takes(scenarios)));
    boots
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
            .flat_map(|(_, scenarios)| scenarios)
            .map(|named| &*named.name)
            .collect();
        names.sort_unstable();
        assert_eq!(names, all.iter().map(|named| &*named.name).collect::<Vec<_>>());
    }

    #[test]
    fn kernels_of_equal_weight_get_one_boot_each_and_the_longest_comes_first() {
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
        // More guests than two want smaller pieces.
        assert_eq!(boots.len(), if guests() == 2 { 4 } else { boots.len().max(5) });
        let lengths: Vec<Duration> = boots.iter().map(|(_, scenarios)| takes(scenarios)).collect();
        assert!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
    }
}
