//! What a model made of each item: the only thing a gate judges by.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::BundleDigest;

/// A bundle's outputs on a dataset's gate items, made by the file that ships, in ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The bundle.
    pub bundle: BundleDigest,
    /// The dataset.
    pub dataset: Digest,
    /// The runtime and its version.
    pub runtime: String,
    /// One output an item, ordered by `sample`.
    pub outputs: Vec<Output>,
}

/// One item's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The item.
    pub sample: Digest,
    /// Its label.
    pub label: u16,
    /// Its group.
    pub group: String,
    /// The probability of each class, in the order of the labels.
    pub probabilities: Vec<f32>,
}

impl Output {
    /// The most probable class and its probability, the first of equals; none of no classes.
    pub fn best(&self) -> Option<(usize, f32)> {
        self.probabilities.iter().enumerate().fold(None, |best, (i, p)| match best {
            Some((_, q)) if q >= *p => best,
            _ => Some((i, *p)),
        })
    }

    /// Whether the most probable class is the label.
    pub fn is_correct(&self) -> bool {
        self.best().is_some_and(|(i, _)| i == usize::from(self.label))
    }
}

/// One thing a gate looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What, in words.
    pub name: String,
    /// What was found.
    pub value: f64,
    /// What it had to reach.
    pub at_least: f64,
    /// Whether it did.
    pub passed: bool,
}

/// What a gate decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether the model may be released.
    pub passed: bool,
    /// All it looked at.
    pub checks: Vec<Check>,
}
