//! The loop.
//!
//! Each step: draw a batch, change the pictures, forward, loss, backward, optimiser; running
//! statistics follow. A loss, a weight or a validation loss that is no number stops the run, names
//! the batch or the epoch, and leaves the weights of the last whole epoch (or those it began with) in
//! the graph. Cancelling leaves the same, and a checkpoint. After each epoch the samples kept for
//! early stopping are judged; the graph ends with the weights that were best on them.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::batches::Batches;
use super::checkpoint::{Checkpoints, State};
use super::draw::Draw;
use super::freeze::freeze;
use super::optimizer::{Optimizer, learning_rate};
use super::pass::Passes;
use super::validation::{self, Best, Parts};
use super::{Epoch, Outcome, Progress, Task, TrainError, TrainingSet};
use crate::graph::{Graph, Parameters};
use crate::random::Random;

/// Trains the graph's parameters in place. What the recipe freezes is no parameter of the graph any
/// more.
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
    let frozen = freeze(graph, &task.recipe.freeze)?;
    let mut run = Run::new(graph, task)?;
    let resumed_at_step = run.resume(&mut graph.parameters)?;
    while !run.is_over() {
        if let Err(stopped) = run.epoch(&mut graph.parameters, progress) {
            graph.parameters = run.good;
            return Err(stopped);
        }
    }
    let last = run.curve.len() as u32;
    let kept_epoch = run.best.map_or(last, |best| {
        graph.parameters = best.parameters;
        best.epoch
    });
    Ok(Outcome { curve: run.curve, kept_epoch, frozen, resumed_at_step })
}

struct Run<'a> {
    task: &'a Task<'a>,
    passes: Passes<'a>,
    checkpoints: Option<Checkpoints>,
    /// The samples that are judged after each epoch; none without early stopping.
    validate: Vec<usize>,
    draw: Draw,
    optimizer: Optimizer,
    augmenting: Random,
    dropping: Random,
    curve: Vec<Epoch>,
    under_way: UnderWay,
    /// The parameters as the epoch under way began.
    good: Parameters,
    best: Option<Best>,
    step: usize,
    steps: usize,
    warmup: usize,
    pace: Pace,
}

/// The epoch under way.
#[derive(Debug, Default)]
struct UnderWay {
    /// Its samples; empty before it has begun.
    order: Vec<usize>,
    learned: usize,
    /// The sum of their losses.
    total: f64,
    /// How many were right; none once a batch does not know.
    right: Option<usize>,
}

/// How fast steps are made, since the run began or went on.
struct Pace {
    started: Instant,
    first_step: usize,
}

impl<'a> Run<'a> {
    fn new(graph: &Graph, task: &'a Task<'a>) -> Result<Self, TrainError> {
        let (set, recipe, seed) = (task.set, task.recipe, task.seed);
        let parts = match &recipe.early_stopping {
            Some(rule) => validation::part(set, rule.validation_share, seed)?,
            None => Parts { learn: (0..set.len()).collect(), validate: Vec::new() },
        };
        let draw = Draw::new(set, &parts.learn, &recipe.group_share, seed);
        let batches = Batches::of(draw.per_epoch(), recipe.batch_size);
        let per_epoch = batches.count();
        let to_validate = Batches::of(parts.validate.len(), recipe.batch_size);
        let sizes = [batches.sizes(), to_validate.sizes()].concat();
        Ok(Self {
            passes: Passes::new(graph, set, recipe, &sizes, task.device)?,
            task,
            checkpoints: None,
            validate: parts.validate,
            draw,
            optimizer: Optimizer::new(recipe),
            augmenting: Random::stream(seed, 2),
            dropping: Random::stream(seed, 3),
            curve: Vec::new(),
            under_way: UnderWay::default(),
            good: graph.parameters.clone(),
            best: None,
            step: 0,
            steps: per_epoch * recipe.epochs as usize,
            warmup: (recipe.warmup_epochs * per_epoch as f64).round() as usize,
            pace: Pace { started: Instant::now(), first_step: 0 },
        })
    }

    /// Goes on from the task's checkpoint, if there is one, and says from which step.
    fn resume(&mut self, parameters: &mut Parameters) -> Result<Option<usize>, TrainError> {
        let Some((place, key)) = &self.task.checkpoints else { return Ok(None) };
        let (checkpoints, found) = place.open(key.clone())?;
        let fits = found.as_ref().is_none_or(|state| state.fits(parameters));
        if !fits {
            checkpoints.replace(vec!["graph".to_owned()])?;
        }
        self.checkpoints = Some(checkpoints);
        let Some(state) = found.filter(|_| fits) else { return Ok(None) };
        parameters.restore(&state.parameters);
        self.good.restore(&state.good);
        self.best = state.best.map(|(epoch, loss, values)| {
            let mut best = parameters.clone();
            best.restore(&values);
            Best { epoch, loss, parameters: best }
        });
        self.optimizer.restore(state.optimizer);
        self.draw.restore(state.draw);
        self.augmenting = Random::new(state.augmenting);
        self.dropping = Random::new(state.dropping);
        self.curve = state.curve;
        let (order, learned, total, right) = (state.order, state.learned, state.total, state.right);
        self.under_way = UnderWay { order, learned, total, right };
        self.step = state.step;
        self.pace.first_step = state.step;
        tracing::info!(step = self.step, of = self.steps, "training goes on from a checkpoint");
        Ok(Some(self.step))
    }

    fn save(&mut self, parameters: &Parameters) {
        let Some(checkpoints) = &mut self.checkpoints else { return };
        let at = &self.under_way;
        let best = |best: &Best| (best.epoch, best.loss, best.parameters.values());
        checkpoints.save(&State {
            curve: self.curve.clone(),
            order: at.order.clone(),
            learned: at.learned,
            total: at.total,
            right: at.right,
            step: self.step,
            draw: self.draw.state(),
            augmenting: self.augmenting.state(),
            dropping: self.dropping.state(),
            parameters: parameters.values(),
            good: self.good.values(),
            optimizer: self.optimizer.state(parameters),
            best: self.best.as_ref().map(best),
        });
    }

    /// One epoch, or the rest of the one under way.
    fn epoch(
        &mut self,
        parameters: &mut Parameters,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(), TrainError> {
        let recipe = self.task.recipe;
        let epoch = self.curve.len() as u32 + 1;
        if self.under_way.order.is_empty() {
            self.good = parameters.clone();
            let order = self.draw.epoch();
            self.under_way = UnderWay { order, right: Some(0), ..UnderWay::default() };
        }
        while self.under_way.learned < self.under_way.order.len() {
            if self.task.cancel.load(Ordering::Relaxed) {
                self.save(parameters);
                return Err(TrainError::Cancelled(epoch));
            }
            let UnderWay { order, learned, .. } = &self.under_way;
            let (_, end) = Batches::of(order.len(), recipe.batch_size).after(*learned);
            let samples = order[*learned..end].to_vec();
            let loss = self.batch(parameters, epoch, &samples)?;
            progress(&self.progress(epoch, loss));
            if self.checkpoints.as_ref().is_some_and(Checkpoints::is_due) {
                self.save(parameters);
            }
        }
        self.close(parameters, epoch)
    }

    /// One step; its loss.
    fn batch(
        &mut self,
        parameters: &mut Parameters,
        epoch: u32,
        samples: &[usize],
    ) -> Result<f32, TrainError> {
        let values = self.inputs(samples);
        let random = Random::new(self.dropping.bits());
        let seen = self.passes.learn(parameters, samples, values, random);
        let Some(gradients) = seen.gradients else {
            let UnderWay { order, learned, .. } = &self.under_way;
            let batches = Batches::of(order.len(), self.task.recipe.batch_size);
            let batch = batches.after(*learned).0 + 1;
            return Err(TrainError::NotFinite { epoch, batch, samples: samples.to_vec() });
        };
        self.optimizer.step(parameters, seen.leaves, gradients, self.rate(self.step));
        parameters.observe(seen.observed);
        let at = &mut self.under_way;
        at.learned += samples.len();
        at.total += f64::from(seen.loss) * samples.len() as f64;
        at.right = at.right.zip(seen.right).map(|(all, these)| all + these);
        self.step += 1;
        Ok(seen.loss)
    }

    /// Ends the epoch under way: what it came to, and what it is worth.
    fn close(&mut self, parameters: &Parameters, epoch: u32) -> Result<(), TrainError> {
        if let Some(name) = not_finite(&parameters.values()) {
            return Err(TrainError::Diverged { epoch, what: format!("'{name}'") });
        }
        let validation_loss = self.validate(parameters);
        if let (Some(loss), Some(rule)) = (validation_loss, &self.task.recipe.early_stopping) {
            if !loss.is_finite() {
                let what = "the validation loss".to_owned();
                return Err(TrainError::Diverged { epoch, what });
            }
            validation::keep(&mut self.best, rule, epoch, loss, parameters);
        }
        let at = std::mem::take(&mut self.under_way);
        let count = at.order.len() as f64;
        self.curve.push(Epoch {
            epoch,
            loss: (at.total / count) as f32,
            accuracy: at.right.map(|right| (right as f64 / count) as f32),
            validation_loss,
            learning_rate: self.rate(self.step.saturating_sub(1)),
        });
        Ok(())
    }

    fn is_over(&self) -> bool {
        let (recipe, epoch) = (self.task.recipe, self.curve.len() as u32);
        let rule = recipe.early_stopping.as_ref();
        epoch >= recipe.epochs
            || rule.is_some_and(|rule| validation::is_over(self.best.as_ref(), rule, epoch))
    }

    /// The mean loss of the samples that are not learned from.
    fn validate(&self, parameters: &Parameters) -> Option<f32> {
        let fixed = parameters.fixed();
        let mut total = 0.0;
        let batches = Batches::of(self.validate.len(), self.task.recipe.batch_size);
        for samples in batches.split(&self.validate) {
            let loss = self.passes.judge(&fixed, samples, gathered(self.task.set, samples));
            total += f64::from(loss) * samples.len() as f64;
        }
        (!self.validate.is_empty()).then(|| (total / self.validate.len() as f64) as f32)
    }

    fn rate(&self, step: usize) -> f64 {
        learning_rate(self.task.recipe.learning_rate, step, self.warmup, self.steps)
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
        let eta_s = self.pace.left(step, steps).as_secs_f32();
        Progress { epoch, epochs, step, steps, loss, eta_s }
    }
}

impl Pace {
    fn left(&self, step: usize, steps: usize) -> Duration {
        let made = (step - self.first_step).max(1) as f64;
        self.started.elapsed().mul_f64((steps - step) as f64 / made)
    }
}

/// The name of a parameter that holds a value that is no finite number.
fn not_finite(values: &HashMap<String, Vec<f32>>) -> Option<String> {
    let mut bad = values.iter().filter(|(_, values)| values.iter().any(|v| !v.is_finite()));
    bad.by_ref().map(|(name, _)| name.clone()).min()
}

/// The inputs of samples, one after another.
fn gathered(set: &TrainingSet, samples: &[usize]) -> Vec<f32> {
    samples.iter().map(|sample| set.input(*sample)).collect::<Vec<_>>().concat()
}
