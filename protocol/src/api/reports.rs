//! What a model made of each item: the only thing a gate judges by.

use serde::{Deserialize, Serialize};

use super::jobs::JobId;
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

/// Whether a stored report is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// It is.
    Counts,
    /// It contradicts another one; nothing is judged by either until an operator accepts one.
    Disputed,
    /// An operator accepted another one.
    Rejected,
}

/// A report as the hub keeps it; its bytes are the artefact of that digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReport {
    /// Its digest.
    pub digest: Digest,
    /// The bundle that it is about.
    pub bundle: BundleDigest,
    /// The bundle's name and version, `name/version`.
    pub model: String,
    /// The dataset that it was made on.
    pub dataset: Digest,
    /// The job that it came with.
    pub job: Option<JobId>,
    /// The name of the token that brought it.
    pub worker: String,
    /// The runtime that made it.
    pub runtime: String,
    /// How many items it holds.
    pub items: u64,
    /// How many of them it gets right.
    pub right: u64,
    /// When it came, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether it is judged by.
    pub state: ReportState,
    /// The report that it contradicted when it came.
    pub against: Option<Digest>,
    /// Who decided about it; none while nobody has, or had to.
    pub decided: Option<Decision>,
}

/// What an operator decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Who.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why.
    pub reason: String,
}

/// `POST /api/v1/reports/{digest}/accept`: this report counts, those that contradict it do not.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptRequest {
    /// Why, 1 to 500 characters, for the audit log.
    pub reason: String,
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
