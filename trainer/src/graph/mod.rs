//! The executor: an ONNX graph compiled once for its shapes and run many times on burn's rank-free
//! tensors.
//!
//! Load → check → plan → run. Everything a file can be refused for is found before the first step:
//! [`Graph::load`] names every node that cannot be done. A [`Plan`] is made for concrete input
//! shapes: slots instead of names, everything that follows from shapes and constants computed once,
//! and each step knows which values are used for the last time. Another batch size is another plan
//! over the same parameters.
//!
//! | module | what it does |
//! |---|---|
//! | `sizes` | the sizes that a file leaves open |
//! | `fact` | what is known of a value before anything runs |
//! | `limits` | how large values may be |
//! | `levels` | weights that a file keeps as integers |
//! | `role` | what a weight is for, and so whether it trains |
//! | `params` | the values that training changes |
//! | `check` | finds the operator for every node, or the reason why not; folds what is constant |
//! | `cost` | multiply-adds and memory of a pass |
//! | `plan` | slots, steps, last uses |
//! | `run` | one forward pass |

mod check;
mod cost;
mod error;
mod fact;
mod levels;
pub(crate) mod limits;
mod params;
mod plan;
mod role;
mod run;
mod sizes;

use burn::tensor::Device;

pub use cost::Cost;
pub use error::{GraphError, Refusal};
pub use fact::{Constant, Fact};
pub(crate) use params::host;
pub use params::{Parameter, Parameters};
pub(crate) use plan::at_least_one;
pub use plan::{Output, Plan, Step};
pub use role::Role;
pub use run::{Context, Mode, Observation};
pub use sizes::Sizes;

use crate::onnx::{Model, patch};

/// A tensor of any rank and kind on any device of burn's.
pub type Tensor = burn::backend::DispatchTensor;

/// A model loaded for training.
pub struct Graph {
    /// The file.
    pub model: Model,
    /// What training changes.
    pub parameters: Parameters,
    /// What a pass over the inputs that it was loaded for costs, all outputs computed.
    pub cost: Cost,
    device: Device,
}

impl Graph {
    /// Reads a model's parameters onto a device (without autodiff; a training pass adds it) and
    /// checks that everything in it can be done for these inputs: their types and shapes, and their
    /// values where a graph takes a shape or an axis from outside.
    ///
    /// # Errors
    /// [`GraphError`]: every node that cannot be done, or inputs and outputs that do not fit.
    pub fn load(model: Model, inputs: &[Fact], device: &Device) -> Result<Self, GraphError> {
        if model.outputs.is_empty() {
            return Err(GraphError::Shape("the graph has no output; export it again".into()));
        }
        let parameters = Parameters::of(&model, device);
        // What trains has to be writable: better said now than when it is trained.
        patch::writable(&model.bytes, &parameters.counts())?;
        let checked = check::check(&model, inputs, &outputs(&model), &parameters)?;
        let cost = Cost::of(&checked, &parameters);
        Ok(Self { model, parameters, cost, device: device.clone() })
    }

    /// The names of the graph's outputs; there is at least one.
    pub fn outputs(&self) -> Vec<String> {
        outputs(&self.model)
    }

    /// The value to take a classifier's loss from: what goes into a softmax at the very end of the
    /// first output, or that output itself.
    pub fn logits(&self) -> String {
        self.before_last(&["Softmax", "LogSoftmax"])
    }

    /// What goes into the node that computes the first output, when that is one of `operators`;
    /// that output itself otherwise.
    pub fn before_last(&self, operators: &[&str]) -> String {
        let output = &self.model.outputs[0].name;
        let last = self.model.proto.graph.node.iter().find(|n| n.output.contains(output));
        match last {
            Some(node) if operators.contains(&node.op_type.as_str()) => node.input[0].clone(),
            _ => output.clone(),
        }
    }

    /// Plans the computation of the values `wanted` for these inputs.
    ///
    /// # Errors
    /// As [`Graph::load`].
    pub fn plan(&self, inputs: &[Fact], wanted: &[String]) -> Result<Plan, GraphError> {
        let checked = check::check(&self.model, inputs, wanted, &self.parameters)?;
        Ok(plan::plan(&self.model, checked, wanted, &self.parameters, &self.device))
    }
}

fn outputs(model: &Model) -> Vec<String> {
    model.outputs.iter().map(|output| output.name.clone()).collect()
}
