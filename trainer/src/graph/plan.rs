//! Slots, steps and last uses: the graph as it runs.
//!
//! Names are resolved to slot numbers once. For every step the slots that nobody reads later are
//! known, so that a buffer is handed on rather than copied.

use std::collections::{HashMap, HashSet};

use burn::tensor::Device;

use super::check::Findings;
use super::{Fact, Parameters, Tensor};
use crate::onnx::Model;
use crate::ops::{Kernel, tensor};

/// One kernel with the slots it reads and writes.
pub struct Step {
    /// Its operator, for messages.
    pub op: String,
    /// Slots read; `None` for inputs left out or known at load.
    pub inputs: Vec<Option<usize>>,
    /// Slots written; `None` for outputs that nobody reads.
    pub outputs: Vec<Option<usize>>,
    /// Slots that this step reads as the last one.
    pub last_use: Vec<usize>,
    /// What it computes.
    pub kernel: Kernel,
}

/// A value that a plan computes.
pub struct Output {
    /// Its slot.
    pub slot: usize,
    /// Its type and shape.
    pub fact: Fact,
}

/// A graph ready to run for inputs of given shapes.
pub struct Plan {
    /// How many slots a pass needs.
    pub slots: usize,
    /// The slot of every graph input, in their order; `None` for one that nobody reads.
    pub inputs: Vec<Option<usize>>,
    /// What is computed, in the order in which it was asked for.
    pub outputs: Vec<Output>,
    pub(super) constants: Vec<(usize, Tensor)>,
    /// Slot and shape of every parameter that is read.
    pub(super) parameters: Vec<Option<(usize, Vec<usize>)>>,
    /// The steps in order.
    pub steps: Vec<Step>,
}

/// Gives every value its slot.
pub(super) fn plan(
    model: &Model,
    findings: Findings<'_>,
    wanted: &[String],
    parameters: &Parameters,
    device: &Device,
) -> Plan {
    let Findings { steps: checked, facts, wanted: found } = findings;
    let mut slots: HashMap<&str, usize> = HashMap::new();
    let mut slot = |name| {
        let next = slots.len();
        *slots.entry(name).or_insert(next)
    };
    let mut steps = Vec::with_capacity(checked.len());
    for step in checked {
        let inputs = step.inputs.into_iter().map(|name| name.map(&mut slot)).collect();
        let outputs = step.node.output.iter();
        let outputs = outputs.map(|name| (!name.is_empty()).then(|| slot(name.as_str()))).collect();
        let op = step.node.op_type.clone();
        steps.push(Step { op, inputs, outputs, last_use: Vec::new(), kernel: step.kernel });
    }
    let outputs = wanted.iter().zip(found).map(|(name, fact)| Output { slot: slot(name), fact });
    let outputs: Vec<Output> = outputs.collect();
    last_uses(&mut steps, outputs.iter().map(|o| o.slot).collect());
    let mut constants = Vec::new();
    for (name, slot) in &slots {
        if let Some(tensor) = facts.get(name).and_then(|fact| fact.constant.as_ref()) {
            constants.push((*slot, tensor::upload(tensor, device)));
        }
    }
    constants.sort_by_key(|(slot, _)| *slot);
    let of = |name: &str| slots.get(name).copied();
    let shaped = |p: &super::Parameter| Some((of(&p.name)?, at_least_one(&p.shape)));
    Plan {
        slots: slots.len(),
        inputs: model.inputs.iter().map(|input| of(&input.name)).collect(),
        outputs,
        constants,
        parameters: parameters.list.iter().map(shaped).collect(),
        steps,
    }
}

/// Finds the last reader of every slot but the `kept`.
fn last_uses(steps: &mut [Step], mut kept: HashSet<usize>) {
    for step in steps.iter_mut().rev() {
        let mut last: Vec<usize> =
            step.inputs.iter().flatten().copied().filter(|slot| kept.insert(*slot)).collect();
        // A slot read twice by one step is cloned: taking it would leave nothing for the second.
        last.retain(|slot| step.inputs.iter().filter(|i| **i == Some(*slot)).count() == 1);
        step.last_use = last;
    }
}

/// burn has no rank-0 tensors: a single number is one element in one dimension, which broadcasts
/// alike.
pub(crate) fn at_least_one(shape: &[usize]) -> Vec<usize> {
    if shape.is_empty() { vec![1] } else { shape.to_vec() }
}
