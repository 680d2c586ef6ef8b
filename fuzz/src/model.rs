//! What is done with the bytes of an ONNX file that nobody vouches for: read, loaded, and, where that
//! is cheap, a pass forth and one back, as when it trains.
//!
//! The fuzz target and the test that runs every file of `seeds/model/` share this file.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor as Flat};
use trainer::graph::{Context, Fact, Graph, Sizes};
use trainer::onnx::read::DeclaredDim;
use trainer::onnx::{Kind, Model, patch};
use trainer::ops::tensor;
use trainer::random::Random;

/// A pass that costs more says nothing about the reader: at most this many multiply-adds and bytes.
const CHEAP: (u64, u64) = (1 << 20, 1 << 20);

/// The most elements of all inputs together.
const MAX_INPUT: usize = 1 << 14;

/// How far a file got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// It is no model.
    Refused,
    /// It was read.
    Parsed,
    /// All its nodes can be done.
    Loaded,
    /// It ran.
    Ran,
}

/// Does with a file what a retraining does.
pub fn attempt(bytes: &[u8]) -> Reached {
    let Ok(model) = Model::parse(bytes.to_vec()) else { return Reached::Refused };
    let Ok(inputs) = sizes(&model).inputs(&model) else { return Reached::Parsed };
    let elements = |fact: &Fact| fact.dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let total = inputs.iter().try_fold(0usize, |n, fact| n.checked_add(elements(fact)?));
    if total.is_none_or(|total| total > MAX_INPUT) {
        return Reached::Parsed;
    }
    let device = Device::flex();
    let Ok(graph) = Graph::load(model, &inputs, &device) else { return Reached::Parsed };
    if graph.cost.multiply_adds > CHEAP.0 || graph.cost.value_bytes > CHEAP.1 {
        return Reached::Loaded;
    }
    let Ok(plan) = graph.plan(&inputs, &graph.outputs()) else { return Reached::Loaded };
    if graph.plan(&inputs, &[graph.logits()]).is_err() {
        return Reached::Loaded;
    }
    let device = device.autodiff();
    let leaves = graph.parameters.leaves();
    let values = inputs.iter().map(|fact| value(fact, &device)).collect();
    let mut context = Context::train(&device, Random::new(1));
    let outputs = plan.run(&leaves, values, &mut context).into_iter();
    let floats = outputs.filter(|output| tensor::kind(output) == Kind::Float).map(|output| {
        let count = tensor::dims(&output).iter().product();
        Flat::<1>::from_dispatch(tensor::reshape(output, &[count])).sum()
    });
    if let Some(loss) = floats.reduce(|a, b| a + b).filter(Flat::is_tracked) {
        loss.backward();
    }
    patch(&graph.model.bytes, &graph.parameters.stored()).expect("what loads can be written");
    Reached::Ran
}

/// One sample; two of everything else that the file leaves open.
fn sizes(model: &Model) -> Sizes {
    let mut named = BTreeMap::new();
    for input in &model.inputs {
        for (axis, dim) in input.dims.iter().flatten().enumerate() {
            if let DeclaredDim::Open(name) = dim {
                named.insert(name.clone(), 2);
                named.insert(format!("{}.{axis}", input.name), 2);
            }
        }
    }
    Sizes { batch: 1, named }
}

fn value(fact: &Fact, device: &Device) -> trainer::graph::Tensor {
    // A single number has one dimension here.
    let shape = if fact.dims.is_empty() { vec![1] } else { fact.dims.clone() };
    let count = fact.count();
    match fact.kind() {
        Kind::Float => tensor::from_host(vec![0.5; count], &shape, device),
        Kind::Int => tensor::ints_from_host(vec![1; count], &shape, device),
        Kind::Bool => tensor::bools_from_host(vec![true; count], &shape, device),
    }
}
