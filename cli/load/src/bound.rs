//! Exact confidence bounds of a share: `k` bad ones of `n`, and what the true share may be.
//!
//! Clopper and Pearson (1934), by bisection of the binomial distribution. A normal approximation is wrong exactly
//! where gates look: none or a handful of failures among thousands.

/// The chance of being wrong on each side: a bound holds with 95 % confidence.
pub const ALPHA: f64 = 0.05;

/// Returns the largest share that `k` of `n` leaves plausible. 1 when nothing was seen.
#[must_use]
pub fn upper(k: u64, n: u64) -> f64 {
    if n == 0 || k >= n {
        return 1.0;
    }
    if k == 0 {
        // (1 - p)^n = ALPHA
        return 1.0 - ALPHA.powf(1.0 / n as f64);
    }
    bisect(|share| at_most(k, n, share) > ALPHA)
}

/// Returns the smallest share that `k` of `n` leaves plausible. 0 when nothing was seen.
#[must_use]
pub fn lower(k: u64, n: u64) -> f64 {
    if n == 0 || k == 0 {
        return 0.0;
    }
    if k >= n {
        return ALPHA.powf(1.0 / n as f64);
    }
    bisect(|share| at_least(k, n, share) < ALPHA)
}

/// Returns how many samples a share of `k` in `n` needs until its upper bound is below `limit`; none when the share
/// itself is not below it, so that no number would do.
#[must_use]
pub fn needed(k: u64, n: u64, limit: f64) -> Option<u64> {
    if !(limit > 0.0 && limit < 1.0) || (n > 0 && k as f64 / n as f64 >= limit) {
        return None;
    }
    // As many bad ones as the share seen would bring, never fewer than seen.
    let bad =
        |samples: u64| if n == 0 { 0 } else { ((k as f64 * samples as f64 / n as f64).ceil() as u64).max(k) };
    let enough = |samples: u64| upper(bad(samples), samples) < limit;
    let mut high = n.max(1);
    while !enough(high) {
        // Beyond a billion requests the answer is no advice any more.
        high = high.checked_mul(2).filter(|&samples| samples <= 1_000_000_000)?;
    }
    let mut low = high / 2;
    while low + 1 < high {
        let middle = low.midpoint(high);
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

/// Returns the share at which `below` turns from true to false.
fn bisect(below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // Each step halves the interval: 60 of them reach the precision of a float.
    for _ in 0..60 {
        let middle = low.midpoint(high);
        if below(middle) { low = middle } else { high = middle }
    }
    low.midpoint(high)
}

/// Returns the chance of at most `k` bad ones among `n`, each bad with chance `share`.
fn at_most(k: u64, n: u64, share: f64) -> f64 {
    // Whichever tail is the smaller is summed: its terms fall quickly.
    if k as f64 <= n as f64 * share { tail_down(k, n, share) } else { 1.0 - tail_up(k + 1, n, share) }
}

/// Returns the chance of at least `k` bad ones.
fn at_least(k: u64, n: u64, share: f64) -> f64 {
    if k as f64 >= n as f64 * share { tail_up(k, n, share) } else { 1.0 - tail_down(k - 1, n, share) }
}

fn tail_down(k: u64, n: u64, share: f64) -> f64 {
    let odds = share / (1.0 - share);
    let mut term = exactly(k, n, share);
    let mut sum = term;
    for bad in (1..=k).rev() {
        term *= bad as f64 / ((n - bad + 1) as f64 * odds);
        sum += term;
        if term <= sum * f64::EPSILON {
            break;
        }
    }
    sum.min(1.0)
}

fn tail_up(k: u64, n: u64, share: f64) -> f64 {
    if k > n {
        return 0.0;
    }
    let odds = share / (1.0 - share);
    let mut term = exactly(k, n, share);
    let mut sum = term;
    for bad in k..n {
        term *= (n - bad) as f64 * odds / (bad + 1) as f64;
        sum += term;
        if term <= sum * f64::EPSILON {
            break;
        }
    }
    sum.min(1.0)
}

/// Returns the chance of exactly `k` bad ones.
fn exactly(k: u64, n: u64, share: f64) -> f64 {
    if share <= 0.0 {
        return if k == 0 { 1.0 } else { 0.0 };
    }
    if share >= 1.0 {
        return if k == n { 1.0 } else { 0.0 };
    }
    let ways = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    (ways + k as f64 * share.ln() + (n - k) as f64 * (-share).ln_1p()).exp()
}

/// Returns ln(n!): a sum for small `n`, Stirling's series above, good to 1e-12 there.
fn ln_factorial(n: u64) -> f64 {
    if n < 32 {
        return (2..=n).map(|factor| (factor as f64).ln()).sum();
    }
    let x = n as f64;
    x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(actual: f64, wanted: f64) -> bool {
        (actual - wanted).abs() <= 1e-8
    }

    #[test]
    fn bounds_are_those_of_exact_sums() {
        // Computed apart from this code: bisection over sums of exact binomial terms.
        for (k, n, low, high) in [
            (0, 10, 0.0, 0.258_865_550_9),
            (1, 10, 0.005_116_196_9, 0.394_163_302_4),
            (5, 10, 0.222_441_101_0, 0.777_558_899_0),
            (10, 10, 0.741_134_449_1, 1.0),
            (2, 100, 0.003_565_152_6, 0.061_619_200_4),
            (3, 1000, 0.000_818_175_4, 0.007_735_244_7),
        ] {
            assert!(near(lower(k, n), low), "{k}/{n}: {}", lower(k, n));
            assert!(near(upper(k, n), high), "{k}/{n}: {}", upper(k, n));
        }
    }

    #[test]
    fn nothing_seen_bounds_nothing() {
        assert_eq!((lower(0, 0), upper(0, 0)), (0.0, 1.0));
    }

    #[test]
    fn without_a_failure_the_known_sample_sizes_come_out() {
        assert!(upper(0, 298) > 0.01 && upper(0, 299) < 0.01);
        assert!(upper(0, 2994) > 0.001 && upper(0, 2995) < 0.001);
        assert_eq!(needed(0, 0, 0.01), Some(299));
        assert_eq!(needed(0, 100, 0.001), Some(2995));
        assert_eq!(needed(5, 100, 0.01), None);
    }

    #[test]
    fn an_advised_sample_is_enough() {
        for (k, n, limit) in [(2, 1000, 0.005), (3, 5000, 0.001), (40, 5000, 0.01)] {
            let samples = needed(k, n, limit).unwrap();
            assert!(samples > n, "{k}/{n} was not enough");
            let bad = (k as f64 * samples as f64 / n as f64).ceil() as u64;
            assert!(upper(bad, samples) < limit, "{k}/{n} -> {samples}");
        }
    }

    #[test]
    fn bounds_enclose_the_share_and_tighten_with_more_samples() {
        let mut last = 1.0;
        for n in [100, 1_000, 10_000, 1_000_000, 50_000_000] {
            let k = n / 50;
            assert!(lower(k, n) < 0.02 && 0.02 < upper(k, n), "{n}");
            let width = upper(k, n) - lower(k, n);
            assert!(width < last, "{n}");
            last = width;
        }
    }

    #[test]
    fn the_bound_has_the_tail_it_promises() {
        for (k, n) in [(1, 20), (7, 300), (150, 5000), (4_990, 5_000)] {
            assert!(near(at_most(k, n, upper(k, n)), ALPHA), "{k}/{n}");
            assert!(near(at_least(k, n, lower(k, n)), ALPHA), "{k}/{n}");
        }
    }
}
