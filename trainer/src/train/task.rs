//! What a run is given, and what it tells.

use std::sync::atomic::AtomicBool;

use bincode::{Decode, Encode};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::checkpoint::{Key, Place};
use super::{Recipe, TrainingSet};

/// What is to be trained on, and how.
pub struct Task<'a> {
    /// The data.
    pub set: &'a TrainingSet,
    /// How.
    pub recipe: &'a Recipe,
    /// The seed of everything random.
    pub seed: u64,
    /// Where burn computes.
    pub device: &'a Device,
    /// Set from outside to cancel.
    pub cancel: &'a AtomicBool,
    /// Where the run is kept while it is under way, and what it is known by there.
    pub checkpoints: Option<(&'a Place, Key)>,
}

/// How far a run is.
#[derive(Debug, Clone, Serialize)]
pub struct Progress {
    /// The epoch under way, from 1.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// Steps done in all epochs.
    pub step: usize,
    /// Steps in all epochs.
    pub steps: usize,
    /// The loss of the last step.
    pub loss: f32,
    /// Seconds left, from the mean step so far.
    pub eta_s: f32,
}

/// What one epoch came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Encode, Decode)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: u32,
    /// The mean loss of its batches, as they were seen.
    pub loss: f32,
    /// The share of its samples that were right when they were seen, for losses that know right
    /// from wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f32>,
    /// The mean loss of the samples that are not learned from, after it; with early stopping only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f32>,
    /// The learning rate at its end.
    pub learning_rate: f64,
}

/// What a run came to; the new values are in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Each epoch.
    pub curve: Vec<Epoch>,
    /// The epoch whose weights the graph holds: the last, or the best with early stopping.
    pub kept_epoch: u32,
    /// The parameters that kept the base's values.
    pub frozen: Vec<String>,
    /// The step it went on from, when it began with a checkpoint.
    pub resumed_at_step: Option<usize>,
}
