//! Selection by its properties and against models of it: the stream of draws against its published
//! numbers, the budget against the definition of a token bucket.

use proptest::prelude::*;

use super::*;

const RANDOM: Selection = Selection::Random { rate: 0.1 };
const UNCERTAIN: Selection = Selection::Uncertain { score: 0.9 };

#[test]
fn when_everything_is_uncertain_random_samples_still_fit() {
    let config = SelectionConfig {
        budget_bytes_per_hour: 3_600_000,
        burst_bytes: 10_000,
        ..SelectionConfig::default()
    };
    let mut budget = Budget::new(&config, Duration::ZERO);
    let mut random = 0;
    for ms in 0..100_000 {
        let now = Duration::from_millis(ms);
        // 100 bytes every millisecond are a hundred times what the budget gives.
        budget.take(now, 100, &UNCERTAIN);
        random += usize::from(ms % 1000 == 0 && budget.take(now, 100, &RANDOM));
    }
    assert_eq!(random, 100);
}

#[test]
fn a_change_of_the_budget_counts_from_now_and_fills_nothing() {
    let config = |rate, burst| SelectionConfig {
        budget_bytes_per_hour: rate,
        burst_bytes: burst,
        ..SelectionConfig::default()
    };
    let mut budget = Budget::new(&config(100, 1000), Duration::ZERO);
    assert!(budget.take(Duration::ZERO, 1000, &RANDOM));
    let hour = Duration::from_secs(3600);
    budget.adjust(&config(10, 5000), hour);
    assert_eq!(budget.level_bytes(hour, &RANDOM), 100, "the first hour at the old rate");
    assert_eq!(budget.level_bytes(2 * hour, &RANDOM), 110, "the second at the new one");
    budget.adjust(&config(10, 50), 2 * hour);
    assert_eq!(budget.level_bytes(2 * hour, &RANDOM), 50);
}

#[test]
fn draws_go_on_over_a_change_unless_another_seed_is_given() {
    let half = SelectionConfig { random_rate: 0.5, seed: Some(3), ..SelectionConfig::default() };
    let draw = |selector: &mut Selector| {
        (0..64).map(|_| selector.consider(0.0).is_some()).collect::<Vec<_>>()
    };
    let (mut steady, mut changed) = (Selector::new(&half, 3), Selector::new(&half, 3));
    assert_eq!(draw(&mut steady), draw(&mut changed));
    let same = SelectionConfig { uncertainty_threshold: 0.9, ..half.clone() };
    changed.adjust(&half, &same);
    assert_eq!(draw(&mut steady), draw(&mut changed));
    changed.adjust(&same, &SelectionConfig { seed: Some(4), ..same.clone() });
    assert_eq!(draw(&mut changed), draw(&mut Selector::new(&half, 4)));
}

fn config(threshold: f32, rate: f32) -> SelectionConfig {
    SelectionConfig {
        uncertainty_threshold: threshold,
        random_rate: rate,
        ..SelectionConfig::default()
    }
}

#[test]
fn the_random_share_is_the_rate_whatever_the_model_thinks() {
    for entropy in [0.0, 1.0] {
        let mut selector = Selector::new(&config(0.5, 0.1), 3);
        let random = (0..100_000)
            .filter(|_| matches!(selector.consider(entropy), Some(Selection::Random { .. })))
            .count();
        // Binomial, n = 100,000, p = 0.1: six standard deviations are 569.
        assert!(random.abs_diff(10_000) < 569, "{random}");
    }
}

#[test]
fn an_answer_that_is_no_number_is_not_uncertain() {
    assert_eq!(Selector::new(&config(0.0, 0.0), 1).consider(f32::NAN), None);
}

proptest! {
    #[test]
    fn without_random_draws_exactly_the_uncertain_are_chosen(
        threshold in 0f32..=1.0, entropies in prop::collection::vec(0f32..=1.0, 0..50), seed: u64,
    ) {
        let mut selector = Selector::new(&config(threshold, 0.0), seed);
        for entropy in entropies {
            let chosen = selector.consider(entropy);
            prop_assert_eq!(chosen, (entropy >= threshold).then_some(Selection::Uncertain { score: entropy }));
        }
    }

    #[test]
    fn the_same_seed_chooses_the_same(
        rate in 0f32..=1.0, entropies in prop::collection::vec(0f32..=1.0, 0..50), seed: u64,
    ) {
        let run = || {
            let mut selector = Selector::new(&config(0.5, rate), seed);
            entropies.iter().map(|e| selector.consider(*e)).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn no_span_passes_more_than_the_burst_and_what_the_rate_adds(
        rate in 0u64..100_000_000, burst in 1u64..10_000_000,
        steps in prop::collection::vec((0u64..600_000, 1u64..200_000, any::<bool>()), 1..80),
    ) {
        let config = SelectionConfig {
            budget_bytes_per_hour: rate, burst_bytes: burst, ..SelectionConfig::default()
        };
        let mut budget = Budget::new(&config, Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut passed: Vec<(Duration, u64)> = Vec::new();
        for (wait_ms, bytes, random) in steps {
            now += Duration::from_millis(wait_ms);
            if budget.take(now, bytes, if random { &RANDOM } else { &UNCERTAIN }) {
                passed.push((now, bytes));
            }
        }
        for first in 0..passed.len() {
            let mut sum = 0u128;
            for (at, bytes) in &passed[first..] {
                sum += u128::from(*bytes);
                let span_ms = (*at - passed[first].0).as_millis();
                // Rounded up: the bucket counts nanoseconds, the test milliseconds.
                let gained = u128::from(rate) * span_ms / 3_600_000 + 1;
                prop_assert!(sum <= u128::from(burst) + gained);
            }
        }
    }

    #[test]
    fn what_fits_the_burst_passes_after_enough_quiet(burst in 1u64..1_000_000, bytes in 1u64..1_000_000) {
        let config = SelectionConfig {
            budget_bytes_per_hour: 1_000_000, burst_bytes: burst, ..SelectionConfig::default()
        };
        let mut budget = Budget::new(&config, Duration::ZERO);
        budget.take(Duration::ZERO, burst, &RANDOM);
        let later = Duration::from_secs(3600);
        let uncertain = budget.clone().take(later, bytes, &UNCERTAIN);
        prop_assert_eq!(uncertain, bytes <= burst - burst / 4);
        prop_assert_eq!(budget.take(later, bytes, &RANDOM), bytes <= burst);
    }
}

/// The first numbers of the generator's reference implementation (Vigna, `splitmix64.c`) for this seed.
#[test]
fn the_draws_are_those_of_splitmix64() {
    let mut draws = Draws(1_234_567);
    let published = [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
        4_593_380_528_125_082_431,
        16_408_922_859_458_223_821,
    ];
    assert_eq!(published.map(|_| draws.next()), published);
}

/// A bucket by its definition: what may pass now is the least, over every moment since which nothing
/// flowed over, of a full bucket and what the rate added since, less what passed since.
struct Ledger {
    rate: i128,
    burst: i128,
    now: i128,
    /// When, and how many byte-nanoseconds-an-hour went out; what came back is negative.
    moves: Vec<(i128, i128)>,
}

impl Ledger {
    const UNIT: i128 = HOUR_NS as i128;

    fn level(&self) -> i128 {
        let since = |from: i128, moves: &[(i128, i128)]| {
            let gained = (self.now - from) * self.rate;
            self.burst * Self::UNIT + gained - moves.iter().map(|(_, bytes)| bytes).sum::<i128>()
        };
        // Full at the start, and never fuller than full after any move.
        let after = (0..self.moves.len()).map(|i| since(self.moves[i].0, &self.moves[i + 1..]));
        // Nor before a move: what flowed over while nothing moved is gone.
        let before = (0..self.moves.len()).map(|i| since(self.moves[i].0, &self.moves[i..]));
        let now = self.burst * Self::UNIT;
        after.chain(before).chain([since(0, &self.moves), now]).min().unwrap_or(now)
    }

    fn bytes(&self, random: bool) -> i128 {
        let kept = if random { 0 } else { self.burst / i128::from(KEPT_FOR_RANDOM) };
        (self.level() / Self::UNIT - kept).max(0)
    }
}

#[derive(Debug, Clone)]
enum Move {
    Take {
        bytes: u64,
        random: bool,
    },
    GiveBack {
        bytes: u64,
    },
    Wait {
        ns: u64,
    },
    /// The clock shows an earlier time, as none should.
    Back {
        ns: u64,
    },
}

fn a_move() -> impl Strategy<Value = Move> {
    let bytes = || prop_oneof![0u64..200, 0u64..1_000_000];
    prop_oneof![
        6 => (bytes(), any::<bool>()).prop_map(|(bytes, random)| Move::Take { bytes, random }),
        1 => bytes().prop_map(|bytes| Move::GiveBack { bytes }),
        4 => prop_oneof![0u64..10_000, 0u64..10_000_000_000_000].prop_map(|ns| Move::Wait { ns }),
        1 => (0u64..1_000_000_000).prop_map(|ns| Move::Back { ns }),
    ]
}

proptest! {
    #[test]
    fn the_budget_does_what_the_definition_of_a_token_bucket_says(
        rate in prop_oneof![0u64..10_000, 0u64..1 << 40],
        burst in prop_oneof![1u64..1000, 1u64..1 << 40],
        moves in prop::collection::vec(a_move(), 1..60),
    ) {
        let config = SelectionConfig {
            budget_bytes_per_hour: rate, burst_bytes: burst, ..SelectionConfig::default()
        };
        let mut budget = Budget::new(&config, Duration::ZERO);
        let (rate, burst) = (i128::from(rate), i128::from(burst));
        let mut ledger = Ledger { rate, burst, now: 0, moves: Vec::new() };
        let mut now = Duration::ZERO;
        for step in moves {
            match step {
                Move::Take { bytes, random } => {
                    let why = if random { &RANDOM } else { &UNCERTAIN };
                    let fits = ledger.bytes(random) >= i128::from(bytes);
                    prop_assert_eq!(budget.take(now, bytes, why), fits);
                    if fits {
                        ledger.moves.push((ledger.now, i128::from(bytes) * Ledger::UNIT));
                    }
                }
                Move::GiveBack { bytes } => {
                    budget.give_back(bytes);
                    ledger.moves.push((ledger.now, -i128::from(bytes) * Ledger::UNIT));
                }
                Move::Wait { ns } => now += Duration::from_nanos(ns),
                Move::Back { ns } => now = now.saturating_sub(Duration::from_nanos(ns)),
            }
            // Looked at after every move, so that the budget's time is the ledger's.
            let level = budget.level_bytes(now, &RANDOM);
            ledger.now = ledger.now.max(now.as_nanos() as i128);
            prop_assert_eq!(i128::from(level), ledger.bytes(true));
            prop_assert_eq!(i128::from(budget.level_bytes(now, &UNCERTAIN)), ledger.bytes(false));
        }
    }

    /// Which frames are drawn depends on the seed and the rate alone, so the share stays unbiased
    /// whatever the model thinks; the others are chosen by the threshold alone.
    #[test]
    fn what_is_drawn_at_random_does_not_depend_on_the_answers(
        rate in 0f32..=1.0, threshold in 0f32..=1.0, seed: u64,
        entropies in prop::collection::vec(prop_oneof![
            0f32..=1.0, Just(f32::NAN), Just(f32::INFINITY), Just(-1.0), Just(2.0)
        ], 1..100),
    ) {
        let mut sure = Selector::new(&config(threshold, rate), seed);
        let mut selector = Selector::new(&config(threshold, rate), seed);
        for entropy in entropies {
            let drawn = matches!(sure.consider(f32::NAN), Some(Selection::Random { .. }));
            let expected = match entropy {
                _ if drawn => Some(Selection::Random { rate }),
                entropy if entropy >= threshold => {
                    Some(Selection::Uncertain { score: entropy.min(1.0) })
                }
                _ => None,
            };
            prop_assert_eq!(selector.consider(entropy), expected);
        }
    }
}
