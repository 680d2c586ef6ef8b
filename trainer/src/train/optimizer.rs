//! The optimisers over a graph's parameters, and the learning rate's course.
//!
//! AdamW (Loshchilov and Hutter 2019) with β 0.9 and 0.999, and SGD with momentum, with or without
//! Nesterov's look ahead (Sutskever et al. 2013) in PyTorch's form, velocity = momentum · velocity +
//! gradient. Weight decay is decoupled in both (AdamW and SGDW of the first paper): a step shrinks a
//! weight by learning rate · decay, whatever its gradient. Weights decay; biases and scales do not.
//! Running statistics have no gradient and are left alone.
//!
//! All state is here, flat and on the host; a step is one pass over each parameter.

use bincode::{Decode, Encode};
use burn::tensor::{Gradients, Tensor as Flat};
use rayon::prelude::*;

use super::{Algorithm, Recipe};
use crate::graph::{Parameters, host};
use crate::kernels::wide;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f32 = 1e-8;

/// Elements that one part of a step takes.
const PART: usize = 1 << 16;

/// An optimiser and what it remembers.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    weight_decay: f64,
    steps: u64,
    /// By the parameter's place; empty before its first gradient.
    memories: Vec<Memory>,
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    Adamw,
    Sgd { momentum: f32, nesterov: bool },
}

/// What an optimiser remembers of all parameters.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct State {
    steps: u64,
    /// By the parameter's name.
    memories: Vec<(String, Memory)>,
}

/// What is remembered of one parameter, as long as the parameter.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
struct Memory {
    /// The mean of the gradients, or the velocity.
    first: Vec<f32>,
    /// The mean of their squares; empty for SGD.
    second: Vec<f32>,
}

impl Optimizer {
    /// A fresh optimiser as the recipe wants it.
    pub fn new(recipe: &Recipe) -> Self {
        let rule = match recipe.optimizer {
            Algorithm::Adamw => Rule::Adamw,
            Algorithm::Sgd => {
                Rule::Sgd { momentum: recipe.momentum as f32, nesterov: recipe.nesterov }
            }
        };
        Self { rule, weight_decay: recipe.weight_decay, steps: 0, memories: Vec::new() }
    }

    /// What [`Optimizer::restore`] needs to go on from here.
    pub fn state(&self, parameters: &Parameters) -> State {
        let names = parameters.list.iter().map(|p| p.name.clone());
        State { steps: self.steps, memories: names.zip(self.memories.iter().cloned()).collect() }
    }

    /// Goes on from a state of the same recipe and parameters.
    pub fn restore(&mut self, state: State) {
        self.steps = state.steps;
        self.memories = state.memories.into_iter().map(|(_, memory)| memory).collect();
    }

    /// Moves every parameter that trains along its gradient. `leaves` are the ones the loss was
    /// computed from; they are let go one by one, so that each parameter is changed in place.
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        leaves: Vec<Flat<1>>,
        mut gradients: Gradients,
        learning_rate: f64,
    ) {
        self.steps += 1;
        self.memories.resize_with(parameters.list.len(), Memory::default);
        let places = parameters.list.iter_mut().zip(&mut self.memories);
        for ((parameter, memory), leaf) in places.zip(leaves) {
            if !parameter.role.trains() {
                continue;
            }
            let Some(gradient) = leaf.grad_remove(&mut gradients) else { continue };
            drop(leaf);
            let decay = if parameter.role.decays() { self.weight_decay } else { 0.0 };
            let step = Step { rate: learning_rate, decay, number: self.steps };
            parameter.update(|values| match self.rule {
                Rule::Adamw => step.adamw(values, &host(gradient), memory),
                Rule::Sgd { momentum, nesterov } => {
                    step.sgd(values, &host(gradient), memory, momentum, nesterov);
                }
            });
        }
    }
}

/// One step of one parameter.
struct Step {
    rate: f64,
    decay: f64,
    /// From 1.
    number: u64,
}

impl Step {
    /// The factor by which decay shrinks a weight.
    fn shrink(&self) -> f32 {
        (1.0 - self.rate * self.decay) as f32
    }

    fn adamw(&self, values: &mut [f32], gradient: &[f32], memory: &mut Memory) {
        memory.first.resize(values.len(), 0.0);
        memory.second.resize(values.len(), 0.0);
        let power = self.number.min(i32::MAX as u64) as i32;
        let (first_share, second_share) = ((1.0 - BETA_1) as f32, (1.0 - BETA_2) as f32);
        let rate = (self.rate / (1.0 - BETA_1.powi(power))) as f32;
        let root = (1.0 / (1.0 - BETA_2.powi(power))).sqrt() as f32;
        let (beta_1, beta_2, shrink) = (BETA_1 as f32, BETA_2 as f32, self.shrink());
        let parts = values.par_chunks_mut(PART).zip(gradient.par_chunks(PART));
        let memories = memory.first.par_chunks_mut(PART).zip(memory.second.par_chunks_mut(PART));
        parts.zip(memories).for_each(|((values, gradient), (first, second))| {
            wide(
                #[inline(always)]
                || {
                    let memories = first.iter_mut().zip(second);
                    for ((value, g), (first, second)) in
                        values.iter_mut().zip(gradient).zip(memories)
                    {
                        *first = beta_1 * *first + first_share * g;
                        *second = beta_2 * *second + second_share * g * g;
                        *value = *value * shrink - rate * *first / (second.sqrt() * root + EPSILON);
                    }
                },
            );
        });
    }

    fn sgd(
        &self,
        values: &mut [f32],
        gradient: &[f32],
        memory: &mut Memory,
        momentum: f32,
        nesterov: bool,
    ) {
        memory.first.resize(values.len(), 0.0);
        let (rate, shrink) = (self.rate as f32, self.shrink());
        for ((value, g), velocity) in values.iter_mut().zip(gradient).zip(&mut memory.first) {
            *velocity = momentum * *velocity + g;
            let along = if nesterov { g + momentum * *velocity } else { *velocity };
            *value = *value * shrink - rate * along;
        }
    }
}

/// The learning rate at `step` of `steps`: linear up during `warmup` steps, then half a cosine down.
pub fn learning_rate(peak: f64, step: usize, warmup: usize, steps: usize) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let done = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    peak * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value after each of several steps at rate 0.1 along these gradients.
    fn course(
        decay: f64,
        gradients: &[f32],
        step: impl Fn(&Step, &mut [f32], f32, &mut Memory),
    ) -> Vec<f32> {
        let (mut value, mut memory) = ([1.0f32], Memory::default());
        let numbered = gradients.iter().zip(1..);
        let moved = numbered.map(|(g, number)| {
            step(&Step { rate: 0.1, decay, number }, &mut value, *g, &mut memory);
            value[0]
        });
        moved.collect()
    }

    fn near(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{got} instead of {want}");
        }
    }

    #[test]
    fn adamw_by_hand() {
        let adamw = |decay, gradients: &[f32]| {
            course(decay, gradients, |step, value, g, memory| step.adamw(value, &[g], memory))
        };
        // The first step is the rate along the sign, whatever the gradient's size.
        near(&adamw(0.0, &[3.0]), &[0.9]);
        near(&adamw(0.5, &[-3.0]), &[0.95 + 0.1]);
        // moments 0.9·0.3 − 0.1 = 0.17 and 0.999·0.009 + 0.001 = 0.009991; corrected 0.894737 and
        // 4.998000, so the second step is 0.1 · 0.894737 / 2.235621
        near(&adamw(0.0, &[3.0, -1.0]), &[0.9, 0.9 - 0.040_021_86]);
    }

    #[test]
    fn sgd_by_hand() {
        let sgd = |decay, momentum, nesterov| {
            course(decay, &[1.0, 2.0], move |step, value, g, memory| {
                step.sgd(value, &[g], memory, momentum, nesterov);
            })
        };
        near(&sgd(0.0, 0.0, false), &[0.9, 0.7]);
        // velocities 1 and 2.9
        near(&sgd(0.0, 0.9, false), &[0.9, 0.61]);
        // 1 + 0.9 · 1 and 2 + 0.9 · 2.9
        near(&sgd(0.0, 0.9, true), &[0.81, 0.349]);
        near(&sgd(0.5, 0.0, false), &[0.95 - 0.1, 0.85 * 0.95 - 0.2]);
    }

    #[test]
    fn the_learning_rate_rises_then_falls_towards_zero() {
        let course: Vec<f64> = (0..12).map(|s| learning_rate(1.0, s, 2, 12)).collect();
        assert_eq!(&course[..3], [0.5, 1.0, 1.0]);
        assert!((course[7] - 0.5).abs() < 1e-12);
        assert!(course[2..].windows(2).all(|w| w[1] < w[0]) && course[11] > 0.0);
        assert_eq!(learning_rate(1.0, 0, 0, 1), 1.0);
    }
}
