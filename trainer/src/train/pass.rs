//! One batch through the graph: to learn from, or to be judged.

use burn::tensor::{Device, Gradients, Tensor as Flat};

use super::objective::Objective;
use super::{Recipe, TrainError, TrainingSet};
use crate::graph::{Context, Graph, Observation, Parameters, Plan, Sizes};
use crate::kernels::together;
use crate::ops::tensor;
use crate::random::Random;

/// The graph planned for the sizes of batch that a run needs, up to its loss.
pub struct Passes<'a> {
    objective: Objective<'a>,
    plans: Vec<(usize, Plan)>,
    shape: &'a [usize],
    device: Device,
}

/// What a batch to learn from came to.
pub struct Seen {
    /// Its loss.
    pub loss: f32,
    /// How many of its samples were right, where that is known.
    pub right: Option<usize>,
    /// The parameters that it was computed from, and how the loss changes with them.
    pub leaves: Vec<Flat<1>>,
    /// None when the loss is no finite number.
    pub gradients: Option<Gradients>,
    /// Statistics for [`Parameters::observe`].
    pub observed: Vec<Observation>,
}

impl<'a> Passes<'a> {
    /// Plans the graph for batches of these sizes.
    ///
    /// # Errors
    /// [`TrainError`] when the graph, the data and the loss do not fit together.
    pub fn new(
        graph: &Graph,
        set: &'a TrainingSet,
        recipe: &Recipe,
        batches: &[usize],
        device: &Device,
    ) -> Result<Self, TrainError> {
        let objective = Objective::new(graph, set, recipe);
        let mut plans: Vec<(usize, Plan)> = Vec::new();
        for batch in batches {
            if plans.iter().all(|(planned, _)| planned != batch) {
                plans.push((*batch, plan(graph, set, &objective, *batch)?));
            }
        }
        Ok(Self { objective, plans, shape: set.shape(), device: device.clone() })
    }

    fn plan(&self, batch: usize) -> &Plan {
        let planned = self.plans.iter().find(|(planned, _)| *planned == batch);
        planned.map_or_else(|| unreachable!("every batch of a run is planned"), |(_, plan)| plan)
    }

    fn shape(&self, batch: usize) -> Vec<usize> {
        [&[batch], self.shape].concat()
    }

    /// Forward and backward. `values` are the inputs of `samples`, possibly changed.
    pub fn learn(
        &self,
        parameters: &Parameters,
        samples: &[usize],
        values: Vec<f32>,
        random: Random,
    ) -> Seen {
        together(|| self.there_and_back(parameters, samples, values, random))
    }

    fn there_and_back(
        &self,
        parameters: &Parameters,
        samples: &[usize],
        values: Vec<f32>,
        random: Random,
    ) -> Seen {
        let device = self.device.clone().autodiff();
        let x = tensor::from_host(values, &self.shape(samples.len()), &device);
        let leaves = parameters.leaves();
        let mut context = Context::train(&device, random);
        let plan = self.plan(samples.len());
        let output = plan.run(&leaves, vec![x.clone()], &mut context).remove(0);
        let loss = self.objective.loss(output.clone(), samples, x, &device);
        let value = number(&loss);
        let right = self.objective.right(&tensor::to_host(output), samples);
        let gradients = value.is_finite().then(|| loss.backward());
        Seen { loss: value, right, leaves, gradients, observed: context.observed }
    }

    /// The mean loss of samples as they are, in use: nothing is dropped, running statistics
    /// normalise.
    pub fn judge(&self, parameters: &[Flat<1>], samples: &[usize], values: Vec<f32>) -> f32 {
        let x = tensor::from_host(values, &self.shape(samples.len()), &self.device);
        let mut context = Context::infer(&self.device);
        let plan = self.plan(samples.len());
        let output = plan.run(parameters, vec![x.clone()], &mut context).remove(0);
        number(&self.objective.loss(output, samples, x, &self.device))
    }
}

/// The plan for batches of that size, from the input to the value the loss is taken from.
fn plan(
    graph: &Graph,
    set: &TrainingSet,
    objective: &Objective<'_>,
    batch: usize,
) -> Result<Plan, TrainError> {
    let failed = |source| TrainError::Plan { batch, source };
    let inputs =
        Sizes::samples(&graph.model, batch, set.shape()).inputs(&graph.model).map_err(failed)?;
    let wanted = inputs.first().and_then(|x| x.dims.get(1..)).unwrap_or_default();
    if inputs.len() != 1 || wanted != set.shape() {
        return Err(TrainError::Input { samples: set.shape().to_vec(), graph: wanted.to_vec() });
    }
    let plan = graph.plan(&inputs, &[objective.value().to_owned()]).map_err(failed)?;
    objective.check(&plan.outputs[0].fact, batch)?;
    Ok(plan)
}

fn number(loss: &Flat<1>) -> f32 {
    loss.clone().into_data().iter::<f32>().next().unwrap_or(f32::NAN)
}
