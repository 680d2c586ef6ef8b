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

/// How many of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Good ones.
    pub good: u64,
    /// All.
    pub of: u64,
}

impl Counts {
    /// The share of good ones; 0 of nothing.
    #[expect(clippy::cast_precision_loss, reason = "a dataset has far fewer than 2^52 items")]
    pub fn share(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.good as f64 / self.of as f64 }
    }
}

/// Where a value lies with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// From there.
    pub low: f64,
    /// To there.
    pub high: f64,
}

/// What a check rests on: of each item it is known whether the answer is good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Basis {
    /// What makes an answer good: `accuracy` counts those whose most probable class is the label.
    pub metric: String,
    /// The group of items; none for all.
    pub group: Option<String>,
    /// Good answers of the candidate.
    pub counts: Counts,
    /// Their share (Wilson's score interval).
    pub interval: Interval,
    /// The base's answers to the same items; none without a base.
    pub paired: Option<Paired>,
}

/// A base and a candidate on the same items.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Good answers of the base.
    pub base: Counts,
    /// Items that only the candidate answers well.
    pub won: u64,
    /// Items that only the base answers well.
    pub lost: u64,
    /// The change of the share (Newcombe's interval for pairs).
    pub change: Interval,
    /// How probable so uneven a division of won and lost is by chance alone (exact McNemar test).
    pub p_value: f64,
}

/// What became of a check, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is reached.
    Passed,
    /// There are too few items to judge.
    TooFew,
    /// It is not reached.
    Failed,
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
    pub outcome: Outcome,
    /// What that rests on; none of what is only counted.
    pub basis: Option<Basis>,
}

/// What a gate decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The worst of its checks. A model that passed may be released; one of which too few items are
    /// known may be, if somebody accepts that.
    pub outcome: Outcome,
    /// All it looked at.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Whether the model may be released.
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Passed
    }
}

/// A question to the gate, the body of `POST /api/v1/models/{digest}/gate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateRequest {
    /// The accuracy over all items that the model must reach, from 0 to 1. Without it a model that has a
    /// base is only compared with that, and one without must be better than always answering the most
    /// frequent class.
    #[serde(default)]
    pub floor: Option<f64>,
}
