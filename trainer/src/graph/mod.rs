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
use fleetloop_models::bundle::OutputKind;
use fleetloop_models::graph::output::Meaning;

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
    /// What the answer is: scores or probabilities. Where the graph does not say, scores until somebody
    /// does.
    pub kind: OutputKind,
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
        let wanted = outputs(&model);
        Self::load_for(model, inputs, &wanted, device)
    }

    /// The same for the first output of floats alone, which is what training needs.
    ///
    /// # Errors
    /// As [`Graph::load`].
    pub fn load_answer(model: Model, inputs: &[Fact], device: &Device) -> Result<Self, GraphError> {
        let wanted: Vec<String> = model.answer().map(|o| o.name.clone()).into_iter().collect();
        Self::load_for(model, inputs, &wanted, device)
    }

    fn load_for(
        model: Model,
        inputs: &[Fact],
        wanted: &[String],
        device: &Device,
    ) -> Result<Self, GraphError> {
        if wanted.is_empty() {
            return Err(GraphError::Shape("the graph has no output; export it again".into()));
        }
        let parameters = Parameters::of(&model, device);
        // What trains has to be writable: better said now than when it is trained.
        patch::writable(&model.bytes, &parameters.counts())?;
        let checked = check::check(&model, inputs, wanted, &parameters)?;
        let cost = Cost::of(&checked, &parameters);
        let kind = model.reading.as_ref().and_then(|reading| reading.meaning.kind());
        let kind = kind.unwrap_or(OutputKind::Logits);
        Ok(Self { model, parameters, cost, kind, device: device.clone() })
    }

    /// The names of the graph's outputs; there is at least one.
    pub fn outputs(&self) -> Vec<String> {
        outputs(&self.model)
    }

    /// The output that answers: the first that holds floats.
    pub fn answer(&self) -> String {
        self.model.answer().map(|output| output.name.clone()).unwrap_or_default()
    }

    /// The scores to take a classifier's loss from: what the softmax or sigmoid at its end is taken of,
    /// if nothing but shapes changes behind that; the answer itself otherwise.
    pub fn logits(&self) -> String {
        match self.model.reading.as_ref().map(|reading| &reading.meaning) {
            Some(Meaning::Probabilities { scores, direct: true, .. }) => scores.clone(),
            _ => self.answer(),
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
