//! What a model met and what it made of it, counted: a few hundred numbers whatever the number of
//! frames, from which no frame can be told.
//!
//! A [`Histogram`] counts values from 0 to 1 in equal bins whose number is part of its type. A
//! [`Sketch`] is four of them for the frames that **one** model answered. Sketches merge by adding:
//! in any order and grouping the sum is the same, so windows, hours and devices can be put together
//! at will. Classes of two models do not add up; who keeps sketches keeps them by model.
//!
//! Limits: 84 bins and at most [`TELEMETRY_CLASSES`] classes; counts stop at their highest value
//! instead of beginning anew.

use serde::{Deserialize, Serialize};

use crate::limits::TELEMETRY_CLASSES;

/// How many bins the confidence has.
pub const CONFIDENCE_BINS: usize = 20;

/// How many bins brightness and contrast have.
pub const INPUT_BINS: usize = 32;

/// Counts of values from 0 to 1 in `N` equal bins; 1 itself is in the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct Histogram<const N: usize> {
    counts: [u64; N],
}

/// A list of counts that is not this histogram's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} bins, want {wanted}")]
pub struct WrongBins {
    found: usize,
    wanted: usize,
}

impl<const N: usize> Histogram<N> {
    /// Counts `value`. What lies outside counts as the nearest end, what is no number as 0.
    pub fn add(&mut self, value: f32) {
        let bin = (value.clamp(0.0, 1.0) * N as f32) as usize;
        if let Some(count) = self.counts.get_mut(bin.min(N.saturating_sub(1))) {
            *count = count.saturating_add(1);
        }
    }

    /// Counts everything that `other` counted as well.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        total(&self.counts)
    }

    /// The counts, from 0 to 1.
    pub fn counts(&self) -> &[u64; N] {
        &self.counts
    }
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [0; N] }
    }
}

impl<const N: usize> From<[u64; N]> for Histogram<N> {
    fn from(counts: [u64; N]) -> Self {
        Self { counts }
    }
}

impl<const N: usize> TryFrom<Vec<u64>> for Histogram<N> {
    type Error = WrongBins;

    fn try_from(counts: Vec<u64>) -> Result<Self, WrongBins> {
        let found = counts.len();
        let counts = counts.try_into().map_err(|_| WrongBins { found, wanted: N })?;
        Ok(Self { counts })
    }
}

impl<const N: usize> From<Histogram<N>> for Vec<u64> {
    fn from(histogram: Histogram<N>) -> Self {
        histogram.counts.to_vec()
    }
}

/// One answered frame, as a sketch counts it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// How many classes the model knows.
    pub classes: usize,
    /// The most probable one.
    pub class: usize,
    /// Its probability.
    pub confidence: f32,
    /// How bright the frame was, from 0 to 1.
    pub brightness: f32,
    /// How much its pixels differ, from 0 to 1.
    pub contrast: f32,
}

/// Frames that one model answered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sketch {
    /// Answers by most probable class; empty when the model has too many classes, or none came.
    pub classes: Vec<u64>,
    /// Answers by the probability of that class.
    pub confidence: Histogram<CONFIDENCE_BINS>,
    /// Frames by brightness.
    pub brightness: Histogram<INPUT_BINS>,
    /// Frames by contrast.
    pub contrast: Histogram<INPUT_BINS>,
}

impl Sketch {
    /// Counts a frame.
    pub fn add(&mut self, seen: &Observation) {
        if seen.classes <= TELEMETRY_CLASSES {
            if self.classes.len() < seen.classes {
                self.classes.resize(seen.classes, 0);
            }
            if let Some(count) = self.classes.get_mut(seen.class) {
                *count = count.saturating_add(1);
            }
        }
        self.confidence.add(seen.confidence);
        self.brightness.add(seen.brightness);
        self.contrast.add(seen.contrast);
    }

    /// Counts every frame that `other`, of the same model, counted as well.
    pub fn merge(&mut self, other: &Self) {
        if self.classes.len() < other.classes.len() {
            self.classes.resize(other.classes.len(), 0);
        }
        for (count, more) in self.classes.iter_mut().zip(&other.classes) {
            *count = count.saturating_add(*more);
        }
        self.confidence.merge(&other.confidence);
        self.brightness.merge(&other.brightness);
        self.contrast.merge(&other.contrast);
    }

    /// The same shares of at most `frames` frames: every count is scaled alike and rounded.
    #[must_use]
    pub fn at_most(&self, frames: u64) -> Self {
        // The true sum, which may be above what a count can say.
        let found: u128 = self.confidence.counts.iter().map(|count| u128::from(*count)).sum();
        if found <= u128::from(frames) {
            return self.clone();
        }
        let mut scaled = self.clone();
        let bins = scaled.confidence.counts.iter_mut().chain(&mut scaled.brightness.counts);
        let bins = bins.chain(&mut scaled.contrast.counts).chain(&mut scaled.classes);
        for count in bins {
            let exact = (u128::from(*count) * u128::from(frames)).saturating_add(found / 2);
            *count = u64::try_from(exact / found).unwrap_or(u64::MAX);
        }
        scaled
    }

    /// The frames that `other`, a part of these, did not count.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = self.clone();
        let bins = left.confidence.counts.iter_mut().zip(&other.confidence.counts);
        let bins = bins.chain(left.brightness.counts.iter_mut().zip(&other.brightness.counts));
        let bins = bins.chain(left.contrast.counts.iter_mut().zip(&other.contrast.counts));
        for (count, gone) in bins.chain(left.classes.iter_mut().zip(&other.classes)) {
            *count = count.saturating_sub(*gone);
        }
        left
    }

    /// How many frames were counted.
    pub fn frames(&self) -> u64 {
        self.confidence.total()
    }
}

/// The sum of counts, up to the highest value.
pub fn total(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram<const N: usize>() -> impl Strategy<Value = Histogram<N>> {
        let count = prop_oneof![0u64..1000, Just(u64::MAX), Just(u64::MAX / 2)];
        prop::collection::vec(count, N).prop_map(|counts| counts.try_into().unwrap())
    }

    fn sketch() -> impl Strategy<Value = Sketch> {
        (prop::collection::vec(0u64..1000, 0..12), histogram(), histogram(), histogram()).prop_map(
            |(classes, confidence, brightness, contrast)| Sketch {
                classes,
                confidence,
                brightness,
                contrast,
            },
        )
    }

    fn merged(a: &Sketch, b: &Sketch) -> Sketch {
        let mut sum = a.clone();
        sum.merge(b);
        sum
    }

    proptest! {
        #[test]
        fn scaling_keeps_the_shares_and_never_exceeds_by_more_than_rounding(
            a in sketch(),
            frames in 0u64..100_000,
        ) {
            let scaled = a.at_most(frames);
            prop_assert!(scaled.frames() <= a.frames().min(frames + CONFIDENCE_BINS as u64));
            if a.frames() <= frames {
                prop_assert_eq!(scaled, a);
            }
        }

        #[test]
        fn what_was_merged_can_be_taken_off_again(
            a in prop::collection::vec(0.0f32..1.0, 0..50),
            b in prop::collection::vec(0.0f32..1.0, 0..50),
        ) {
            let of = |values: &[f32]| {
                let mut sketch = Sketch::default();
                for value in values {
                    let (classes, class) = (3, (value * 3.0) as usize);
                    let (confidence, brightness, contrast) = (*value, 1.0 - value, value / 2.0);
                    sketch.add(&Observation { classes, class, confidence, brightness, contrast });
                }
                sketch
            };
            let (ours, theirs) = (of(&a), of(&b));
            let mut both = ours.clone();
            both.merge(&theirs);
            let left = both.without(&theirs);
            prop_assert_eq!(left.frames(), ours.frames());
            prop_assert_eq!(left.brightness, ours.brightness);
        }

        #[test]
        fn sketches_merge_in_any_order_and_grouping(a in sketch(), b in sketch(), c in sketch()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &Sketch::default()), a);
        }

        #[test]
        fn merging_counts_what_counting_one_by_one_does(
            seen in prop::collection::vec((0usize..5, 0f32..=1.0, 0f32..=1.0), 0..80),
            cut in 0usize..80,
        ) {
            let count = |part: &[(usize, f32, f32)]| {
                let mut sketch = Sketch::default();
                for (class, confidence, light) in part {
                    sketch.add(&Observation {
                        classes: 5,
                        class: *class,
                        confidence: *confidence,
                        brightness: *light,
                        contrast: 1.0 - light,
                    });
                }
                sketch
            };
            let (first, second) = seen.split_at(cut.min(seen.len()));
            prop_assert_eq!(merged(&count(first), &count(second)), count(&seen));
            prop_assert_eq!(count(&seen).frames(), seen.len() as u64);
        }

        #[test]
        fn every_value_is_counted_once_and_in_its_bin(value in prop::num::f32::ANY) {
            let mut histogram = Histogram::<20>::default();
            histogram.add(value);
            prop_assert_eq!(histogram.total(), 1);
            let bin = histogram.counts().iter().position(|count| *count == 1).unwrap();
            if (0.0..1.0).contains(&value) {
                let (low, high) = (bin as f32 / 20.0, (bin + 1) as f32 / 20.0);
                prop_assert!(low - 1e-6 <= value && value <= high + 1e-6, "{value} in bin {bin}");
            }
        }
    }

    #[test]
    fn a_model_of_too_many_classes_is_counted_without_them() {
        let mut sketch = Sketch::default();
        let seen = Observation {
            classes: TELEMETRY_CLASSES + 1,
            class: 3,
            confidence: 1.0,
            brightness: 0.0,
            contrast: 0.0,
        };
        sketch.add(&seen);
        assert_eq!((sketch.classes.len(), sketch.frames()), (0, 1));
        assert_eq!(sketch.confidence.counts()[CONFIDENCE_BINS - 1], 1);
    }

    #[test]
    fn a_histogram_of_another_build_is_not_read_as_this_one() {
        let bins = vec![1; INPUT_BINS + 1];
        assert!(Histogram::<INPUT_BINS>::try_from(bins).is_err());
    }
}
