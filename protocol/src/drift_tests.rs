//! Chance raises no alarm at more than the stated rate, a real shift does, and the figures keep
//! their bounds.

use proptest::prelude::*;

use super::*;
use crate::sketch::Observation;

/// SplitMix64 (G. L. Steele and others, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }

    /// A frame of a plant: most answers sure, classes of very unequal shares, light around `light`.
    fn frame(&mut self, light: f32) -> Observation {
        let bell = |r: &mut Self| (r.unit() + r.unit() + r.unit()) / 3.0 - 0.5;
        let class = (self.unit().powi(4) * 50.0) as usize;
        Observation {
            classes: 50,
            class,
            confidence: 1.0 - self.unit().powi(6),
            brightness: light + 0.3 * bell(self),
            contrast: 0.2 + 0.1 * bell(self),
        }
    }

    fn sketch(&mut self, frames: usize, light: f32) -> Sketch {
        let mut sketch = Sketch::default();
        (0..frames).for_each(|_| sketch.add(&self.frame(light)));
        sketch
    }
}

#[test]
fn frames_of_one_source_go_over_a_bound_and_raise_an_alarm_no_oftener_than_stated() {
    let mut random = Random(1);
    for (reference, recent) in [(500, 500), (1000, 3600), (4096, 600), (20_000, 500)] {
        let trials = 4_000_000 / (reference + recent);
        let (mut beyond, mut alarms) = ([0usize; 7], 0);
        for _ in 0..trials {
            let (a, b) = (random.sketch(reference, 0.5), random.sketch(recent, 0.5));
            let drift = compare(&a, &b);
            let measures = drift.features.iter().flat_map(|finding| [finding.psi, finding.ks]);
            for (count, measure) in beyond.iter_mut().zip(measures.flatten()) {
                *count += usize::from(measure.is_beyond_chance());
            }
            alarms += usize::from(drift.verdict != Verdict::Steady);
            assert!(drift.verdict < Verdict::Drifted, "{drift:#?}");
        }
        // Four deviations over the mean of a Poisson count.
        let most = |features: f64| {
            let mean = features * CHANCE * trials as f64;
            (mean + 4.0 * mean.sqrt()).ceil() as usize
        };
        let sides = format!("of {trials} with {reference} and {recent} frames");
        assert!(beyond.iter().all(|n| *n <= most(1.0)), "{beyond:?} {sides}");
        assert!(alarms <= most(4.0), "{alarms} {sides}");
        // With an hour of frames and a whole gate, chance is far below the conventions.
        assert!(reference.min(recent) < 1000 || alarms == 0, "{alarms} {sides}");
    }
}

#[test]
fn the_mean_by_chance_is_the_mean_of_frames_of_one_source() {
    let mut random = Random(2);
    let (n, m, trials) = (800, 1500, 1000);
    let (mut found, mut mean) = (0.0, 0.0);
    for _ in 0..trials {
        let (a, b) = (random.sketch(n, 0.5), random.sketch(m, 0.5));
        let pairs = Pairs::of(a.brightness.counts(), b.brightness.counts()).pool_neighbours();
        let (psi, expected) = pairs.psi();
        found += psi.found / f64::from(trials);
        mean += expected / f64::from(trials);
    }
    assert!((found / mean - 1.0).abs() < 0.1, "{found} against {mean}");
}

#[test]
fn light_that_goes_is_drift_of_brightness_and_of_nothing_else() {
    let mut random = Random(3);
    let reference = random.sketch(4096, 0.5);
    for (light, verdict) in [
        (0.5, Verdict::Steady),
        (0.49, Verdict::Steady),
        (0.48, Verdict::Shifting),
        (0.35, Verdict::Drifted),
        (0.05, Verdict::Drifted),
    ] {
        let drift = compare(&reference, &random.sketch(3600, light));
        let of = |feature| drift.features.iter().find(|f| f.feature == feature).unwrap().verdict;
        assert_eq!(of(Feature::Brightness), verdict, "{light}: {drift:#?}");
        assert_eq!(drift.verdict, verdict.max(Verdict::Steady));
        for other in [Feature::Classes, Feature::Confidence, Feature::Contrast] {
            assert_eq!(of(other), Verdict::Steady, "{light}: {drift:#?}");
        }
    }
}

#[test]
fn drift_says_in_words_what_became_of_the_picture() {
    let mut random = Random(5);
    let reference = random.sketch(4096, 0.5);
    for (light, words) in [(0.3, "the picture is darker"), (0.7, "the picture is brighter")] {
        let drift = compare(&reference, &random.sketch(3600, light));
        let brightness = drift.features.iter().find(|f| f.feature == Feature::Brightness).unwrap();
        assert_eq!(brightness.words(), words);
    }
    let (mut sure, mut unsure) = (vec![0; 20], vec![0; 20]);
    (sure[19], unsure[5]) = (1000, 1000);
    assert_eq!(finding(Feature::Confidence, &sure, &unsure).words(), "the model is less sure");
    assert_eq!(finding(Feature::Contrast, &unsure, &sure).words(), "the picture has more contrast");
    assert_eq!(finding(Feature::Classes, &sure, &unsure).moved, None, "classes have no order");
}

#[test]
fn everything_in_a_bin_that_was_empty_is_drift_however_unequal_the_sides() {
    for (n, m) in [(500, 500), (1_000_000, 500), (500, 1_000_000)] {
        let (mut a, mut b) = (vec![0; 32], vec![0; 32]);
        (a[3], b[28]) = (n, m);
        let found = finding(Feature::Brightness, &a, &b);
        assert_eq!(found.verdict, Verdict::Drifted, "{found:?}");
        assert_eq!(found.ks.unwrap().found, 1.0);
        assert_eq!(finding(Feature::Classes, &a, &b).verdict, Verdict::Drifted);
    }
}

#[test]
fn too_few_frames_and_features_that_were_not_measured_say_nothing() {
    let mut random = Random(4);
    let few = FEWEST_FRAMES as usize - 1;
    let (many, few) = (random.sketch(5000, 0.5), random.sketch(few, 0.0));
    for drift in [compare(&many, &few), compare(&few, &many)] {
        assert_eq!(drift.verdict, Verdict::Unknown);
        assert!(drift.features.iter().all(|f| f.psi.is_none() && f.ks.is_none()));
    }
    let mut blind = random.sketch(5000, 0.5);
    blind.brightness = Histogram::default();
    let drift = compare(&many, &blind);
    assert_eq!(drift.features[2].verdict, Verdict::Unknown);
    assert_eq!(drift.verdict, Verdict::Steady);
}

#[test]
fn the_bounds_are_those_of_the_tables() {
    // χ² at 0.999 (Abramowitz and Stegun, table 26.8).
    for (k, table) in [(1.0, 10.828), (5.0, 20.515), (19.0, 43.820), (30.0, 59.703)] {
        let found = chi_square_quantile(k);
        assert!((found / table - 1.0).abs() < 0.04, "{found} for {table}");
    }
    // c(0.001) = 1.949 (Knuth, TAOCP 2, §3.3.1; Smirnov's table: 1 − K(1.95) = 0.001).
    let pairs = Pairs::of(&[1000], &[1000]);
    assert!((pairs.ks().chance / (2.0f64 / 1000.0).sqrt() - 1.949).abs() < 1e-3);
}

proptest! {
    #[test]
    fn the_index_is_never_below_zero_and_the_distance_lies_between_0_and_1(
        a in prop::collection::vec(prop_oneof![Just(0u64), 0u64..5, 0u64..100_000, Just(u64::MAX)], 32),
        b in prop::collection::vec(prop_oneof![Just(0u64), 0u64..5, 0u64..100_000, Just(u64::MAX)], 32),
    ) {
        for feature in [Feature::Brightness, Feature::Classes] {
            let (there, back) = (finding(feature, &a, &b), finding(feature, &b, &a));
            if let Some(psi) = there.psi {
                prop_assert!(psi.found >= 0.0 && psi.found.is_finite(), "{psi:?}");
                prop_assert!(psi.chance >= 0.0 && psi.chance.is_finite(), "{psi:?}");
            }
            if let Some(ks) = there.ks {
                prop_assert!((0.0..=1.0).contains(&ks.found), "{ks:?}");
            }
            // Which side is the reference makes no difference.
            prop_assert_eq!(there.verdict, back.verdict);
        }
    }

    #[test]
    fn the_same_counts_never_drift(
        a in prop::collection::vec(prop_oneof![Just(0u64), 0u64..5, 0u64..100_000], 32),
    ) {
        let found = finding(Feature::Brightness, &a, &a);
        prop_assert!(found.verdict <= Verdict::Steady);
        prop_assert!(found.ks.is_none_or(|ks| ks.found == 0.0));
    }
}
