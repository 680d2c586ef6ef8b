//! Inputs and what they are to become, in memory.
//!
//! Checked once: every value finite, as many targets as inputs, every label in range, at least two
//! classes. What comes after can then fail only by the training itself.

use thiserror::Error;

use super::Groups;

/// What the inputs are to become.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// One of several classes a sample.
    Classes {
        /// The class of each sample.
        labels: Vec<usize>,
        /// How many classes there are.
        count: usize,
    },
    /// Numbers for each sample.
    Values {
        /// The shape of one sample's numbers; empty for a single one.
        shape: Vec<usize>,
        /// One sample after another.
        values: Vec<f32>,
    },
    /// The input itself.
    Input,
}

impl std::fmt::Display for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Classes { count, .. } => write!(f, "one of {count} classes a sample"),
            Self::Values { shape, .. } => write!(f, "values of shape {shape:?} a sample"),
            Self::Input => f.write_str("the input itself"),
        }
    }
}

/// Inputs and targets, ready to train on.
#[derive(Debug, Clone)]
pub struct TrainingSet {
    shape: Vec<usize>,
    values: Vec<f32>,
    targets: Targets,
    groups: Groups,
    black: Vec<f32>,
    whole_groups: bool,
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
    /// Targets and samples do not fit together.
    #[error("cannot train: {samples} samples need as many targets, there are {targets}")]
    Targets {
        /// Number of samples.
        samples: usize,
        /// Targets there are.
        targets: usize,
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
    /// A target of the binary loss is something between.
    #[error("cannot train: sample {sample} has the target {value}, the loss binary wants 0 or 1")]
    NotBinary {
        /// Its place.
        sample: usize,
        /// Its target.
        value: String,
    },
    /// Nothing can be kept for validation.
    #[error(
        "cannot keep a part for early stopping: all inputs are the same; leave early_stopping out"
    )]
    OneInput,
    /// What is kept for validation leaves one class to learn from.
    #[error(
        "cannot keep a part for early stopping: samples of one label alone are left to learn from; lower early_stopping.validation_share, or label more samples"
    )]
    OneClassLeft,
    /// There is nothing to tell apart.
    #[error("cannot train: all samples have the same label; label samples of at least two classes")]
    OneClass,
}

impl TrainingSet {
    /// A set with inputs of `shape` (without the batch), one after another in `values`. `groups`
    /// says for each sample where it came from, for [`super::Recipe::group_share`].
    ///
    /// # Errors
    /// [`DataError`] names the first sample that cannot be used.
    pub fn new(
        shape: Vec<usize>,
        values: Vec<f32>,
        targets: Targets,
        groups: Groups,
    ) -> Result<Self, DataError> {
        let per_sample: usize = shape.iter().product();
        let samples = groups.len();
        if samples == 0 || per_sample == 0 {
            return Err(DataError::Empty);
        }
        if values.len() != samples * per_sample {
            return Err(DataError::Length { samples, per_sample, values: values.len() });
        }
        finite(&values, per_sample)?;
        check(&targets, samples)?;
        Ok(Self { shape, values, targets, groups, black: Vec::new(), whole_groups: false })
    }

    /// The same set as one of pictures, which training may change at random. `black` is what a
    /// black pixel becomes in each channel.
    #[must_use]
    pub fn of_pictures(self, black: Vec<f32>) -> Self {
        Self { black, ..self }
    }

    /// The same set as one whose groups must not be divided: recordings, parts.
    #[must_use]
    pub fn in_whole_groups(self) -> Self {
        Self { whole_groups: true, ..self }
    }

    /// Whether the part for validation is one of whole groups.
    pub fn has_whole_groups(&self) -> bool {
        self.whole_groups && self.groups.names().len() > 1
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Never: an empty set is not made.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Shape of an input, without the batch.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What the inputs are to become.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Where each sample came from.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Shape of a picture (channels, height, width) and what black becomes in each channel; none
    /// for other inputs.
    pub fn pictures(&self) -> Option<([usize; 3], &[f32])> {
        let shape: [usize; 3] = self.shape.as_slice().try_into().ok()?;
        (self.black.len() == shape[0]).then_some((shape, &self.black))
    }

    /// The input of one sample.
    pub fn input(&self, sample: usize) -> &[f32] {
        let per_sample = self.values.len() / self.groups.len();
        &self.values[sample * per_sample..(sample + 1) * per_sample]
    }
}

fn finite(values: &[f32], per_sample: usize) -> Result<(), DataError> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(place) => Err(DataError::NotFinite(place / per_sample.max(1))),
        None => Ok(()),
    }
}

fn check(targets: &Targets, samples: usize) -> Result<(), DataError> {
    match targets {
        Targets::Classes { labels, count } => {
            if labels.len() != samples {
                return Err(DataError::Targets { samples, targets: labels.len() });
            }
            let bad = labels.iter().enumerate().find(|(_, label)| **label >= *count);
            if let Some((sample, label)) = bad {
                return Err(DataError::Label { sample, label: *label, classes: *count });
            }
            if labels.iter().all(|label| *label == labels[0]) {
                return Err(DataError::OneClass);
            }
        }
        Targets::Values { shape, values } => {
            let per_sample = shape.iter().product::<usize>();
            if per_sample == 0 || values.len() != samples * per_sample {
                let targets = values.len() / per_sample.max(1);
                return Err(DataError::Targets { samples, targets });
            }
            finite(values, per_sample)?;
        }
        Targets::Input => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: Vec<f32>, targets: Targets) -> Result<TrainingSet, DataError> {
        let samples = values.len().div_ceil(2);
        TrainingSet::new(vec![2], values, targets, Groups::one("g", samples))
    }

    fn classes(labels: &[usize]) -> Targets {
        Targets::Classes { labels: labels.to_vec(), count: 3 }
    }

    #[test]
    fn bad_data_is_refused_by_name() {
        assert_eq!(set(vec![], classes(&[])).unwrap_err(), DataError::Empty);
        assert_eq!(
            set(vec![0.0; 3], classes(&[0, 1])).unwrap_err(),
            DataError::Length { samples: 2, per_sample: 2, values: 3 }
        );
        assert_eq!(
            set(vec![0.0, 0.0, f32::NAN, 0.0], classes(&[0, 1])).unwrap_err(),
            DataError::NotFinite(1)
        );
        assert_eq!(
            set(vec![0.0; 4], classes(&[0, 3])).unwrap_err(),
            DataError::Label { sample: 1, label: 3, classes: 3 }
        );
        assert_eq!(set(vec![0.0; 4], classes(&[1, 1])).unwrap_err(), DataError::OneClass);
        assert_eq!(
            set(vec![0.0; 4], classes(&[0, 1, 2])).unwrap_err(),
            DataError::Targets { samples: 2, targets: 3 }
        );
        let good = set(vec![0.0, 1.0, 2.0, 3.0], classes(&[0, 2])).unwrap();
        assert_eq!(good.input(1), [2.0, 3.0]);
    }

    #[test]
    fn bad_values_to_reach_are_refused_by_name() {
        let values = |shape: &[usize], values: &[f32]| Targets::Values {
            shape: shape.to_vec(),
            values: values.to_vec(),
        };
        for (targets, error) in [
            (values(&[], &[1.0]), DataError::Targets { samples: 2, targets: 1 }),
            (values(&[3], &[1.0; 5]), DataError::Targets { samples: 2, targets: 1 }),
            (values(&[0], &[]), DataError::Targets { samples: 2, targets: 0 }),
            (values(&[2], &[0.0, 0.0, 0.0, f32::INFINITY]), DataError::NotFinite(1)),
        ] {
            assert_eq!(set(vec![0.0; 4], targets).unwrap_err(), error);
        }
        assert!(set(vec![0.0; 4], values(&[], &[1.0, 2.0])).is_ok());
    }

    #[test]
    fn only_pictures_may_be_changed() {
        let targets = Targets::Classes { labels: vec![0, 1], count: 2 };
        let set = TrainingSet::new(vec![1, 1, 2], vec![0.0; 4], targets, Groups::one("g", 2));
        let set = set.unwrap();
        assert_eq!(set.pictures(), None);
        assert_eq!(set.of_pictures(vec![-1.0]).pictures(), Some(([1, 1, 2], &[-1.0][..])));
    }
}
