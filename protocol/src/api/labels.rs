//! Labelling: ask for what is worth labelling, answer what it is.

use serde::{Deserialize, Serialize};

use super::samples::Sample;
use crate::digest::Digest;

/// What to label next: `GET /api/v1/labels/queue?limit=n`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabelQueue {
    /// The labels to choose from.
    pub labels: Vec<String>,
    /// Unlabelled samples, the most useful first, one a picture.
    pub samples: Vec<Sample>,
    /// How many unlabelled pictures there are in all.
    pub waiting: u64,
}

/// One answer, `POST /api/v1/labels`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelRequest {
    /// The sample.
    pub sample: Digest,
    /// What it shows.
    pub label: String,
}

/// Samples whose labels are withdrawn: the body of `POST /api/v1/labels/clear`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearRequest {
    /// Which, at most 450.
    pub samples: Vec<Digest>,
}

/// The labels a hub knows, `GET` and `PUT /api/v1/labels/set`. They can be extended; one that is
/// in use is never removed or moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelSet {
    /// The labels; the index is what models learn.
    pub labels: Vec<String>,
}
