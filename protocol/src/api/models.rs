//! Models and releases as the ML engineer sees them.

use serde::{Deserialize, Serialize};

use super::jobs::JobId;
use super::reports::{Counts, Interval, Verdict};
use crate::digest::Digest;
use crate::ids::BundleDigest;

/// A bundle the hub holds, and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its digest.
    pub bundle: BundleDigest,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// What it was trained from; none for a starter, and where its manifest says nothing.
    pub base: Option<BundleDigest>,
    /// What it learned from; none where its manifest says nothing.
    pub dataset: Option<Digest>,
    /// How it was made, as an artefact; none where nothing lay beside an imported one.
    pub run_record: Option<Digest>,
    /// The job that made it.
    pub job: Option<JobId>,
    /// What the gate decided; none before it was asked.
    pub verdict: Option<Verdict>,
    /// The TUF targets under which it is released: `channel/target`.
    pub released_as: Vec<String>,
    /// Who brought or asked for it.
    pub created_by: String,
    /// When it came, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// An import, `POST /api/v1/models`; the artefacts were uploaded before.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportModel {
    /// The digest of the manifest.
    pub bundle: BundleDigest,
    /// The run record that lay beside it, where it was trained on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_record: Option<Digest>,
}

impl From<BundleDigest> for ImportModel {
    /// Without a run record.
    fn from(bundle: BundleDigest) -> Self {
        Self { bundle, run_record: None }
    }
}

/// A release, `POST /api/v1/releases`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// The bundle, which passed its gate.
    pub bundle: BundleDigest,
    /// The channel; `dev` for now.
    pub channel: String,
    /// Releases an imported bundle that no gate has judged, or one that failed: the reason, kept
    /// in the audit log.
    #[serde(default)]
    pub without_gate: Option<String>,
    /// Releases a bundle of which the gate says that too few items are known to judge it.
    #[serde(default)]
    pub accept_few: bool,
}

/// A model's accuracy on the items that every version of its name was judged by: the one figure that may
/// be compared over versions. `GET /api/v1/models/compared`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The bundle.
    pub bundle: BundleDigest,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Items that it gets right, of those that all versions were judged by.
    pub counts: Counts,
    /// Where their share lies with 95 % confidence.
    pub interval: Interval,
}

/// A released model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The channel.
    pub channel: String,
    /// The TUF target: the bundle's manifest.
    pub target: String,
    /// The bundle.
    pub bundle: BundleDigest,
    /// Who released it.
    pub released_by: String,
    /// When, in milliseconds since 1970.
    pub released_at_ms: u64,
}
