//! The loop.
//!
//! Each step: draw a batch, change the pictures, forward, loss, backward, AdamW; running statistics
//! follow. A loss that is no number stops the run, names the batch, and leaves the weights of the
//! last whole epoch (or the base's) in the graph. Cancelling leaves the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::draw::Draw;
use super::loss::{correct, cross_entropy};
use super::optimizer::{Optimizer, learning_rate};
use super::{Recipe, TrainingSet};
use crate::graph::{Context, Graph, GraphError, Parameters, Plan, Sizes};
use crate::ops::tensor;
use crate::random::Random;

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
    /// The share of its samples that were right when they were seen.
    pub accuracy: f32,
    /// The learning rate at its end.
    pub learning_rate: f64,
}

/// Why a run stopped early.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The graph's output is not one score a class.
    #[error(
        "cannot train: the graph gives {found}, {classes} scores a sample are needed; choose a model with that many classes"
    )]
    Output {
        /// What the graph gives.
        found: String,
        /// Classes of the data.
        classes: usize,
    },
    /// The graph cannot be planned for a batch of this run.
    #[error("cannot train in batches of {batch}")]
    Plan {
        /// Samples in the batch.
        batch: usize,
        /// What does not fit.
        #[source]
        source: GraphError,
    },
    /// The inputs have another shape than the graph's.
    #[error(
        "cannot train: the samples have shape {samples:?}, the graph wants {graph:?}; choose a dataset or a model that fits"
    )]
    Input {
        /// Shape of a sample.
        samples: Vec<usize>,
        /// Shape the graph wants.
        graph: Vec<usize>,
    },
    /// No parameter trains.
    #[error(
        "cannot train: the graph has no weights that train; export the model with its weights as initializers"
    )]
    NothingTrains,
    /// The loss became infinite or not a number.
    #[error(
        "training stopped: the loss is no finite number in epoch {epoch}, batch {batch} (samples {samples:?}); lower learning_rate, or look at these samples"
    )]
    NotFinite {
        /// The epoch, from 1.
        epoch: u32,
        /// The batch in it, from 1.
        batch: usize,
        /// The samples of the batch, by their place in the data.
        samples: Vec<usize>,
    },
    /// Someone asked it to stop.
    #[error("training cancelled in epoch {0}")]
    Cancelled(u32),
}

/// Trains the graph's parameters in place.
///
/// # Errors
/// [`TrainError`]; the graph then holds the last good weights.
pub fn train(
    graph: &mut Graph,
    set: &TrainingSet,
    recipe: &Recipe,
    seed: u64,
    device: &Device,
    cancel: &AtomicBool,
    mut progress: impl FnMut(&Progress),
) -> Result<Vec<Epoch>, TrainError> {
    if !graph.parameters.list.iter().any(|p| p.role.trains()) {
        return Err(TrainError::NothingTrains);
    }
    let mut run = Run::new(graph, set, recipe, seed, device)?;
    let mut curve = Vec::new();
    for epoch in 1..=recipe.epochs {
        let good = run.graph.parameters.clone();
        match run.epoch(epoch, cancel, &mut progress) {
            Ok(done) => curve.push(done),
            Err(stopped) => {
                run.graph.parameters = good;
                return Err(stopped);
            }
        }
    }
    Ok(curve)
}

/// The plan for batches of that size, from the input to one score a class.
fn plan(graph: &Graph, set: &TrainingSet, batch: usize) -> Result<Plan, TrainError> {
    let failed = |source| TrainError::Plan { batch, source };
    let inputs = Sizes::batch(batch).inputs(&graph.model).map_err(failed)?;
    let wanted = inputs.first().and_then(|x| x.dims.get(1..)).unwrap_or_default();
    if inputs.len() != 1 || wanted != set.shape() {
        return Err(TrainError::Input { samples: set.shape().to_vec(), graph: wanted.to_vec() });
    }
    let plan = graph.plan(&inputs, &[graph.logits()]).map_err(failed)?;
    let output = &plan.outputs[0].fact;
    if output.dims != [batch, set.classes()] {
        let found = format!("{output} for a batch of {batch}");
        return Err(TrainError::Output { found, classes: set.classes() });
    }
    Ok(plan)
}

struct Run<'a> {
    graph: &'a mut Graph,
    set: &'a TrainingSet,
    recipe: &'a Recipe,
    /// For whole batches, and for the last one of an epoch.
    plans: Vec<(usize, Plan)>,
    device: Device,
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
    fn new(
        graph: &'a mut Graph,
        set: &'a TrainingSet,
        recipe: &'a Recipe,
        seed: u64,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let draw = Draw::new(set, &recipe.group_share, seed);
        let per_epoch = draw.per_epoch().div_ceil(recipe.batch_size);
        let whole = recipe.batch_size.min(draw.per_epoch());
        let last = draw.per_epoch() - (per_epoch - 1) * recipe.batch_size;
        let mut plans = vec![(whole, plan(graph, set, whole)?)];
        if last != whole {
            plans.push((last, plan(graph, set, last)?));
        }
        Ok(Self {
            plans,
            optimizer: Optimizer::new(graph.parameters.list.len(), recipe.weight_decay),
            graph,
            set,
            recipe,
            device: device.clone().autodiff(),
            draw,
            augmenting: Random::stream(seed, 2),
            dropping: Random::stream(seed, 3),
            step: 0,
            steps: per_epoch * recipe.epochs as usize,
            warmup: (recipe.warmup_epochs * per_epoch as f64).round() as usize,
            started: Instant::now(),
        })
    }

    fn epoch(
        &mut self,
        epoch: u32,
        cancel: &AtomicBool,
        progress: &mut impl FnMut(&Progress),
    ) -> Result<Epoch, TrainError> {
        let order = self.draw.epoch();
        let (mut total, mut right, mut rate) = (0.0f64, 0, 0.0);
        for (batch, samples) in order.chunks(self.recipe.batch_size).enumerate() {
            if cancel.load(Ordering::Relaxed) {
                return Err(TrainError::Cancelled(epoch));
            }
            rate = learning_rate(self.recipe.learning_rate, self.step, self.warmup, self.steps);
            let (loss, correct) = self.batch(samples, rate);
            if !loss.is_finite() {
                return Err(TrainError::NotFinite {
                    epoch,
                    batch: batch + 1,
                    samples: samples.to_vec(),
                });
            }
            total += f64::from(loss) * samples.len() as f64;
            right += correct;
            self.step += 1;
            progress(&Progress {
                epoch,
                epochs: self.recipe.epochs,
                step: self.step,
                steps: self.steps,
                loss,
                eta_s: self.left().as_secs_f32(),
            });
        }
        let count = order.len() as f64;
        Ok(Epoch {
            epoch,
            loss: (total / count) as f32,
            accuracy: (right as f64 / count) as f32,
            learning_rate: rate,
        })
    }

    /// One step; the loss and how many of the batch were right. A loss that is no number changes
    /// nothing.
    fn batch(&mut self, samples: &[usize], rate: f64) -> (f32, usize) {
        let labels: Vec<usize> = samples.iter().map(|s| self.set.samples()[*s].label).collect();
        let mut shape = vec![samples.len()];
        shape.extend(self.set.shape());
        let x = tensor::from_host(self.inputs(samples), &shape, &self.device);
        let leaves = self.graph.parameters.leaves();
        let mut context = Context::train(&self.device, Random::new(self.dropping.bits()));
        let plan = self.plans.iter().find(|(batch, _)| *batch == samples.len());
        let (_, plan) = plan.unwrap_or_else(|| unreachable!("an epoch has two sizes of batch"));
        let logits = plan.run(&leaves, vec![x], &mut context).remove(0);
        let loss =
            cross_entropy(logits.clone(), &labels, self.recipe.label_smoothing, &self.device);
        let value = loss.clone().into_data().iter::<f32>().next().unwrap_or(f32::NAN);
        if !value.is_finite() {
            return (value, 0);
        }
        let parameters: &mut Parameters = &mut self.graph.parameters;
        self.optimizer.step(parameters, &leaves, loss.backward(), rate);
        parameters.observe(context.observed);
        (value, correct(&tensor::to_host(logits), &labels))
    }

    fn inputs(&mut self, samples: &[usize]) -> Vec<f32> {
        let mut values =
            Vec::with_capacity(samples.len() * self.set.shape().iter().product::<usize>());
        let pictures: Option<[usize; 3]> = self.set.shape().try_into().ok();
        for sample in samples {
            let from = values.len();
            values.extend_from_slice(self.set.input(*sample));
            if let (Some(shape), false) = (pictures, self.recipe.augment.is_none()) {
                self.recipe.augment.apply(
                    &mut values[from..],
                    shape,
                    self.set.black(),
                    &mut self.augmenting,
                );
            }
        }
        values
    }

    fn left(&self) -> Duration {
        self.started.elapsed().mul_f64((self.steps - self.step) as f64 / self.step.max(1) as f64)
    }
}
