//! The loop.
//!
//! Each step: draw a batch, change the pictures, forward, loss, backward, optimiser; running
//! statistics follow. A loss that is no number stops the run, names the batch, and leaves the weights
//! of the last whole epoch (or the base's) in the graph. Cancelling leaves the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::draw::Draw;
use super::optimizer::{Optimizer, learning_rate};
use super::pass::Passes;
use super::{Recipe, TrainError, TrainingSet};
use crate::graph::{Graph, Parameters};
use crate::random::Random;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: u32,
    /// The mean loss of its batches, as they were seen.
    pub loss: f32,
    /// The share of its samples that were right when they were seen, for losses that know right
    /// from wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f32>,
    /// The learning rate at its end.
    pub learning_rate: f64,
}

/// What a run came to; the new values are in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Each epoch.
    pub curve: Vec<Epoch>,
}

/// Trains the graph's parameters in place.
///
/// # Errors
/// [`TrainError`]; the graph then holds the last good weights.
pub fn train(
    graph: &mut Graph,
    task: &Task<'_>,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Outcome, TrainError> {
    if !graph.parameters.list.iter().any(|p| p.role.trains()) {
        return Err(TrainError::NothingTrains);
    }
    let mut run = Run::new(graph, task)?;
    let mut curve = Vec::new();
    for epoch in 1..=task.recipe.epochs {
        let good = graph.parameters.clone();
        match run.epoch(&mut graph.parameters, epoch, progress) {
            Ok(done) => curve.push(done),
            Err(stopped) => {
                graph.parameters = good;
                return Err(stopped);
            }
        }
    }
    Ok(Outcome { curve })
}

struct Run<'a> {
    task: &'a Task<'a>,
    passes: Passes<'a>,
    draw: Draw,
    optimizer: Optimizer,
    augmenting: Random,
    dropping: Random,
    step: usize,
    steps: usize,
    warmup: usize,
    started: Instant,
}

impl<'a> Run<'a> {
    fn new(graph: &Graph, task: &'a Task<'a>) -> Result<Self, TrainError> {
        let (set, recipe) = (task.set, task.recipe);
        let samples: Vec<usize> = (0..set.len()).collect();
        let draw = Draw::new(set, &samples, &recipe.group_share, task.seed);
        let batches = batches(draw.per_epoch(), recipe.batch_size);
        let per_epoch = draw.per_epoch().div_ceil(recipe.batch_size);
        Ok(Self {
            passes: Passes::new(graph, set, recipe, &batches, task.device)?,
            task,
            draw,
            optimizer: Optimizer::new(recipe),
            augmenting: Random::stream(task.seed, 2),
            dropping: Random::stream(task.seed, 3),
            step: 0,
            steps: per_epoch * recipe.epochs as usize,
            warmup: (recipe.warmup_epochs * per_epoch as f64).round() as usize,
            started: Instant::now(),
        })
    }

    fn epoch(
        &mut self,
        parameters: &mut Parameters,
        epoch: u32,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Epoch, TrainError> {
        let recipe = self.task.recipe;
        let order = self.draw.epoch();
        let (mut total, mut right, mut rate) = (0.0f64, Some(0), 0.0);
        for (batch, samples) in order.chunks(recipe.batch_size).enumerate() {
            if self.task.cancel.load(Ordering::Relaxed) {
                return Err(TrainError::Cancelled(epoch));
            }
            rate = learning_rate(recipe.learning_rate, self.step, self.warmup, self.steps);
            let values = self.inputs(samples);
            let random = Random::new(self.dropping.bits());
            let seen = self.passes.learn(parameters, samples, values, random);
            let Some(gradients) = seen.gradients else {
                let samples = samples.to_vec();
                return Err(TrainError::NotFinite { epoch, batch: batch + 1, samples });
            };
            self.optimizer.step(parameters, &seen.leaves, gradients, rate);
            parameters.observe(seen.observed);
            total += f64::from(seen.loss) * samples.len() as f64;
            right = right.zip(seen.right).map(|(all, these)| all + these);
            self.step += 1;
            progress(&self.progress(epoch, seen.loss));
        }
        let count = order.len() as f64;
        Ok(Epoch {
            epoch,
            loss: (total / count) as f32,
            accuracy: right.map(|right| (right as f64 / count) as f32),
            learning_rate: rate,
        })
    }

    /// The inputs of the samples, changed as the recipe says.
    fn inputs(&mut self, samples: &[usize]) -> Vec<f32> {
        let (set, augment) = (self.task.set, &self.task.recipe.augment);
        let mut values = gathered(set, samples);
        let Some((shape, black)) = set.pictures().filter(|_| !augment.is_none()) else {
            return values;
        };
        for picture in values.chunks_exact_mut(shape.iter().product()) {
            augment.apply(picture, shape, black, &mut self.augmenting);
        }
        values
    }

    fn progress(&self, epoch: u32, loss: f32) -> Progress {
        let (step, steps, epochs) = (self.step, self.steps, self.task.recipe.epochs);
        Progress { epoch, epochs, step, steps, loss, eta_s: self.left().as_secs_f32() }
    }

    fn left(&self) -> Duration {
        self.started.elapsed().mul_f64((self.steps - self.step) as f64 / self.step.max(1) as f64)
    }
}

/// The sizes of the batches of so many samples: whole ones, and the last.
fn batches(samples: usize, batch_size: usize) -> [usize; 2] {
    let whole = batch_size.min(samples);
    [whole, samples - (samples.div_ceil(batch_size) - 1) * batch_size]
}

/// The inputs of samples, one after another.
fn gathered(set: &TrainingSet, samples: &[usize]) -> Vec<f32> {
    samples.iter().map(|sample| set.input(*sample)).collect::<Vec<_>>().concat()
}
