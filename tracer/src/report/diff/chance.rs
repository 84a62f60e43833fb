//! How likely chance alone explains a difference: two tests, without assumptions about distributions.
#![expect(clippy::cast_precision_loss, reason = "counts of flows are far below 2^53")]

/// Fisher's exact test, two-sided: the probability of a table at least as unlikely as this one, if the outcome does not depend
/// on the side. `hits` of `all` connections had the outcome, before and after.
#[must_use]
pub(super) fn fisher(hits: [u64; 2], all: [u64; 2]) -> f64 {
    let drawn = all[0];
    let total = all[0] + all[1];
    let marked = hits[0] + hits[1];
    if total == 0 || drawn == 0 || drawn == total {
        return 1.0;
    }
    let first = (drawn + marked).saturating_sub(total);
    let last = drawn.min(marked);
    // The logarithm of each probability, up to a constant: each follows from the one before it.
    let step = |k: u64| {
        let (k, marked, drawn, total) = (k as f64, marked as f64, drawn as f64, total as f64);
        (marked - k).ln() + (drawn - k).ln() - (k + 1.0).ln() - (total - marked - drawn + k + 1.0).ln()
    };
    let mut logarithms = Vec::new();
    let mut logarithm = 0.0;
    for k in first..=last {
        logarithms.push(logarithm);
        if k < last {
            logarithm += step(k);
        }
    }
    let most = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let observed = usize::try_from(hits[0] - first)
        .ok()
        .and_then(|at| logarithms.get(at));
    let limit = observed.copied().unwrap_or(most) + 1e-7;
    let (mut unlikely, mut all) = (0.0, 0.0);
    for logarithm in logarithms {
        let part = (logarithm - most).exp();
        all += part;
        if logarithm <= limit {
            unlikely += part;
        }
    }
    (unlikely / all).min(1.0)
}

/// The Mann-Whitney test, two-sided, by its normal approximation with the correction for ties: the probability of ranks at
/// least as different, if values do not depend on the side. `None` with fewer than eight values on a side, where the
/// approximation does not hold.
#[must_use]
pub(super) fn mann_whitney(before: &[u64], after: &[u64]) -> Option<f64> {
    const FEWEST: usize = 8;
    if before.len() < FEWEST || after.len() < FEWEST {
        return None;
    }
    let mut values: Vec<(u64, bool)> = before.iter().map(|&value| (value, true)).collect();
    values.extend(after.iter().map(|&value| (value, false)));
    values.sort_unstable();
    let (mut ranks, mut ties, mut place) = (0.0, 0.0, 0.0);
    for tied in values.chunk_by(|(one, _), (other, _)| one == other) {
        let length = tied.len() as f64;
        let rank = place + length.midpoint(1.0);
        ranks += rank * tied.iter().filter(|(_, is_before)| *is_before).count() as f64;
        ties += length.powi(3) - length;
        place += length;
    }
    let (one, other) = (before.len() as f64, after.len() as f64);
    let all = one + other;
    let statistic = ranks - one * (one + 1.0) / 2.0;
    let variance = one * other / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if variance <= 0.0 {
        return Some(1.0);
    }
    let distance = ((statistic - one * other / 2.0).abs() - 0.5).max(0.0);
    Some(libm::erfc(distance / variance.sqrt() / std::f64::consts::SQRT_2))
}

/// Holm's correction: the probabilities for one of several tests, so that testing many rows finds no difference where there
/// is none.
#[must_use]
pub(super) fn holm(probabilities: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&one, &other| probabilities[one].total_cmp(&probabilities[other]));
    let mut corrected = vec![1.0; probabilities.len()];
    let mut least: f64 = 0.0;
    for (done, &at) in order.iter().enumerate() {
        least = least
            .max(probabilities[at] * (probabilities.len() - done) as f64)
            .min(1.0);
        corrected[at] = least;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-4
    }

    #[test]
    fn fisher_agrees_with_known_tables() {
        // Sums of binomial coefficients.
        assert!(is_near(fisher([8, 1], [10, 6]), 0.034_965));
        assert!(is_near(fisher([3, 1], [4, 4]), 0.485_714));
        assert!(is_near(fisher([5, 5], [10, 10]), 1.0));
        assert!(fisher([0, 0], [10, 10]) > 0.999 && fisher([0, 0], [0, 5]) > 0.999);
        assert!(fisher([500, 0], [100_000, 100_000]) < 1e-100);
    }

    #[test]
    fn mann_whitney_agrees_with_known_samples() {
        let before: Vec<u64> = (1..=10).collect();
        let after: Vec<u64> = (6..=15).collect();
        // The same formula in exact arithmetic, with C's erfc().
        let found = mann_whitney(&before, &after).expect("enough values");
        assert!(is_near(found, 0.005_075), "{found}");
        assert!(mann_whitney(&before, &before).is_some_and(|same| same > 0.99));
        assert_eq!(mann_whitney(&[7; 9], &[7; 9]), Some(1.0));
        assert_eq!(mann_whitney(&before[..7], &after), None);
    }

    #[test]
    fn holm_multiplies_the_least_probability_by_the_number_of_tests() {
        let corrected = holm(&[0.01, 0.04, 0.03]);
        assert!(is_near(corrected[0], 0.03) && is_near(corrected[1], 0.06) && is_near(corrected[2], 0.06));
        assert_eq!(holm(&[]), Vec::<f64>::new());
    }
}
