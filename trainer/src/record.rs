//! The run record: all that is needed to say how a model was made, and to make it again.
//!
//! JSON. `reproducible` holds what the same inputs, seed and kind of machine give again, bit for
//! bit; `measured` holds what they do not.

use std::collections::BTreeMap;

use fleetloop_protocol::api::jobs::LeftOut;
use fleetloop_protocol::{BundleDigest, Digest};
use serde::{Deserialize, Serialize};

use crate::kernels::Instructions;
use crate::onnx::{Patch, Source};
use crate::train::{Epoch, Recipe};

/// The version of burn this trainer is built with; a test compares it with the lock file.
pub const BURN_VERSION: &str = "0.22.1";

/// How a model was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The record's format, 1.
    pub format: u32,
    /// What the same inputs give again.
    pub reproducible: Reproducible,
    /// What they do not.
    pub measured: Measured,
}

/// What the same inputs, seed and kind of machine give again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reproducible {
    /// The frozen dataset, or the file of arrays.
    pub dataset: Digest,
    /// Items learned from, by group.
    pub learned_from: BTreeMap<String, usize>,
    /// What the run began with.
    pub base: BaseRecord,
    /// SHA-256 of the new ONNX file.
    pub model: Digest,
    /// The new bundle; none for a model of arrays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleDigest>,
    /// How the samples that the model was judged by were chosen; the dataset says it for pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged_by: Option<JudgedBy>,
    /// Items of the dataset that the run went on without: removed, or not to be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// The recipe, every value filled in.
    pub recipe: Recipe,
    /// The seed.
    pub seed: u64,
    /// What it was made with.
    pub versions: Versions,
    /// Each epoch.
    pub curve: Vec<Epoch>,
    /// The epoch whose weights the file holds: the last, or the best with early stopping.
    pub kept_epoch: u32,
    /// The parameters that kept the base's values because the recipe froze them.
    pub frozen: Vec<String>,
    /// What was overwritten in the base's file; everything else is as it was.
    pub patches: Vec<Patch>,
}

/// How the samples that a model of arrays is judged by were chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JudgedBy {
    /// This share of the file, by content; it is not learned from.
    Share(f64),
    /// These groups of the file, whole; they are not learned from.
    Groups(Vec<String>),
    /// Another file.
    File(Digest),
}

/// What a run began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// SHA-256 of the ONNX file that was patched.
    pub model: Digest,
    /// Its bundle, if it came in one.
    pub bundle: Option<BundleDigest>,
    /// How the starter was made, if it was one: kind and input shape.
    pub starter: Option<String>,
    /// The files that the ONNX file was made of, when its weights lay beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
}

/// What a model was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// This trainer.
    pub trainer: String,
    /// burn.
    pub burn: String,
    /// The runtime that evaluated.
    pub runtime: String,
    /// Processor architecture, operating system, and the instructions that were computed with: what
    /// the same bytes need to come out again.
    pub target: String,
    /// Threads that computed.
    pub threads: usize,
}

/// Durations, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Reading and preprocessing.
    pub prepare_s: f64,
    /// Training.
    pub train_s: f64,
    /// Evaluating and recording golden cases.
    pub evaluate_s: f64,
    /// The step from which a run that had been killed went on; `train_s` counts from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at_step: Option<usize>,
}

impl Versions {
    /// Of this program, with that runtime.
    pub fn of(runtime: String, threads: usize) -> Self {
        Self {
            trainer: env!("CARGO_PKG_VERSION").to_owned(),
            burn: BURN_VERSION.to_owned(),
            runtime,
            target: format!(
                "{}-{} {}",
                std::env::consts::ARCH,
                std::env::consts::OS,
                Instructions::current()
            ),
            threads,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_recorded_version_of_burn_is_the_locked_one() {
        let lock = include_str!("../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"burn\"\nversion = \"{}\"", super::BURN_VERSION)));
    }
}
