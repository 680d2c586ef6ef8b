//! Slots, steps and last uses: the graph as it runs.
//!
//! Names are resolved to slot numbers once. Steps whose inputs are all constants run here, on the
//! host's behalf, and leave a constant. For every step the slots that nobody reads later are known,
//! so that a buffer is handed on rather than copied.

use std::collections::HashMap;

use burn::tensor::Device;

use super::check::{Checked, check};
use super::role::Uses;
use super::{Context, Dim, Fact, GraphError, Parameter, Parameters, Tensor};
use crate::onnx::read::{DeclaredDim, DeclaredValue};
use crate::onnx::tensor::FLOAT;
use crate::onnx::{Elements, HostTensor, Model};
use crate::ops::{Built, Inputs, Kernel, tensor};

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

/// A graph ready to run.
pub struct Plan {
    /// How many slots a pass needs.
    pub slots: usize,
    /// The slot of the graph's input.
    pub input: usize,
    /// The input's dimensions.
    pub input_dims: Vec<Dim>,
    /// The slot of the graph's first output.
    pub output: usize,
    /// The output's dimensions.
    pub output_dims: Vec<Dim>,
    /// The slot to take the loss from: the output, or what goes into a softmax at the very end.
    pub logits: usize,
    pub(super) constants: Vec<(usize, Tensor)>,
    pub(super) parameters: Vec<(usize, Vec<usize>)>,
    /// The steps in order.
    pub steps: Vec<Step>,
}

/// A model loaded for training.
pub struct Graph {
    /// The file.
    pub model: Model,
    /// How it runs.
    pub plan: Plan,
    /// What training changes.
    pub parameters: Parameters,
}

impl Graph {
    /// Checks and plans a model for a device (without autodiff; a training pass adds it).
    ///
    /// # Errors
    /// [`GraphError`]: every node that cannot be done, or inputs and outputs that do not fit.
    pub fn load(model: Model, device: &Device) -> Result<Self, GraphError> {
        let input = input(&model)?;
        let output = model
            .outputs
            .first()
            .ok_or_else(|| GraphError::Shape("the graph has no output".into()))?
            .name
            .clone();
        let parameters = parameters(&model, device);
        let places: HashMap<&str, usize> =
            parameters.list.iter().enumerate().map(|(place, p)| (p.name.as_str(), place)).collect();
        let name = model.inputs[0].name.as_str();
        let checked = check(&model, (name, Fact::runtime(input.clone())), &places)
            .map_err(GraphError::Refused)?;
        let mut builder = Builder::new(&model, &parameters, name, input, device);
        for node in checked {
            builder.add(node);
        }
        let plan = builder.finish(&output)?;
        Ok(Self { plan, parameters, model })
    }
}

impl Plan {
    /// The input's shape for a batch of that size.
    pub fn input_shape(&self, batch: usize) -> Vec<usize> {
        self.input_dims.iter().map(|d| d.at(batch)).collect()
    }
}

fn input(model: &Model) -> Result<Vec<Dim>, GraphError> {
    let [DeclaredValue { name, data_type: FLOAT, dims: Some(dims) }] = model.inputs.as_slice()
    else {
        return Err(GraphError::Shape(
            "exactly one float input with a declared shape is needed".into(),
        ));
    };
    let (first, rest) = dims
        .split_first()
        .ok_or_else(|| GraphError::Shape(format!("input '{name}' has no batch dimension")))?;
    if !matches!(first, DeclaredDim::Open(_) | DeclaredDim::Fixed(1)) {
        return Err(GraphError::Shape(format!(
            "the first dimension of input '{name}' has to be the batch: open, or 1"
        )));
    }
    let mut shape = vec![Dim::Batch(1)];
    for dim in rest {
        match dim {
            DeclaredDim::Fixed(n) => shape.push(Dim::Fixed(*n)),
            DeclaredDim::Open(open) => {
                return Err(GraphError::Shape(format!(
                    "dimension '{open}' of input '{name}' has no fixed size; only the batch may be open"
                )));
            }
        }
    }
    Ok(shape)
}

fn parameters(model: &Model, device: &Device) -> Parameters {
    let graph = &model.proto.graph;
    let uses = Uses::of(&graph.node, model.outputs.iter().map(|o| o.name.as_str()).collect());
    let list = graph.initializer.iter().filter_map(|proto| {
        let HostTensor { shape, elements: Elements::Float(values) } =
            &model.initializers[&proto.name]
        else {
            return None;
        };
        let role = uses.role(&proto.name, values.len());
        role.changes().then(|| Parameter::new(&proto.name, role, shape, values.clone(), device))
    });
    Parameters { list: list.collect() }
}

struct Builder<'a> {
    slots: HashMap<&'a str, usize>,
    dims: Vec<Vec<Dim>>,
    constants: HashMap<usize, Tensor>,
    parameters: Vec<(usize, Vec<usize>)>,
    steps: Vec<Step>,
    /// For each slot written by a softmax, the slot that went into it.
    before_softmax: HashMap<usize, usize>,
    device: Device,
}

impl<'a> Builder<'a> {
    fn new(
        model: &'a Model,
        parameters: &Parameters,
        input: &'a str,
        dims: Vec<Dim>,
        device: &Device,
    ) -> Self {
        let mut builder = Self {
            slots: HashMap::new(),
            dims: Vec::new(),
            constants: HashMap::new(),
            parameters: Vec::new(),
            steps: Vec::new(),
            before_softmax: HashMap::new(),
            device: device.clone(),
        };
        builder.slot(input, dims);
        let changed: HashMap<&str, &Parameter> =
            parameters.list.iter().map(|p| (p.name.as_str(), p)).collect();
        for proto in &model.proto.graph.initializer {
            let HostTensor { shape, elements: Elements::Float(values) } =
                &model.initializers[&proto.name]
            else {
                continue;
            };
            let slot = builder.slot(&proto.name, shape.iter().map(|d| Dim::Fixed(*d)).collect());
            if changed.contains_key(proto.name.as_str()) {
                builder.parameters.push((slot, shape.clone()));
            } else if !values.is_empty() {
                builder
                    .constants
                    .insert(slot, tensor::from_host(values.clone(), &at_least_one(shape), device));
            }
        }
        builder
    }

    fn slot(&mut self, name: &'a str, dims: Vec<Dim>) -> usize {
        let slot = self.dims.len();
        self.dims.push(dims);
        self.slots.insert(name, slot);
        slot
    }

    fn add(&mut self, checked: Checked<'a>) {
        let node = checked.node;
        match checked.built {
            Built::Constant(fact) => {
                if let (Some(values), Some(tensor)) = (fact.floats(), fact.constant.as_deref()) {
                    let value = tensor::from_host(
                        values.to_vec(),
                        &at_least_one(&tensor.shape),
                        &self.device,
                    );
                    let slot = self.slot(&node.output[0], fact.dims.clone());
                    self.constants.insert(slot, value);
                }
            }
            Built::Step(facts, kernel) => {
                let inputs: Vec<Option<usize>> =
                    node.input.iter().map(|name| self.slots.get(name.as_str()).copied()).collect();
                let mut outputs = Vec::new();
                for (name, fact) in node.output.iter().zip(facts) {
                    outputs.push((!name.is_empty()).then(|| self.slot(name, fact.dims)));
                }
                if inputs.iter().flatten().all(|i| self.constants.contains_key(i)) {
                    self.fold(&inputs, &outputs, &kernel);
                    return;
                }
                if let ("Softmax" | "LogSoftmax", Some(Some(from)), Some(Some(to))) =
                    (node.op_type.as_str(), inputs.first(), outputs.first())
                {
                    self.before_softmax.insert(*to, *from);
                }
                self.steps.push(Step {
                    op: node.op_type.clone(),
                    inputs,
                    outputs,
                    last_use: Vec::new(),
                    kernel,
                });
            }
        }
    }

    fn fold(&mut self, inputs: &[Option<usize>], outputs: &[Option<usize>], kernel: &Kernel) {
        let values =
            inputs.iter().map(|i| i.and_then(|i| self.constants.get(&i).cloned())).collect();
        let results = kernel(&mut Inputs::new(values), &mut Context::infer(&self.device));
        for (slot, value) in outputs.iter().zip(results) {
            if let Some(slot) = slot {
                self.constants.insert(*slot, value);
            }
        }
    }

    fn finish(mut self, output: &str) -> Result<Plan, GraphError> {
        let output = *self.slots.get(output).ok_or_else(|| {
            GraphError::Shape(format!(
                "output '{output}' is not a float value that the graph computes"
            ))
        })?;
        if !self.steps.iter().any(|s| s.outputs.contains(&Some(output))) {
            return Err(GraphError::Shape("the output does not depend on the input".into()));
        }
        let mut seen = std::collections::HashSet::from([output]);
        for step in self.steps.iter_mut().rev() {
            let mut last: Vec<usize> =
                step.inputs.iter().flatten().copied().filter(|slot| seen.insert(*slot)).collect();
            // A slot read twice by one step is cloned: taking it would leave nothing for the second.
            last.retain(|slot| step.inputs.iter().filter(|i| **i == Some(*slot)).count() == 1);
            step.last_use = last;
        }
        let logits = self.before_softmax.get(&output).copied().unwrap_or(output);
        let mut constants: Vec<(usize, Tensor)> = self.constants.into_iter().collect();
        constants.sort_by_key(|(slot, _)| *slot);
        Ok(Plan {
            slots: self.dims.len(),
            input: 0,
            input_dims: self.dims[0].clone(),
            output_dims: self.dims[output].clone(),
            output,
            logits,
            constants,
            parameters: self.parameters,
            steps: self.steps,
        })
    }
}

/// burn has no rank-0 tensors: a scalar becomes one element in one dimension, which broadcasts alike.
fn at_least_one(shape: &[usize]) -> Vec<usize> {
    if shape.is_empty() { vec![1] } else { shape.to_vec() }
}
