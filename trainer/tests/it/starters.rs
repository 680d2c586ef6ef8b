//! Every starter graph: what burn makes of it is what ONNX Runtime makes of it, before and after it
//! has learned, and it learns.

use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use fleetloop_models::session::{Network, Threads};
use trainer::graph::{Context, Graph, Sizes};
use trainer::onnx::{Model, patch};
use trainer::ops::tensor;
use trainer::random::Random;
use trainer::starter::{Head, Kind, starter};
use trainer::train::{Groups, Loss, Recipe, Targets, Task, TrainingSet, train};

use super::data;

const SAMPLES: usize = 40;
const BATCH: usize = 8;
/// Two epochs are ten steps.
const EPOCHS: u32 = 2;
const TOLERANCE: f32 = 1e-4;

/// Noise around one of two levels.
fn inputs(per_sample: usize) -> Vec<f32> {
    let mut random = Random::new(5);
    let level = |sample: usize| if sample.is_multiple_of(2) { -0.5 } else { 0.5 };
    let values = (0..SAMPLES * per_sample).map(|at| level(at / per_sample) + random.normal());
    values.collect()
}

fn targets(head: Head) -> (Loss, Targets) {
    match head {
        Head::Classes(count) => {
            let labels = (0..SAMPLES).map(|sample| sample % 2).collect();
            (Loss::CrossEntropy, Targets::Classes { labels, count })
        }
        Head::Values(n) => {
            let level = |at: usize| if (at / n).is_multiple_of(2) { 1.0 } else { -1.0 };
            let values = (0..SAMPLES * n).map(level).collect();
            (Loss::Mse, Targets::Values { shape: vec![n], values })
        }
        Head::Reconstruction => (Loss::Reconstruction, Targets::Input),
    }
}

fn load(bytes: &[u8]) -> Graph {
    let model = Model::parse(bytes.to_vec()).unwrap();
    let inputs = Sizes::batch(BATCH).inputs(&model).unwrap();
    Graph::load(model, &inputs, &Device::flex()).unwrap()
}

fn largest_difference(bytes: &[u8], shape: &[usize], x: &[f32]) -> f32 {
    let graph = load(bytes);
    let device = Device::flex();
    let inputs = Sizes::batch(BATCH).inputs(&graph.model).unwrap();
    let plan = graph.plan(&inputs, &graph.outputs()).unwrap();
    let input = tensor::from_host(x.to_vec(), shape, &device);
    let ours =
        plan.run(&graph.parameters.fixed(), vec![input], &mut Context::infer(&device)).remove(0);
    let checked = fleetloop_models::graph::Graph::check(bytes.to_vec()).unwrap();
    let mut network =
        Network::open(&data::runtime(), &checked, "starter".into(), Threads(1)).unwrap();
    let samples = x.chunks(x.len() / BATCH).map(|sample| network.run(&shape[1..], sample).unwrap());
    let (dims, theirs): (Vec<_>, Vec<_>) = samples.unzip();
    assert_eq!(tensor::dims(&ours)[1..], dims[0]);
    let theirs = theirs.concat();
    tensor::to_host(ours).iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn holds(kind: Kind, input: &[usize], head: Head) {
    let old = starter(kind, input, head, 3).unwrap();
    let x = inputs(input.iter().product());
    let shape = [&[BATCH], input].concat();
    let batch = &x[..shape.iter().product()];
    let before = largest_difference(&old, &shape, batch);

    let (loss, targets) = targets(head);
    let set =
        TrainingSet::new(input.to_vec(), x.clone(), targets, Groups::one("g", SAMPLES)).unwrap();
    let recipe =
        Recipe { epochs: EPOCHS, batch_size: BATCH, warmup_epochs: 0.0, loss, ..Recipe::starter() };
    let mut graph = load(&old);
    let cancel = AtomicBool::new(false);
    let task = Task {
        set: &set,
        recipe: &recipe,
        seed: 1,
        device: &Device::flex(),
        cancel: &cancel,
        checkpoints: None,
    };
    let curve = train(&mut graph, &task, &mut |_| {}).unwrap().curve;
    let new = patch(&old, &graph.parameters.stored()).unwrap().bytes;
    let after = largest_difference(&new, &shape, batch);

    let (first, last) = (curve[0].loss, curve[EPOCHS as usize - 1].loss);
    println!("{kind} {input:?}: off by {before:.1e}, then {after:.1e}; loss {first} to {last}");
    assert!(before <= TOLERANCE, "{kind} {input:?}: {before}");
    assert!(after <= TOLERANCE, "{kind} {input:?} after training: {after}");
    assert!(last < first, "{kind} {input:?}: the loss goes from {first} to {last}");
}

#[test]
fn pictures_run_alike_and_learn() {
    holds(Kind::PictureCnn, &[1, 12, 15], Head::Classes(2));
    holds(Kind::PictureMobile, &[1, 32, 33], Head::Classes(2));
    holds(Kind::PictureMobile, &[3, 64, 70], Head::Values(2));
    holds(Kind::Autoencoder, &[1, 17, 22], Head::Reconstruction);
}

#[test]
fn windows_of_signals_run_alike_and_learn() {
    holds(Kind::SignalCnn, &[2, 64], Head::Classes(3));
    holds(Kind::SignalCnn, &[1, 1030], Head::Values(1));
    holds(Kind::Autoencoder, &[1, 64], Head::Reconstruction);
    holds(Kind::Autoencoder, &[3, 151], Head::Reconstruction);
}

#[test]
fn rows_of_tables_run_alike_and_learn() {
    holds(Kind::TableMlp, &[5], Head::Classes(2));
    holds(Kind::TableMlp, &[1], Head::Values(3));
    holds(Kind::Autoencoder, &[7], Head::Reconstruction);
}
