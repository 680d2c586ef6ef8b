//! burn against ONNX Runtime, before and after training.

use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use trainer::graph::{Context, Fact, Graph, Sizes};
use trainer::onnx::write::{float, int, ints};
use trainer::onnx::{GraphWriter, Model, patch};
use trainer::ops::tensor;
use trainer::random::Random;
use trainer::starter::{Kind, starter};
use trainer::train::{Recipe, Sample, TrainingSet, train};

use super::data::{SIDE, session};

const BATCH: usize = 5;

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.normal()).collect()
}

/// Every operator of the table but Constant, Sub, Div and LogSoftmax on the way to two scores.
fn varied() -> Vec<u8> {
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
    let theirs = session(bytes, input).run(BATCH, &x).unwrap();
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn set() -> TrainingSet {
    let samples = (0..40).map(|n| Sample { label: n % 2, group: "g".into() }).collect();
    let mut values = noise(40 * SIDE * SIDE, 5);
    for (place, value) in values.iter_mut().enumerate() {
        if place / (SIDE * SIDE) % 2 == 1 {
            *value += 0.5;
        }
    }
    TrainingSet::new(vec![1, SIDE, SIDE], values, samples, 2, vec![0.0]).unwrap()
}

pub fn trained(bytes: &[u8], seed: u64) -> (Vec<u8>, Vec<std::ops::Range<usize>>, f32, f32) {
    let device = Device::flex();
    let mut graph = load(bytes);
    let recipe =
        Recipe::parse("epochs = 5\nbatch_size = 8\nwarmup_epochs = 0", &Recipe::starter()).unwrap();
    let curve =
        train(&mut graph, &set(), &recipe, seed, &device, &AtomicBool::new(false), |_| {}).unwrap();
    let patched = patch(bytes, &graph.parameters.values()).unwrap();
    let ranges = patched
        .patches
        .iter()
        .map(|p| p.offset_bytes as usize..(p.offset_bytes + p.length_bytes) as usize)
        .collect();
    (patched.bytes, ranges, curve[0].loss, curve[4].loss)
}

#[test]
fn the_forward_pass_equals_onnx_runtime_before_and_after_training() {
    for (bytes, input) in
        [(varied(), "x"), (starter(Kind::PictureCnn, &[1, SIDE, SIDE], 2, 3).unwrap(), "picture")]
    {
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
    let old = starter(Kind::PictureCnn, &[1, SIDE, SIDE], 2, 3).unwrap();
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
    let old = starter(Kind::PictureCnn, &[1, SIDE, SIDE], 2, 3).unwrap();
    assert_eq!(trained(&old, 1).0, trained(&old, 1).0);
    assert_ne!(trained(&old, 1).0, trained(&old, 2).0);
}

#[test]
fn a_loss_that_is_no_number_stops_names_the_batch_and_keeps_the_good_weights() {
    let device = Device::flex();
    let mut graph = load(&starter(Kind::PictureCnn, &[1, SIDE, SIDE], 2, 3).unwrap());
    let before = graph.parameters.values();
    let samples = (0..4).map(|n| Sample { label: n % 2, group: "g".into() }).collect();
    let set = TrainingSet::new(
        vec![1, SIDE, SIDE],
        vec![f32::MAX; 4 * SIDE * SIDE],
        samples,
        2,
        vec![0.0],
    )
    .unwrap();
    let error =
        train(&mut graph, &set, &Recipe::starter(), 1, &device, &AtomicBool::new(false), |_| {})
            .unwrap_err();
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
