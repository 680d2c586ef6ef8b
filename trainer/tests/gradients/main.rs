//! Gradients against PyTorch's in 64 bits, for networks that PyTorch exported.
//!
//! The fixtures in `data/` are made again by `make_fixtures.py`. Normalisation uses the batch's
//! statistics, as in training. For every parameter `‖g − g₆₄‖ ≤ 1e-5 · max(‖g₆₄‖, 1e-3 · ‖all‖)`,
//! or at most twice the error that PyTorch itself makes in 32 bits.

use std::path::Path;

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Device, Tensor as Flat};
use serde::Deserialize;
use trainer::graph::{Context, Fact, Graph};
use trainer::onnx::Model;
use trainer::ops::tensor;
use trainer::random::Random;

const RELATIVE: f64 = 1e-5;
const LEAST_SHARE: f64 = 1e-3;
const OF_PYTORCH: f64 = 2.0;

#[derive(Deserialize)]
struct Fixture {
    input: Vec<usize>,
    output: Vec<usize>,
    parameters: Vec<Parameter>,
}

#[derive(Deserialize)]
struct Parameter {
    name: String,
    shape: Vec<usize>,
    error_of_32_bits: f64,
}

fn words<const N: usize, T>(path: &Path, read: fn([u8; N]) -> T) -> Vec<T> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks::<N>().0.iter().map(|word| read(*word)).collect()
}

/// The gradient of every parameter, by name.
fn gradients(folder: &Path, fixture: &Fixture) -> std::collections::HashMap<String, Vec<f32>> {
    let model = Model::parse(std::fs::read(folder.join("model.onnx")).unwrap()).unwrap();
    let inputs = [Fact::float(fixture.input.clone())];
    let graph = Graph::load(model, &inputs, &Device::flex()).unwrap_or_else(|e| panic!("{e}"));
    let plan = graph.plan(&inputs, &graph.outputs()).unwrap();
    let device = Device::flex().autodiff();
    let floats = |name: &str| words(&folder.join(name), f32::from_le_bytes);
    let x = tensor::from_host(floats("input.f32"), &fixture.input, &device);
    let weights = tensor::from_host(floats("loss.f32"), &fixture.output, &device);
    let leaves = graph.parameters.leaves();
    let mut context = Context::train(&device, Random::new(1));
    let output = plan.run(&leaves, vec![x], &mut context).remove(0);
    let loss = Dispatch::float_sum(Dispatch::float_mul(output, weights));
    let mut found = Flat::<1>::from_dispatch(tensor::reshape(loss, &[1])).backward();
    let of = |leaf: &Flat<1>, found: &mut _| leaf.grad_remove(found).map(|g| g.into_data());
    let parameters = graph.parameters.list.iter().zip(&leaves);
    parameters
        .filter_map(|(p, leaf)| {
            Some((p.name.clone(), of(leaf, &mut found)?.iter::<f32>().collect()))
        })
        .collect()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

fn holds(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gradients/data").join(name);
    let fixture = std::fs::read(folder.join("fixture.json")).unwrap();
    let fixture: Fixture = serde_json::from_slice(&fixture).unwrap();
    let wanted = words(&folder.join("gradients.f64"), f64::from_le_bytes);
    let ours = gradients(&folder, &fixture);
    let all = norm(wanted.iter().copied());
    let (mut rest, mut worst, mut wrong) = (wanted.as_slice(), 0f64, Vec::new());
    for parameter in &fixture.parameters {
        let (want, next) = rest.split_at(parameter.shape.iter().product());
        rest = next;
        let Some(got) = ours.get(&parameter.name) else {
            wrong.push(format!("{} has no gradient", parameter.name));
            continue;
        };
        let off = norm(got.iter().zip(want).map(|(g, w)| f64::from(*g) - w));
        let scale = norm(want.iter().copied()).max(LEAST_SHARE * all);
        let allowed = (RELATIVE * scale).max(OF_PYTORCH * parameter.error_of_32_bits);
        worst = worst.max(off / scale);
        if got.len() != want.len() || off > allowed {
            wrong.push(format!("{} is off by {:.1e} of its norm", parameter.name, off / scale));
        }
    }
    println!("{name}: {} parameters, off by at most {worst:.1e}", fixture.parameters.len());
    assert!(rest.is_empty() && wrong.is_empty(), "{name}: {}", wrong.join("; "));
}

#[test]
fn resnet18() {
    holds("resnet18");
}

#[test]
fn mobilenet_v2() {
    holds("mobilenet_v2");
}

#[test]
fn a_tiny_vision_transformer() {
    holds("tiny_vit");
}

#[test]
fn a_bidirectional_lstm_of_two_layers() {
    holds("lstm");
}

#[test]
fn a_dilated_network_in_one_dimension() {
    holds("dilated_cnn_1d");
}

#[test]
fn a_u_net_with_transposed_convolution_and_resize() {
    holds("unet");
}

#[test]
fn a_yolo_like_neck_with_concat_and_split() {
    holds("yolo_neck");
}
