//! Labelled inputs in memory.
//!
//! Checked once: every value finite, every label in range, at least two classes. What comes after
//! can then fail only by the training itself.

use thiserror::Error;

/// One labelled input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Index of its class.
    pub label: usize,
    /// Where it came from, for [`super::Recipe::group_share`].
    pub group: String,
}

/// Inputs and labels, ready to train on.
#[derive(Debug, Clone)]
pub struct TrainingSet {
    shape: Vec<usize>,
    values: Vec<f32>,
    samples: Vec<Sample>,
    classes: usize,
    black: Vec<f32>,
}

/// Why data cannot be trained on.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DataError {
    /// There is nothing to learn from.
    #[error("cannot train on an empty set; label samples and freeze the dataset again")]
    Empty,
    /// Values and samples do not fit together.
    #[error("cannot train: {samples} samples of {per_sample} values need {} values, there are {values}", samples * per_sample)]
    Length {
        /// Number of samples.
        samples: usize,
        /// Values a sample.
        per_sample: usize,
        /// Values there are.
        values: usize,
    },
    /// A value is infinite or not a number.
    #[error(
        "cannot train: sample {0} holds a value that is no finite number; remove it from the dataset"
    )]
    NotFinite(usize),
    /// A label names no class.
    #[error("cannot train: sample {sample} has label {label}, the model has {classes} classes")]
    Label {
        /// Its place.
        sample: usize,
        /// Its label.
        label: usize,
        /// Classes there are.
        classes: usize,
    },
    /// There is nothing to tell apart.
    #[error("cannot train: all samples have the same label; label samples of at least two classes")]
    OneClass,
}

impl TrainingSet {
    /// A set of samples with inputs of `shape` (without the batch), one after another in `values`.
    /// `black` is what a black pixel becomes in each channel (used by augmentation).
    ///
    /// # Errors
    /// [`DataError`] names the first sample that cannot be used.
    pub fn new(
        shape: Vec<usize>,
        values: Vec<f32>,
        samples: Vec<Sample>,
        classes: usize,
        black: Vec<f32>,
    ) -> Result<Self, DataError> {
        let per_sample: usize = shape.iter().product();
        if samples.is_empty() || per_sample == 0 {
            return Err(DataError::Empty);
        }
        if values.len() != samples.len() * per_sample {
            return Err(DataError::Length {
                samples: samples.len(),
                per_sample,
                values: values.len(),
            });
        }
        if let Some(place) = values.iter().position(|v| !v.is_finite()) {
            return Err(DataError::NotFinite(place / per_sample));
        }
        if let Some((sample, bad)) = samples.iter().enumerate().find(|(_, s)| s.label >= classes) {
            return Err(DataError::Label { sample, label: bad.label, classes });
        }
        if samples.iter().all(|s| s.label == samples[0].label) {
            return Err(DataError::OneClass);
        }
        Ok(Self { shape, values, samples, classes, black })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Never: an empty set is not made.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Shape of an input, without the batch.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What a black pixel becomes in each channel.
    pub fn black(&self) -> &[f32] {
        &self.black
    }

    /// The samples in order.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The input of one sample.
    pub fn input(&self, sample: usize) -> &[f32] {
        let per_sample = self.values.len() / self.samples.len();
        &self.values[sample * per_sample..(sample + 1) * per_sample]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: Vec<f32>, labels: &[usize]) -> Result<TrainingSet, DataError> {
        let samples = labels.iter().map(|l| Sample { label: *l, group: "g".into() }).collect();
        TrainingSet::new(vec![2], values, samples, 3, vec![])
    }

    #[test]
    fn bad_data_is_refused_by_name() {
        assert_eq!(set(vec![], &[]).unwrap_err(), DataError::Empty);
        assert_eq!(
            set(vec![0.0; 3], &[0, 1]).unwrap_err(),
            DataError::Length { samples: 2, per_sample: 2, values: 3 }
        );
        assert_eq!(
            set(vec![0.0, 0.0, f32::NAN, 0.0], &[0, 1]).unwrap_err(),
            DataError::NotFinite(1)
        );
        assert_eq!(
            set(vec![0.0; 4], &[0, 3]).unwrap_err(),
            DataError::Label { sample: 1, label: 3, classes: 3 }
        );
        assert_eq!(set(vec![0.0; 4], &[1, 1]).unwrap_err(), DataError::OneClass);
        assert_eq!(set(vec![0.0, 1.0, 2.0, 3.0], &[0, 2]).unwrap().input(1), [2.0, 3.0]);
    }
}
