//! Samples as people and programs see them.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{BundleDigest, SampleId};
use crate::sample::{MediaType, Prediction, Selection};

/// A stored sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its name here: the header's body digest; of an imported one a digest that follows from its payload.
    pub sample: Digest,
    /// SHA-256 of its payload; the payload is at `/api/v1/payloads/{payload}`.
    pub payload: Digest,
    /// How the payload is encoded.
    pub media_type: MediaType,
    /// The payload's length in bytes.
    pub payload_len: u64,
    /// `"import"` or `"fleet"`.
    pub group: String,
    /// Where an imported one comes from, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The identity of a sample that a device sent.
    pub id: Option<SampleId>,
    /// The model that saw it.
    pub model: Option<BundleDigest>,
    /// Why the device chose it.
    pub selection: Option<Selection>,
    /// What the model made of it.
    pub predictions: Vec<Prediction>,
    /// When it was stored, in milliseconds since 1970.
    pub stored_at_ms: u64,
    /// Its label, if it has one.
    pub label: Option<String>,
    /// When, by whom and why it was removed: its payload is erased then, and it is learned from no
    /// more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Removed>,
}

/// What is left of a sample that was removed, beside its proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// By whom.
    pub by: String,
    /// Why, in words.
    pub reason: String,
}

/// Samples to be removed: the body of `POST /api/v1/samples/remove`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// Which, at most 450.
    pub samples: Vec<Digest>,
    /// Why, in words; kept with each.
    pub reason: String,
}

/// What became of records of an outbox that were brought in a file: the answer of
/// `POST /api/v1/samples/collect`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CollectResponse {
    /// Samples stored now.
    pub stored: u64,
    /// Gaps stored now.
    pub gaps: u64,
    /// Samples and gaps that were stored before.
    pub known: u64,
    /// Samples among those stored now that are held until an operator decides.
    pub held: u64,
    /// Not taken in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<CollectRefused>,
}

/// A record that was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectRefused {
    /// Its place in the request, from 0.
    pub record: usize,
    /// Why, in words.
    pub reason: String,
}

/// How many samples there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SampleCounts {
    /// Stored, sent by devices.
    pub fleet: u64,
    /// Stored, imported.
    pub imported: u64,
    /// Removed, of both.
    #[serde(default)]
    pub removed: u64,
    /// Labelled, sent by devices.
    pub fleet_labelled: u64,
    /// Messages that came again with the same identity and digest.
    pub repeated: u64,
    /// Messages quarantined: same identity, other digest.
    pub quarantined: u64,
    /// Messages refused.
    pub refused: u64,
    /// Gap records stored.
    pub gaps: u64,
}
