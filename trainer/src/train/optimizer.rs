//! AdamW (Loshchilov and Hutter 2019) over a graph's parameters, and the learning rate's course.
//!
//! Weights decay; biases and scales do not. Running statistics have no gradient and are left alone.

use burn::optim::{AdamW, AdamWConfig, AdamWState, Optimizer as _};
use burn::tensor::{Gradients, Tensor as Flat};

use crate::graph::Parameters;

/// The optimiser's state: one entry a parameter.
pub struct Optimizer {
    decaying: AdamW,
    plain: AdamW,
    states: Vec<Option<AdamWState<1>>>,
}

impl Optimizer {
    /// A fresh optimiser for that many parameters.
    pub fn new(parameters: usize, weight_decay: f64) -> Self {
        let config = AdamWConfig::new().with_epsilon(1e-8);
        Self {
            decaying: config.clone().with_weight_decay(weight_decay as f32).build(),
            plain: config.with_weight_decay(0.0).build(),
            states: (0..parameters).map(|_| None).collect(),
        }
    }

    /// Moves every parameter that trains along its gradient. `leaves` are the ones the loss was
    /// computed from.
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        leaves: &[Flat<1>],
        mut gradients: Gradients,
        learning_rate: f64,
    ) {
        for ((parameter, leaf), state) in
            parameters.list.iter_mut().zip(leaves).zip(&mut self.states)
        {
            if !parameter.role.trains() {
                continue;
            }
            let Some(gradient) = leaf.grad_remove(&mut gradients) else { continue };
            let rule = if parameter.role.decays() { &self.decaying } else { &self.plain };
            let (value, next) = rule.step(learning_rate, parameter.value(), gradient, state.take());
            parameter.set(value);
            *state = next;
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

    #[test]
    fn the_learning_rate_rises_then_falls_towards_zero() {
        let course: Vec<f64> = (0..12).map(|s| learning_rate(1.0, s, 2, 12)).collect();
        assert_eq!(&course[..3], [0.5, 1.0, 1.0]);
        assert!((course[7] - 0.5).abs() < 1e-12);
        assert!(course[2..].windows(2).all(|w| w[1] < w[0]) && course[11] > 0.0);
        assert_eq!(learning_rate(1.0, 0, 0, 1), 1.0);
    }
}
