//! How sure a share is, and a change of it on the same items. Pure.

use fleetloop_protocol::api::reports::{Counts, Interval};

/// The standard normal quantile of a two-sided interval of 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// The answers of two models to the same items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Both are good.
    pub both: u64,
    /// Only the new one is.
    pub won: u64,
    /// Only the old one is.
    pub lost: u64,
    /// Neither is.
    pub neither: u64,
}

impl Pairs {
    /// All items.
    pub fn of(self) -> u64 {
        self.both + self.won + self.lost + self.neither
    }

    /// The old one's good answers.
    pub fn base(self) -> Counts {
        Counts { good: self.both + self.lost, of: self.of() }
    }

    /// The new one's good answers.
    pub fn ours(self) -> Counts {
        Counts { good: self.both + self.won, of: self.of() }
    }
}

/// Where the share of good ones lies: the score interval without continuity correction (E. B. Wilson,
/// "Probable inference, the law of succession, and statistical inference", J. Am. Stat. Assoc. 22
/// (1927), 209-212). Everywhere, of nothing.
pub fn wilson(counts: Counts) -> Interval {
    if counts.of == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, p) = (real(counts.of), counts.share());
    let middle = Z.mul_add(Z / (2.0 * n), p);
    let half = Z * (p.mul_add(1.0 - p, Z * Z / (4.0 * n)) / n).sqrt();
    let scale = 1.0 + Z * Z / n;
    // Rounding must not exclude what was found.
    let (low, high) = ((middle - half) / scale, (middle + half) / scale);
    Interval { low: low.clamp(0.0, p), high: high.clamp(p, 1.0) }
}

/// Where the change of the share lies, new minus old, on the same items: Wilson's intervals of both
/// shares, joined by their correlation (R. G. Newcombe, "Improved confidence intervals for the difference
/// between binomial proportions based on paired data", Statistics in Medicine 17 (1998), 2635-2650,
/// method 10). Everywhere, of nothing.
pub fn change(pairs: Pairs) -> Interval {
    let n = real(pairs.of());
    if pairs.of() == 0 {
        return Interval { low: -1.0, high: 1.0 };
    }
    let (new, old) = (pairs.ours().share(), pairs.base().share());
    let (around_new, around_old) = (wilson(pairs.ours()), wilson(pairs.base()));
    let (both, won, lost, neither) =
        (real(pairs.both), real(pairs.won), real(pairs.lost), real(pairs.neither));
    let margins = (both + won) * (lost + neither) * (both + lost) * (won + neither);
    let together = both.mul_add(neither, -(won * lost));
    let corrected = if together > 0.0 { (together - n / 2.0).max(0.0) } else { together };
    let correlation = if margins == 0.0 { 0.0 } else { corrected / margins.sqrt() };
    let width =
        |a: f64, b: f64| (2.0 * correlation * a).mul_add(-b, a.mul_add(a, b * b)).max(0.0).sqrt();
    let change = new - old;
    Interval {
        low: (change - width(new - around_new.low, around_old.high - old)).max(-1.0),
        high: (change + width(old - around_old.low, around_new.high - new)).min(1.0),
    }
}

/// How probable so uneven a division of the items on which two models differ is, if neither is better: the
/// exact two-sided test (Q. McNemar, "Note on the sampling error of the difference between correlated
/// proportions or percentages", Psychometrika 12 (1947), 153-157, by the binomial distribution).
pub fn mcnemar(pairs: Pairs) -> f64 {
    let (fewer, all) = (pairs.won.min(pairs.lost), pairs.won + pairs.lost);
    // In logarithms: half to the power of a thousand is no float.
    let mut term = -real(all) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..=fewer {
        tail += term.exp();
        term += (real(all - k) / real(k + 1)).ln();
    }
    (2.0 * tail).min(1.0)
}

#[expect(clippy::cast_precision_loss, reason = "a dataset has far fewer than 2^52 items")]
const fn real(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 5e-5
    }

    #[test]
    fn wilsons_interval_is_that_of_the_literature() {
        // Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17
        // (1998), 857-872, table I, method 3.
        for ((good, of), (low, high)) in [
            ((81, 263), (0.2553, 0.3662)),
            ((15, 148), (0.0624, 0.1605)),
            ((0, 20), (0.0, 0.1611)),
            ((1, 29), (0.0061, 0.1718)),
        ] {
            let found = wilson(Counts { good, of });
            assert!(near(found.low, low) && near(found.high, high), "{found:?}");
        }
        assert_eq!(wilson(Counts::default()), Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn the_exact_test_is_the_binomial_one() {
        let p = |won, lost| mcnemar(Pairs { won, lost, ..Pairs::default() });
        assert!(near(p(5, 0), 0.0625) && near(p(0, 5), 0.0625));
        assert!(near(p(1, 7), 0.070_312_5), "2 (1 + 8) / 2^8");
        assert!(near(p(3, 3), 1.0) && near(p(0, 0), 1.0));
        assert!(p(4000, 1000) < 1e-100 && p(2500, 2500) > 0.99);
    }

    #[test]
    fn the_interval_of_a_change_is_that_of_the_literature() {
        // Newcombe's first example.
        let found = change(Pairs { both: 36, won: 12, lost: 2, neither: 0 });
        assert!(near(found.low, 0.056_93) && near(found.high, 0.340_43), "{found:?}");
        assert_eq!(change(Pairs::default()), Interval { low: -1.0, high: 1.0 });
    }

    /// ln n!
    fn ln_factorial(n: u64) -> f64 {
        (1..=n).map(|k| real(k).ln()).sum()
    }

    #[test]
    fn the_interval_of_a_change_holds_the_true_change_as_often_as_it_says() {
        const N: u64 = 30;
        for [both, won, lost, neither] in
            [[0.8, 0.05, 0.05, 0.1], [0.5, 0.2, 0.1, 0.2], [0.9, 0.02, 0.07, 0.01]]
        {
            let (truth, mut covered): (f64, f64) = (won - lost, 0.0);
            for a in 0..=N {
                for b in 0..=N - a {
                    for c in 0..=N - a - b {
                        let d = N - a - b - c;
                        let pairs = Pairs { both: a, won: b, lost: c, neither: d };
                        let ways =
                            ln_factorial(N) - [a, b, c, d].map(ln_factorial).iter().sum::<f64>();
                        let ln = [(a, both), (b, won), (c, lost), (d, neither)]
                            .map(|(n, p): (u64, f64)| real(n) * p.ln());
                        let found = change(pairs);
                        if (found.low..=found.high).contains(&truth) {
                            covered += (ways + ln.iter().sum::<f64>()).exp();
                        }
                    }
                }
            }
            assert!((0.93..0.995).contains(&covered), "{covered} of {truth}");
        }
    }

    proptest! {
        #[test]
        fn a_change_lies_in_its_interval_and_the_other_way_round_in_the_mirrored_one(
            both in 0..300_u64, won in 0..300_u64, lost in 0..300_u64, neither in 0..300_u64,
        ) {
            let pairs = Pairs { both, won, lost, neither };
            let (there, back) = (change(pairs), change(Pairs { won: lost, lost: won, ..pairs }));
            let found = pairs.ours().share() - pairs.base().share();
            prop_assert!(there.low <= found && found <= there.high);
            prop_assert!((there.low + back.high).abs() < 1e-9 && (there.high + back.low).abs() < 1e-9);
            let mirrored = Pairs { won: lost, lost: won, ..pairs };
            prop_assert!((mcnemar(pairs) - mcnemar(mirrored)).abs() < 1e-9);
        }
    }
}
