//! Jobs between the hub and its workers. A lease that is not renewed ends, and the job is leased
//! again: a worker may die at any moment.

use serde::{Deserialize, Serialize};

use super::reports::Report;
use crate::digest::Digest;
use crate::ids::BundleDigest;

/// A job's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

/// How a lease is kept up.
pub const LEASE_S: u64 = 15;

/// What a new model starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Base {
    /// A starter graph made by the trainer, with random weights from the job's seed.
    Starter {
        /// The kind, as `trainer new --kind` names it.
        kind: String,
        /// The input's shape without the batch: channels × height × width.
        input: Vec<usize>,
    },
    /// A bundle whose artefacts the hub holds.
    Bundle {
        /// Its digest.
        bundle: BundleDigest,
    },
}

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// A new model is trained, and judged by the dataset's gate items.
    Train,
    /// A model that there is is judged by them.
    Evaluate,
}

/// What a job is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// What it is for.
    pub kind: JobKind,
    /// The name of the model that is trained or evaluated.
    pub model: String,
    /// Its version.
    pub version: u32,
    /// What training starts from; the bundle that is evaluated.
    pub base: Base,
    /// The frozen dataset.
    pub dataset: Digest,
    /// The recipe, TOML; empty for the trainer's defaults and for an evaluation.
    pub recipe: String,
    /// The seed of everything random.
    pub seed: u64,
}

/// A request to judge a model that there is, `POST /api/v1/models/{digest}/evaluate`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateRequest {
    /// The frozen dataset whose gate items it is judged by.
    pub dataset: Digest,
}

/// A request to train, `POST /api/v1/jobs`; the hub picks the version.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRequest {
    /// The model's name.
    pub model: String,
    /// What it starts from.
    pub base: Base,
    /// The frozen dataset.
    pub dataset: Digest,
    /// The recipe, TOML; empty for the trainer's defaults.
    #[serde(default)]
    pub recipe: String,
    /// The seed.
    #[serde(default)]
    pub seed: u64,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// A worker holds it.
    Running {
        /// The worker's name.
        worker: String,
    },
    /// Done: the bundle is stored.
    Done {
        /// The new bundle.
        bundle: BundleDigest,
    },
    /// Done, and a report of the result contradicts a stored one. An operator decides which counts.
    Held {
        /// What contradicts what, in words.
        reason: String,
    },
    /// It cannot be done.
    Failed {
        /// Why, in words.
        reason: String,
    },
}

/// A job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What is to be done.
    pub spec: JobSpec,
    /// Where it stands.
    pub state: JobState,
    /// How often it was leased.
    pub attempts: u32,
    /// What the worker last said.
    pub progress: Option<Progress>,
    /// Who asked for it.
    pub requested_by: String,
}

/// What a worker asks: `POST /api/v1/worker/lease`; the answer is a [`Lease`] or `null`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// The worker's name, for people.
    pub worker: String,
}

/// A job in a worker's hands for [`LEASE_S`] seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// Names this lease; what comes under an older one is refused with 409.
    pub lease: String,
    /// What to do.
    pub spec: JobSpec,
}

/// A sign of life, `POST /api/v1/worker/jobs/{id}/renew`: the lease runs anew from here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// The lease.
    pub lease: String,
    /// How far the job is.
    pub progress: Progress,
}

/// Items of a dataset that a message names one by one; more are only counted.
pub const LEFT_OUT_NAMED: usize = 20;

/// Of the items of a split that were not removed, one in so many may be unreadable; one always may.
/// More than that is no accident, and the job fails.
pub const UNREADABLE_SHARE: usize = 10;

/// Whether a job may go on without `unreadable` of `total` items of a split.
pub fn may_leave_out(unreadable: usize, total: usize) -> bool {
    unreadable <= (total / UNREADABLE_SHARE).max(1)
}

/// An item of the dataset that a job goes on without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// The item.
    pub sample: Digest,
    /// Why, in words: it was removed, or what is wrong with its payload.
    pub reason: String,
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// `"download"`, `"train"`, `"evaluate"` or `"upload"`.
    pub phase: String,
    /// 0 to 1 within the phase.
    pub fraction: f32,
    /// The last loss, while training.
    pub loss: Option<f32>,
    /// How many items the job goes on without.
    #[serde(default)]
    pub left_out: u64,
    /// The first [`LEFT_OUT_NAMED`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out_first: Vec<LeftOut>,
}

/// A job done, `POST /api/v1/worker/jobs/{id}/done`. The artefacts were uploaded before, each by
/// `PUT /api/v1/artefacts/{digest}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// The lease.
    pub lease: String,
    /// The new bundle, or the one that was evaluated: the digest of its manifest.
    pub bundle: BundleDigest,
    /// The digest of the run record; none of an evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_record: Option<Digest>,
    /// Its outputs on the gate's items.
    pub report: Report,
    /// The base's outputs on the same items; none for a starter and of an evaluation.
    pub base_report: Option<Report>,
    /// Items that were neither learned from nor judged by. The hub looks at each of them itself.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// A job that cannot be done, `POST /api/v1/worker/jobs/{id}/failed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFailed {
    /// The lease.
    pub lease: String,
    /// Why, in words.
    pub reason: String,
}
