//! burn against ONNX Runtime, before and after training.

use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use trainer::graph::{Context, Fact, Graph, Sizes};
use trainer::onnx::write::{float, int, ints};
use trainer::onnx::{GraphWriter, Model, Patched, patch};
use trainer::ops::tensor;
use trainer::random::Random;
use trainer::starter::{Head, Kind, starter};
use trainer::train::pass::Passes;
use trainer::train::{
    Groups, Outcome, Recipe, Targets, Task, TrainError, TrainingSet, train, validation,
};

use super::data::{SIDE, session};

const BATCH: usize = 5;

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.normal()).collect()
}

/// Every operator of the table but Constant, Sub, Div and LogSoftmax on the way to two scores.
pub fn varied() -> Vec<u8> {
    let weights = |graph: GraphWriter, name: &str, shape: &[usize], seed: u64| {
        let values: Vec<f32> =
            noise(shape.iter().product(), seed).iter().map(|v| v * 0.3).collect();
        graph.floats(name, shape, &values)
    };
    let mut graph = GraphWriter::new("varied")
        .input("x", &[None, Some(1), Some(SIDE), Some(SIDE)])
        .output("y", &[None, Some(2)]);
    for (name, shape, seed) in [
        ("w1", &[4, 1, 3, 3][..], 1),
        ("b1", &[4], 2),
        ("w2", &[4, 2, 3, 2], 3),
        ("w3", &[6, 8, 3], 4),
        ("w4", &[6, 7], 5),
        ("w5", &[2, 7], 6),
        ("b5", &[2], 7),
        ("s", &[4, 1, 1], 8),
        ("a", &[4, 1, 1], 9),
    ] {
        graph = weights(graph, name, shape, seed);
    }
    graph
        .floats("scale", &[4], &[1.0, 0.5, 2.0, 1.5])
        .floats("mean", &[4], &[0.1, -0.2, 0.0, 0.3])
        .floats("variance", &[4], &[1.0, 0.5, 2.0, 0.7])
        .floats("low", &[], &[-0.8])
        .floats("high", &[], &[0.9])
        .floats("ratio", &[], &[0.5])
        .ints("rows", &[0, 8, -1])
        .node("Conv", &["x", "w1", "b1"], &["c1"], vec![ints("pads", &[1, 1, 1, 1])])
        .node("BatchNormalization", &["c1", "scale", "b1", "mean", "variance"], &["n1"], vec![])
        .node("HardSwish", &["n1"], &["h1"], vec![])
        .node(
            "MaxPool",
            &["h1"],
            &["p1"],
            vec![
                ints("kernel_shape", &[3, 2]),
                ints("strides", &[2, 2]),
                ints("pads", &[1, 0, 1, 0]),
            ],
        )
        .node(
            "Conv",
            &["p1", "w2"],
            &["c2"],
            vec![int("group", 2), ints("pads", &[2, 0, 0, 1]), ints("dilations", &[1, 1])],
        )
        .node("Mul", &["c2", "s"], &["m2"], vec![])
        .node("Add", &["m2", "a"], &["a2"], vec![])
        .node("Sigmoid", &["a2"], &["g2"], vec![])
        .node("HardSigmoid", &["a2"], &["hs2"], vec![float("alpha", 0.3)])
        .node("Concat", &["g2", "hs2"], &["k2"], vec![int("axis", 1)])
        .node(
            "AveragePool",
            &["k2"],
            &["p2"],
            vec![
                ints("kernel_shape", &[2, 2]),
                ints("strides", &[1, 2]),
                ints("pads", &[0, 1, 0, 1]),
            ],
        )
        .node("Reshape", &["p2", "rows"], &["r2"], vec![])
        .node("Conv", &["r2", "w3"], &["c3"], vec![ints("dilations", &[2])])
        .node("Tanh", &["c3"], &["t3"], vec![])
        .node("Clip", &["t3", "low", "high"], &["l3"], vec![])
        .node("Transpose", &["l3"], &["q3"], vec![ints("perm", &[0, 2, 1])])
        .node("MatMul", &["q3", "w4"], &["m4"], vec![])
        .node("Softmax", &["m4"], &["s4"], vec![int("axis", -1)])
        .node("Dropout", &["s4", "ratio"], &["d4"], vec![])
        .node("Identity", &["d4"], &["i4"], vec![])
        .node("ReduceMean", &["i4"], &["f4"], vec![ints("axes", &[1]), int("keepdims", 0)])
        .node("Gemm", &["f4", "w5", "b5"], &["y"], vec![int("transB", 1), float("alpha", 3.0)])
        .finish()
        .unwrap()
}

fn load(bytes: &[u8]) -> Graph {
    let model = Model::parse(bytes.to_vec()).unwrap();
    let inputs = Sizes::batch(BATCH).inputs(&model).unwrap();
    Graph::load(model, &inputs, &Device::flex()).unwrap()
}

pub fn largest_difference(bytes: &[u8], input: &str) -> f32 {
    let device = Device::flex();
    let x = noise(BATCH * SIDE * SIDE, 77);
    let graph = load(bytes);
    let shape = vec![BATCH, 1, SIDE, SIDE];
    let plan = graph.plan(&[Fact::float(shape.clone())], &graph.outputs()).unwrap();
    let picture = tensor::from_host(x.clone(), &shape, &device);
    let leaves = graph.parameters.fixed();
    let ours = plan.run(&leaves, vec![picture], &mut Context::infer(&device)).remove(0);
    let ours = tensor::to_host(ours);
    let mut session = session(bytes, input);
    let theirs: Vec<f32> =
        x.chunks(SIDE * SIDE).flat_map(|picture| session.run(picture).unwrap()).collect();
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Pictures of two classes by turns.
fn pictures(values: Vec<f32>) -> TrainingSet {
    let count = values.len() / (SIDE * SIDE);
    let targets = Targets::Classes { labels: (0..count).map(|n| n % 2).collect(), count: 2 };
    let set = TrainingSet::new(vec![1, SIDE, SIDE], values, targets, Groups::one("g", count));
    set.unwrap().of_pictures(vec![0.0])
}

fn learn(
    graph: &mut Graph,
    set: &TrainingSet,
    recipe: &Recipe,
    seed: u64,
) -> Result<Outcome, TrainError> {
    let (device, cancel) = (Device::flex(), AtomicBool::new(false));
    let task = Task { set, recipe, seed, device: &device, cancel: &cancel, checkpoints: None };
    train(graph, &task, &mut |_| {})
}

fn set() -> TrainingSet {
    let mut values = noise(40 * SIDE * SIDE, 5);
    for (place, value) in values.iter_mut().enumerate() {
        if place / (SIDE * SIDE) % 2 == 1 {
            *value += 0.5;
        }
    }
    pictures(values)
}

const SHORT: &str = "epochs = 5\nbatch_size = 8\nwarmup_epochs = 0";

/// The file written after training by a recipe, and what the training came to.
fn learned(bytes: &[u8], recipe: &str, seed: u64) -> (Patched, Outcome) {
    let mut graph = load(bytes);
    let recipe = Recipe::parse(recipe, &Recipe::starter()).unwrap();
    let outcome = learn(&mut graph, &set(), &recipe, seed).unwrap();
    (patch(bytes, &graph.parameters.stored()).unwrap(), outcome)
}

pub fn trained(bytes: &[u8], seed: u64) -> (Vec<u8>, Vec<std::ops::Range<usize>>, f32, f32) {
    let (patched, outcome) = learned(bytes, SHORT, seed);
    let curve = outcome.curve;
    let ranges = patched
        .patches
        .iter()
        .map(|p| p.offset_bytes as usize..(p.offset_bytes + p.length_bytes) as usize)
        .collect();
    (patched.bytes, ranges, curve[0].loss, curve[4].loss)
}

#[test]
fn the_forward_pass_equals_onnx_runtime_before_and_after_training() {
    for (bytes, input) in [
        (varied(), "x"),
        (starter(Kind::PictureCnn, &[1, SIDE, SIDE], Head::Classes(2), 3).unwrap(), "picture"),
    ] {
        let difference = largest_difference(&bytes, input);
        assert!(difference < 1e-4, "{input}: {difference}");
        let (new, _, first, last) = trained(&bytes, 1);
        assert!(last < first, "{input}: the loss goes from {first} to {last}");
        let difference = largest_difference(&new, input);
        assert!(difference < 1e-4, "{input} after training: {difference}");
    }
}

#[test]
fn training_changes_the_listed_bytes_and_no_others() {
    let old = starter(Kind::PictureCnn, &[1, SIDE, SIDE], Head::Classes(2), 3).unwrap();
    let (new, ranges, ..) = trained(&old, 1);
    assert_eq!(old.len(), new.len());
    assert_eq!(ranges.len(), 14);
    assert!(ranges.iter().all(|r| old[r.clone()] != new[r.clone()]), "every parameter moved");
    for (at, (a, b)) in old.iter().zip(&new).enumerate() {
        assert!(a == b || ranges.iter().any(|r| r.contains(&at)), "byte {at} is outside the list");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let old = starter(Kind::PictureCnn, &[1, SIDE, SIDE], Head::Classes(2), 3).unwrap();
    for recipe in [
        SHORT,
        "epochs = 5\nbatch_size = 8\noptimizer = \"sgd\"\n[early_stopping]\npatience = 2",
        "epochs = 2\nbatch_size = 8\nfreeze = { first = 2 }\n[augment]\nprobability = 0.5\nshift = 0.2",
    ] {
        let bytes = |seed| learned(&old, recipe, seed).0.bytes;
        assert_eq!(bytes(1), bytes(1), "{recipe}");
        assert_ne!(bytes(1), bytes(2), "{recipe}");
    }
}

#[test]
fn what_is_frozen_keeps_every_byte_running_statistics_included() {
    let old = starter(Kind::PictureCnn, &[1, SIDE, SIDE], Head::Classes(2), 3).unwrap();
    let (new, outcome) = learned(&old, &format!("{SHORT}\nfreeze = [\"conv1.*\"]"), 1);
    let conv_1 = ["weight", "norm.scale", "norm.bias", "norm.mean", "norm.variance"];
    assert_eq!(outcome.frozen, conv_1.map(|part| format!("conv1.{part}")));
    assert_eq!(new.patches.len(), 14 - 5);
    let tensors = |bytes: &[u8]| Model::parse(bytes.to_vec()).unwrap().initializers;
    let (before, after) = (tensors(&old), tensors(&new.bytes));
    for (name, tensor) in &before {
        let same = tensor.elements == after[name].elements;
        assert_eq!(same, outcome.frozen.contains(name), "{name}");
    }
}

#[test]
fn early_stopping_ends_and_keeps_the_best_weights() {
    let old = starter(Kind::PictureCnn, &[1, SIDE, SIDE], Head::Classes(2), 3).unwrap();
    // The labels say nothing about noise, so nothing that is learned holds elsewhere.
    let set = pictures(noise(40 * SIDE * SIDE, 5));
    let recipe =
        "epochs = 60\nbatch_size = 8\n[early_stopping]\npatience = 3\nvalidation_share = 0.3";
    let recipe = Recipe::parse(recipe, &Recipe::starter()).unwrap();
    let mut graph = load(&old);
    let outcome = learn(&mut graph, &set, &recipe, 1).unwrap();
    let losses: Vec<f32> = outcome.curve.iter().map(|e| e.validation_loss.unwrap()).collect();
    let best = losses.iter().copied().fold(f32::INFINITY, f32::min);
    let kept = outcome.kept_epoch as usize;
    assert_eq!(losses[kept - 1], best, "{losses:?}");
    assert_eq!(losses.len(), kept + 3, "it waits three epochs for a better one: {losses:?}");

    let kept = validation::part(&set, 0.3, 1).unwrap().validate;
    let inputs = kept.iter().flat_map(|sample| set.input(*sample)).copied().collect();
    let passes = Passes::new(&graph, &set, &recipe, &[kept.len()], &Device::flex()).unwrap();
    let loss = passes.judge(&graph.parameters.fixed(), &kept, inputs);
    assert!((loss - best).abs() < 1e-5, "the weights are those of {best}, not of {loss}");
}

/// Two inputs times two weights, plus a bias of zero.
fn line(weights: [f32; 2]) -> Vec<u8> {
    GraphWriter::new("line")
        .input("x", &[None, Some(2)])
        .output("y", &[None, Some(1)])
        .floats("w", &[2, 1], &weights)
        .floats("b", &[1], &[0.0])
        .node("Gemm", &["x", "w", "b"], &["y"], vec![])
        .finish()
        .unwrap()
}

#[test]
fn weights_that_are_no_numbers_after_an_epoch_stop_the_run() {
    // The loss is 1e38 and finite; a step of ten along its gradient of 2e38 is not.
    let bytes = line([1.0, 0.0]);
    let targets = Targets::Values { shape: vec![1], values: vec![0.0; 2] };
    let x = vec![1e19, 0.0, 1e19, 0.0];
    let set = TrainingSet::new(vec![2], x, targets, Groups::one("g", 2)).unwrap();
    let text = "epochs = 2\nbatch_size = 2\nwarmup_epochs = 0\nlearning_rate = 10.0\nloss = \"mse\"\noptimizer = \"sgd\"";
    let recipe = Recipe::parse(text, &Recipe::starter()).unwrap();
    let model = Model::parse(bytes).unwrap();
    let mut graph = Graph::load(model, &[Fact::float(vec![2, 2])], &Device::flex()).unwrap();
    let before = graph.parameters.values();
    let error = learn(&mut graph, &set, &recipe, 1).unwrap_err();
    assert!(error.to_string().contains("after epoch 1 'w' is no finite number"), "{error}");
    assert_eq!(graph.parameters.values(), before);
}

#[test]
fn numbers_are_learned_too() {
    let bytes = line([0.0, 0.0]);
    let x = noise(2 * 64, 4);
    // y = 2a − 3b + 1
    let y: Vec<f32> = x.chunks(2).map(|row| 2.0 * row[0] - 3.0 * row[1] + 1.0).collect();
    let targets = Targets::Values { shape: vec![], values: y };
    let set = TrainingSet::new(vec![2], x, targets, Groups::one("g", 64)).unwrap();
    for (loss, optimizer) in [("mse", "adamw"), ("mse", "sgd"), ("mae", "adamw"), ("huber", "sgd")]
    {
        let text = format!(
            "epochs = 150\nbatch_size = 16\nlearning_rate = 0.05\nweight_decay = 0\nloss = \"{loss}\"\noptimizer = \"{optimizer}\""
        );
        let recipe = Recipe::parse(&text, &Recipe::starter()).unwrap();
        let model = Model::parse(bytes.clone()).unwrap();
        let mut graph = Graph::load(model, &[Fact::float(vec![16, 2])], &Device::flex()).unwrap();
        let outcome = learn(&mut graph, &set, &recipe, 1).unwrap();
        let values = graph.parameters.values();
        let found = [values["w"][0], values["w"][1], values["b"][0]];
        for (found, wanted) in found.iter().zip([2.0, -3.0, 1.0]) {
            assert!((found - wanted).abs() < 0.02, "{loss} {optimizer}: {found}, not {wanted}");
        }
        assert_eq!(outcome.curve[0].accuracy, None);
    }
}

#[test]
fn a_loss_that_is_no_number_stops_names_the_batch_and_keeps_the_good_weights() {
    let mut graph =
        load(&starter(Kind::PictureCnn, &[1, SIDE, SIDE], Head::Classes(2), 3).unwrap());
    let before = graph.parameters.values();
    let set = pictures(vec![f32::MAX; 4 * SIDE * SIDE]);
    let error = learn(&mut graph, &set, &Recipe::starter(), 1).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("epoch 1, batch 1") && text.contains("samples ["), "{text}");
    assert_eq!(before, graph.parameters.values());
}

#[test]
fn every_node_that_cannot_be_done_is_named() {
    let bytes = GraphWriter::new("odd")
        .input("x", &[None, Some(4)])
        .output("y", &[None, Some(4)])
        .node("Erfinv", &["x"], &["a"], vec![])
        .node("Relu", &["a"], &["b"], vec![])
        .node("Relu", &["b"], &["c"], vec![int("shade", 1)])
        .node("Sphere", &["c"], &["y"], vec![])
        .finish()
        .unwrap();
    let model = Model::parse(bytes).unwrap();
    let text =
        Graph::load(model, &[Fact::float(vec![2, 4])], &Device::flex()).err().unwrap().to_string();
    assert!(text.contains("Erfinv 'erfinv_0'") && text.contains("Sphere 'sphere_3'"), "{text}");
    assert!(!text.contains("relu_1"), "a node that can be done is not blamed: {text}");
}

#[test]
fn a_damaged_file_is_refused_or_loads_but_never_ends_the_process() {
    let whole = varied();
    let mut random = Random::new(6);
    let mut refused = 0;
    for _ in 0..4000 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.bits() as u8;
        }
        let loaded = Model::parse(bytes).ok().and_then(|model| {
            let inputs = Sizes::batch(2).inputs(&model).ok()?;
            Graph::load(model, &inputs, &Device::flex()).ok()
        });
        refused += usize::from(loaded.is_none());
    }
    assert!(refused > 400, "{refused}");
}
