//! One retraining on arrays: a base and two sets of arrays in; an ONNX file, what it makes of the
//! second, and the run record out.
//!
//! The road is that of pictures from the training set to the written file. There is no preprocessing
//! and no bundle: bundles hold classifiers of pictures.

use std::time::Instant;

use fleetloop_models::bundle::OutputKind;
use fleetloop_models::graph::Graph;
use fleetloop_models::session::{Network, SessionError, Threads};
use fleetloop_protocol::Digest;

use super::lesson::{Lesson, Made, Trained};
use super::{Base, Event, JobError, Tools};
use crate::arrays::Arrays;
use crate::arrays::judge::{self, Judged, Judgement, judge};
use crate::evaluate::EvaluateError;
use crate::onnx::Model;
use crate::onnx::read::DeclaredDim;
use crate::record::{JudgedBy, RunRecord};
use crate::starter::Head;
use crate::train::{Augment, Loss, Recipe, Targets, TrainingSet};

/// What is to be trained.
#[derive(Debug)]
pub struct ArraysOrder {
    /// What it begins with; a bundle is not.
    pub base: Base,
    /// What is learned from.
    pub learning: Arrays,
    /// What the base and the new file are judged by.
    pub judging: Arrays,
    /// How the latter was chosen.
    pub judged_by: JudgedBy,
    /// How to train; its loss says what the arrays mean.
    pub recipe: Recipe,
    /// What somebody says the base's output is.
    pub output: Option<OutputKind>,
    /// The seed of everything random.
    pub seed: u64,
}

/// What it came to.
#[derive(Debug)]
pub struct ArraysProduct {
    /// The new ONNX file.
    pub model: Vec<u8>,
    /// How it was made.
    pub record: RunRecord,
    /// What the base makes of the samples that were held out; none for a starter.
    pub before: Option<Judgement>,
    /// What the new file makes of them.
    pub after: Judgement,
}

/// Does an order.
///
/// # Errors
/// [`JobError`]: what is wrong with the order, or that it was cancelled.
pub fn run_arrays(
    order: ArraysOrder,
    tools: &Tools<'_>,
    watch: &mut dyn FnMut(Event),
) -> Result<ArraysProduct, JobError> {
    let begun = Instant::now();
    watch(Event::Prepare);
    order.check()?;
    let (file, base) = order.base.file(order.head(), order.seed)?;
    let model = Model::parse(file.clone())?;
    let classes = classes(&model, &order.learning);
    let ArraysOrder { learning, judging, judged_by, recipe, output: said, seed, .. } = order;
    let (learned, wanted) =
        (learning.targets(recipe.loss, classes)?, judging.targets(recipe.loss, classes)?);
    alike(&learned, &wanted)?;
    let output = judged_kind(&file, &judging, recipe.loss, said, tools)?;
    let judged = |file: &[u8], watch: &mut dyn FnMut(Event)| {
        let how = (recipe.loss, &wanted, output);
        judge_file(file, &judging, how, tools, watch).map(|j| j.judgement)
    };
    let before = if base.starter.is_some() { None } else { Some(judged(&file, watch)?) };
    let (dataset, learned_from) = (learning.digest, learning.by_group());
    let places = learning.places().to_vec();
    let black = learning.black();
    let (shape, inputs, groups) = learning.into_parts();
    let set = TrainingSet::new(shape, inputs, learned, groups)?.in_whole_groups();
    let set = match black {
        Some(black) => set.of_pictures(black),
        None => set,
    };
    let prepared = Instant::now();

    let lesson = Lesson {
        left_out: &[],
        base: &base,
        dataset,
        judged_by: Some(&judged_by),
        set: &set,
        recipe: &recipe,
        output,
        seed,
    };
    let Trained { model, outcome, patches } =
        lesson.learn(model, tools, watch).map_err(|error| error.in_file(&places))?;
    let written = Instant::now();

    let after = judged(&model, watch)?;
    let made = Made {
        learned_from,
        model: Digest::of(&model),
        bundle: None,
        outcome,
        patches,
        moments: [begun, prepared, written],
    };
    Ok(ArraysProduct { record: lesson.record(made, tools), model, before, after })
}

impl ArraysOrder {
    /// What can be said before there is a model.
    fn check(&self) -> Result<(), JobError> {
        if self.recipe.augment != Augment::default() && self.learning.black().is_none() {
            return Err(JobError::Augment(self.learning.shape().to_vec()));
        }
        if self.learning.shape() != self.judging.shape() {
            return Err(JobError::Mismatch(format!(
                "inputs to learn from have shape {:?}, those to judge by {:?}",
                self.learning.shape(),
                self.judging.shape()
            )));
        }
        Ok(())
    }

    /// What a starter has to end in for the loss.
    fn head(&self) -> Head {
        let both = [&self.learning, &self.judging];
        let most = |of: fn(&Arrays) -> Option<usize>| both.iter().filter_map(|a| of(a)).max();
        match self.recipe.loss {
            Loss::Reconstruction => Head::Reconstruction,
            Loss::CrossEntropy => Head::Classes(most(Arrays::classes).unwrap_or_default()),
            _ => Head::Values(most(Arrays::outputs).unwrap_or_default()),
        }
    }
}

/// Classes that a model tells apart: as many as its output declares, or else as the arrays have.
pub fn classes(model: &Model, arrays: &Arrays) -> usize {
    let dims = model.answer().and_then(|output| output.dims.as_deref());
    match dims {
        Some([_, DeclaredDim::Fixed(classes), rest @ ..])
            if rest.iter().all(|dim| *dim == DeclaredDim::Fixed(1)) =>
        {
            *classes
        }
        _ => arrays.classes().unwrap_or_default(),
    }
}

/// Values that a model's first output has for a sample, where it declares that.
pub fn outputs(model: &Model) -> Option<usize> {
    let [_, rest @ ..] = model.outputs.first()?.dims.as_deref()? else { return None };
    let size = |dim: &DeclaredDim| match dim {
        DeclaredDim::Fixed(size) => Some(*size),
        DeclaredDim::Open(_) => None,
    };
    rest.iter().map(size).product()
}

/// Checks that a sample has the shape that a model declares for its input, where it declares one.
fn takes(model: &Model, arrays: &Arrays) -> Result<(), JobError> {
    let Some(input) = model.inputs.first() else { return Ok(()) };
    let Some(dims) = input.dims.as_deref() else { return Ok(()) };
    let fits = |(dim, size): (&DeclaredDim, &usize)| match dim {
        DeclaredDim::Fixed(fixed) => fixed == size,
        DeclaredDim::Open(_) => true,
    };
    let sample = arrays.shape();
    let same_rank = dims.len() == sample.len() + 1;
    if same_rank && dims.iter().skip(1).zip(sample).all(fits) {
        return Ok(());
    }
    Err(JobError::Shape { input: input.to_string(), sample: sample.to_vec() })
}

/// Checks that a sample to judge by has as many numbers to reach as one to learn from.
fn alike(learned: &Targets, wanted: &Targets) -> Result<(), JobError> {
    let per_sample = |targets: &Targets| match targets {
        Targets::Values { shape, .. } => Some(shape.iter().product::<usize>()),
        Targets::Classes { .. } | Targets::Input => None,
    };
    match (per_sample(learned), per_sample(wanted)) {
        (Some(learned), Some(wanted)) if learned != wanted => Err(JobError::Mismatch(format!(
            "samples to learn from have {learned} numbers to reach, those to judge by {wanted}"
        ))),
        _ => Ok(()),
    }
}

/// What a file's output is, as far as the loss asks: scores where it does not.
///
/// # Errors
/// [`JobError`] when the file does not run, or when nobody knows.
pub fn judged_kind(
    file: &[u8],
    arrays: &Arrays,
    loss: Loss,
    said: Option<OutputKind>,
    tools: &Tools<'_>,
) -> Result<OutputKind, JobError> {
    if !matches!(loss, Loss::CrossEntropy | Loss::Binary) {
        return Ok(OutputKind::Logits);
    }
    let (graph, mut network) = open(file, arrays, tools)?;
    let rows = judge::rows(&mut network, arrays)?;
    Ok(graph.reading().settle(said, &rows).map_err(EvaluateError::Meaning)?)
}

/// A file that takes the samples of arrays, ready to run.
fn open(file: &[u8], arrays: &Arrays, tools: &Tools<'_>) -> Result<(Graph, Network), JobError> {
    takes(&Model::parse(file.to_vec())?, arrays)?;
    let graph = Graph::check(file.to_vec()).map_err(SessionError::Graph)?;
    let network =
        Network::open(tools.runtime, &graph, "to be judged".into(), Threads(tools.threads))?;
    Ok((graph, network))
}

/// What a file makes of arrays; the loss, its targets and what the file's output is say how it is
/// judged.
///
/// # Errors
/// [`JobError`] when it does not run, its output does not suit the loss, or on cancelling.
pub fn judge_file(
    file: &[u8],
    arrays: &Arrays,
    (loss, targets, output): (Loss, &Targets, OutputKind),
    tools: &Tools<'_>,
    watch: &mut dyn FnMut(Event),
) -> Result<Judged, JobError> {
    let (_, mut network) = open(file, arrays, tools)?;
    Ok(judge(output, &mut network, arrays, (loss, targets), |done, total| {
        watch(Event::Evaluate(done, total));
        !tools.cancel.load(std::sync::atomic::Ordering::Relaxed)
    })?)
}
