//! Frozen datasets: a list of samples with labels and split, named by its own digest.
//!
//! The digest is SHA-256 of the canonical bytes: `serde_json` of [`Dataset`] without white space,
//! items ordered by `sample`. The bytes are an artefact of that digest like any other.

use serde::{Deserialize, Serialize};

use super::jobs::LeftOut;
use crate::digest::Digest;
use crate::sample::MediaType;

/// What an item is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Learned from.
    Train,
    /// Never learned from; the gate judges on it.
    Gate,
}

/// One labelled sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The sample: its header's body digest or, for an imported one, what follows from its payload.
    pub sample: Digest,
    /// SHA-256 of the payload's bytes, by which it is fetched.
    pub payload: Digest,
    /// How the payload is encoded.
    pub media_type: MediaType,
    /// Index into the dataset's labels.
    pub label: u16,
    /// What it is for.
    pub split: Split,
    /// Where it came from, for weighting and for judging by group: `fleet`, or `import:` and the source
    /// that it was imported from.
    pub group: String,
}

/// The group of what was imported from `source`.
pub fn import_group(source: &str) -> String {
    format!("{IMPORT}:{source}")
}

/// The kind of a group: `fleet` or `import`.
pub fn kind_of(group: &str) -> &str {
    group.split_once(':').map_or(group, |(kind, _)| kind)
}

/// The kind of groups that were imported.
pub const IMPORT: &str = "import";

/// The group of what devices sent.
pub const FLEET: &str = "fleet";

/// A frozen dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// A name for people.
    pub name: String,
    /// What the label indices mean.
    pub labels: Vec<String>,
    /// The items, ordered by `sample`, each sample and each payload once.
    pub items: Vec<Item>,
}

/// A request to freeze a dataset from everything that is labelled now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// A name for people.
    pub name: String,
    /// The share of fleet samples that the gate keeps, 0 to 1, chosen by the payload's digest:
    /// its first eight bytes, big endian, over 2^64, are below the share. A picture that a device
    /// sent twice so never stands on both sides. Imported samples keep the split they were
    /// imported with.
    pub gate_share: f64,
    /// Only samples of these groups; all when empty.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// A dataset that was just frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// The dataset.
    #[serde(flatten)]
    pub dataset: DatasetSummary,
    /// Labelled samples that were left out because an operator has not decided about them yet, or has
    /// decided against them.
    pub held: u64,
    /// Labelled samples that were left out because their payloads cannot be decoded, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<LeftOut>,
}

/// A dataset as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSummary {
    /// Its digest.
    pub digest: Digest,
    /// Its name.
    pub name: String,
    /// Items to learn from.
    pub train: u64,
    /// Items the gate keeps.
    pub gate: u64,
    /// Who froze it.
    pub frozen_by: String,
    /// When, in milliseconds since 1970.
    pub frozen_at_ms: u64,
}
