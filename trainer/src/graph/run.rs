//! One forward pass over a plan.

use burn::tensor::{Device, Tensor as Flat};

use super::{Plan, Tensor};
use crate::ops::{Inputs, tensor};
use crate::random::Random;

/// Whether a pass is for training or for use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, dropout, gradients.
    Train,
    /// Running statistics, no dropout, no gradients.
    Infer,
}

/// What a normalisation saw of a batch: the running value becomes
/// `momentum · running + (1 − momentum) · value`.
#[derive(Debug)]
pub struct Observation {
    /// Place of the running statistic in [`Parameters::list`](super::Parameters::list).
    pub parameter: usize,
    /// The batch's statistic.
    pub value: Flat<1>,
    /// ONNX momentum: the weight of the old value.
    pub momentum: f32,
}

/// What a kernel may use and leave behind besides its inputs and outputs.
#[derive(Debug)]
pub struct Context {
    /// Training or use.
    pub mode: Mode,
    /// The device the pass runs on.
    pub device: Device,
    /// Random numbers for dropout; seeded by the caller.
    pub random: Random,
    /// Statistics for [`Parameters::observe`](super::Parameters::observe).
    pub observed: Vec<Observation>,
}

impl Context {
    /// The context of a pass for use.
    pub fn infer(device: &Device) -> Self {
        Self {
            mode: Mode::Infer,
            device: device.clone(),
            random: Random::new(0),
            observed: Vec::new(),
        }
    }

    /// The context of a training pass.
    pub fn train(device: &Device, random: Random) -> Self {
        Self { mode: Mode::Train, device: device.clone(), random, observed: Vec::new() }
    }
}

impl Plan {
    /// Runs the graph on one batch and returns what it was planned for, in that order.
    ///
    /// `leaves` are [`Parameters::leaves`](super::Parameters::leaves) for a training pass (gradients can then be taken for
    /// them) or [`Parameters::fixed`](super::Parameters::fixed) otherwise. `inputs` have the shapes of the plan.
    pub fn run(
        &self,
        leaves: &[Flat<1>],
        inputs: Vec<Tensor>,
        context: &mut Context,
    ) -> Vec<Tensor> {
        let mut slots: Vec<Option<Tensor>> = vec![None; self.slots];
        for (slot, constant) in &self.constants {
            slots[*slot] = Some(constant.clone());
        }
        for (place, leaf) in self.parameters.iter().zip(leaves) {
            if let Some((slot, shape)) = place {
                slots[*slot] = Some(tensor::reshape(leaf.clone().into_dispatch(), shape));
            }
        }
        for (slot, input) in self.inputs.iter().zip(inputs) {
            if let Some(slot) = slot {
                slots[*slot] = Some(input);
            }
        }
        for step in &self.steps {
            let take = |slot: usize, slots: &mut Vec<Option<Tensor>>| {
                if step.last_use.contains(&slot) { slots[slot].take() } else { slots[slot].clone() }
            };
            let values = step.inputs.iter().map(|i| i.and_then(|i| take(i, &mut slots))).collect();
            let outputs = (step.kernel)(&mut Inputs::new(values), context);
            for (slot, value) in step.outputs.iter().zip(outputs) {
                if let Some(slot) = slot {
                    slots[*slot] = Some(value);
                }
            }
        }
        let computed = |slot: usize| {
            slots[slot].clone().unwrap_or_else(|| unreachable!("a plan computes what it offers"))
        };
        self.outputs.iter().map(|output| computed(output.slot)).collect()
    }
}
